#if MySQL
import Foundation
import Semel
@testable import SemelMySQL

/// A real MariaDB server: the one of the whole test run, or one of a test's own that may be killed and stopped.
final class TestServer: Sendable {
    let port: Int
    private let folder: String
    private let options: [String]
    private let process = Locked<pid_t?>(nil)

    /// `mysql://root@host:port`, without a database.
    var url: String { "mysql://root@127.0.0.1:\(port)" }

    /// The server that `SEMEL_TEST_MYSQL` names, or one that is started for this run and ends with it.
    static let shared: String = {
        if let url = ProcessInfo.processInfo.environment["SEMEL_TEST_MYSQL"], !url.isEmpty { return url }
        let server: TestServer
        do {
            server = try TestServer()
        } catch {
            fatalError("No MariaDB to test with: \(error)")
        }
        atexit { TestServer.atExit.withLock { $0 }?.end() }
        TestServer.atExit.withLock { $0 = server }
        return server.url
    }()

    private static let atExit = Locked<TestServer?>(nil)

    /// Starts a server of its own.
    /// - Parameter options: of mariadbd.
    init(options: [String] = []) throws {
        self.options = options
        folder = FileManager.default.temporaryDirectory.path + "/semel-mysql-" + UUID().uuidString
        let line = try Self.launch(port: 0, folder, options)
        guard let found = line.split(separator: " ").first(where: { $0.hasPrefix("mysql://") })?.split(separator: ":").last,
            let port = Int(found), let pid = Self.number(after: "pid", in: line)
        else { throw ServerError(description: "the start script said \(line)") }
        self.port = port
        process.withLock { $0 = pid }
    }

    deinit { end() }

    /// Ends it, and removes what it kept.
    func end() {
        kill()
        try? FileManager.default.removeItem(atPath: folder)
    }

    func signal(_ number: Int32) { process.withLock { if let pid = $0 { Foundation.kill(pid, number) } } }

    /// `kill -9`, and waits until it is gone.
    func kill() {
        guard let pid = process.withLock({ $0 }) else { return }
        Foundation.kill(pid, SIGKILL)
        // It is nobody's child here: its parent was the script.
        while Foundation.kill(pid, 0) == 0, !Self.isZombie(pid) { usleep(5000) }
        process.withLock { $0 = nil }
    }

    /// Starts it again, over the same files and at the same port.
    func restart() throws {
        let line = try Self.launch(port: port, folder, options)
        process.withLock { $0 = Self.number(after: "pid", in: line) }
    }

    private static func isZombie(_ pid: pid_t) -> Bool {
        guard let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8) else { return false }
        return text.split(separator: ")").last?.hasPrefix(" Z") ?? false
    }

    private static func number(after word: String, in line: String) -> pid_t? {
        let words = line.split(whereSeparator: \.isWhitespace).map(String.init)
        return words.firstIndex(of: word).flatMap { $0 + 1 < words.count ? pid_t(words[$0 + 1]) : nil }
    }

    private static func launch(port: Int, _ folder: String, _ options: [String]) throws -> String {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        let script = Process()
        script.executableURL = root.appendingPathComponent("scripts/servers/start-mariadb")
        script.arguments = ["\(port)", folder] + options
        let (output, errors) = (Pipe(), Pipe())
        script.standardOutput = output
        script.standardError = errors
        try script.run()
        let said = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        script.waitUntilExit()
        guard script.terminationStatus == 0, let line = said.split(separator: "\n").first(where: { $0.hasPrefix("ready") }) else {
            throw ServerError(description: "\(said)\(String(decoding: errors.fileHandleForReading.availableData, as: UTF8.self))")
        }
        return String(line)
    }
}

struct ServerError: Error, CustomStringConvertible {
    let description: String
}

/// A database of its own for one test, dropped afterwards.
func withDatabase<Value>(on server: String = TestServer.shared, _ body: (_ url: String) async throws -> Value) async throws -> Value {
    let name = "semel_\(UUID().uuidString.replacingOccurrences(of: "-", with: "").lowercased())"
    try await withConnection(to: server + "/mysql") { try $0.execute("CREATE DATABASE \(name)") }
    let result: Result<Value, any Error>
    do {
        result = .success(try await body(server + "/" + name))
    } catch {
        result = .failure(error)
    }
    try await withConnection(to: server + "/mysql") { try $0.execute("DROP DATABASE \(name)") }
    return try result.get()
}

/// A plain connection, on a thread of its own.
func withConnection<Value: Sendable>(to url: String, _ body: @escaping @Sendable (Connection) throws -> Value) async throws -> Value {
    let target = try Target(url: url)
    return try await blocking { try body(try Connection(to: target, timeout: .seconds(20), counting: .changed)) }
}

func blocking<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await withCheckedThrowingContinuation { caller in
        Thread.detachNewThread { caller.resume(with: Result { try body() }) }
    }
}

let pinned = PinnedPolicy(scene: "payments", text: "effect: unknown")

func key(_ text: String, scope: String = "tenant") -> OperationID {
    OperationID(scope: Scope(scope), key: try! OperationKey(text))
}

func request(
    _ id: OperationID, _ owner: UInt64 = 1, fingerprint: String = "a", lease: Duration = .seconds(30), onLapse: LapseRule = .uncertain,
    retention: Retention = .standard, limit: Int? = 1_000_000
) -> ClaimRequest {
    ClaimRequest(
        id: id, fingerprint: Fingerprint(of: Array(fingerprint.utf8)), owner: Owner(high: owner, low: owner), lease: lease,
        onLapse: onLapse, policy: pinned, retention: retention, liveLimit: limit)
}

func outcome(_ text: String) -> Outcome { Outcome(status: 201, fields: [.init("location", "/1")], body: .kept(Array(text.utf8))) }

struct NotGranted: Error { let result: ClaimResult }

extension OperationStore {
    func granted(_ request: ClaimRequest) async throws -> Grant {
        let result = try await claim(request)
        guard case .granted(let grant) = result else { throw NotGranted(result: result) }
        return grant
    }

    /// Claims and completes.
    func finish(_ id: OperationID, with text: String = "done", retention: Retention = .standard) async throws {
        let grant = try await granted(request(id, retention: retention))
        let result = try await apply(.complete(outcome(text)), to: id, token: grant.token)
        guard result == .applied else { throw NotGranted(result: .mismatch) }
    }
}

/// The configuration of most tests: few connections, and nothing happens by itself.
func quiet(migrations: [[String]] = [], connections: Int = 2) -> MySQLStore.Configuration {
    MySQLStore.Configuration(connections: connections, migrations: migrations, purgesByItself: false)
}
#endif
