import ChildProcesses
import Foundation
import Semel
@testable import SemelRedis

/// A server of its own for one test, started by the script for it and killed with the value.
final class RedisServer: Sendable {
    let port: Int
    let directory: URL
    private let arguments: [String]

    /// - Parameters:
    ///   - cluster: three nodes on `port` and the two after it.
    ///   - arguments: further ones of a single server.
    ///   - disk: where its files go.
    init(cluster: Bool = false, _ arguments: [String] = [], on disk: URL = FileManager.default.temporaryDirectory) async throws {
        directory = disk.appendingPathComponent("semel-redis-\(UUID().uuidString.prefix(8))")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        self.arguments = arguments
        let line = try await Self.script(cluster ? "start-redis-cluster" : "start-redis", ["0", directory.path] + arguments)
        guard let match = line.firstMatch(of: /127\.0\.0\.1:([0-9]+)/), let port = Int(match.1) else {
            throw ServerFailure(description: "the start script said \"\(line)\"")
        }
        self.port = port
    }

    deinit {
        for process in processes { kill(process, SIGKILL) }
        try? FileManager.default.removeItem(at: directory)
    }

    /// One for a single server, three for a cluster.
    var processes: [pid_t] {
        guard let text = try? String(contentsOf: directory.appendingPathComponent("pid"), encoding: .utf8) else { return [] }
        return text.split(whereSeparator: \.isWhitespace).compactMap { pid_t($0) }
    }

    var url: String { "redis://127.0.0.1:\(port)" }

    func signal(_ number: Int32) { for process in processes { kill(process, number) } }

    /// Kills it, and waits until it is gone.
    func killNow() async throws {
        let victims = processes
        signal(SIGKILL)
        try await Self.gone(victims)
    }

    /// Waits until these have ended.
    static func gone(_ processes: [pid_t]) async throws {
        for _ in 0..<12_000 {
            if processes.allSatisfy({ kill($0, 0) != 0 }) { return }
            try await Task.sleep(for: .milliseconds(5))
        }
        throw ServerFailure(description: "the server does not die")
    }

    /// Starts it again over the same data.
    func restart() async throws { _ = try await Self.script("start-redis", [String(port), directory.path] + arguments) }

    @discardableResult
    func command(_ words: String...) async throws -> String {
        // What concerns a whole cluster names its node itself.
        try await Self.run("/usr/bin/env", ["redis-cli"] + (words.first == "--cluster" ? [] : ["-p", String(port)]) + words)
    }

    static func redisCLI(_ port: Int, _ words: String...) async throws -> String {
        try await run("/usr/bin/env", ["redis-cli", "-p", String(port)] + words)
    }

    // MARK: Scripts

    static func script(_ name: String, _ arguments: [String]) async throws -> String {
        try await run(Repository.file("scripts/servers/\(name)").path, arguments)
    }

    @discardableResult
    static func run(_ program: String, _ arguments: [String]) async throws -> String {
        let process = try ChildProcess(program: URL(fileURLWithPath: program), arguments, in: FileManager.default.temporaryDirectory)
        let end = await process.end()
        defer { try? FileManager.default.removeItem(at: process.errors) }
        guard end == .code(0) else {
            throw ServerFailure(
                description: "\(program) \(arguments.joined(separator: " ")) failed: \(process.output)\(process.errorOutput)")
        }
        return process.output
    }
}

struct ServerFailure: Error, CustomStringConvertible { let description: String }

private let ownProcesses = Locked<[pid_t]>([])

private func killOwnProcesses() {
    for process in ownProcesses.withLock({ $0 }) { kill(process, SIGKILL) }
}

/// The servers that a whole run shares; each test has a key prefix of its own.
enum SharedRedis {
    /// `SEMEL_TEST_REDIS` as `scripts/test` sets it; without it the run starts its own.
    private static let single = Task { try await address("SEMEL_TEST_REDIS", cluster: false) }
    private static let cluster = Task { try await address("SEMEL_TEST_REDIS_CLUSTER", cluster: true) }

    /// Kept until the process ends.
    private static let own = Locked<[RedisServer]>([])

    private static func address(_ variable: String, cluster: Bool) async throws -> String {
        if let address = ProcessInfo.processInfo.environment[variable], !address.isEmpty { return address }
        let server = try await RedisServer(cluster: cluster)
        own.withLock { $0.append(server) }
        let processes = server.processes
        ownProcesses.withLock { $0 += processes }
        atexit(killOwnProcesses)
        return "127.0.0.1:\(server.port)"
    }

    /// `host:port`, of a cluster perhaps several.
    static func address(cluster isCluster: Bool = false) async throws -> String { try await (isCluster ? cluster : single).value }

    /// A location on the shared servers, with a prefix of its own.
    static func location(cluster isCluster: Bool = false) async throws -> RedisLocation {
        let address = try await address(cluster: isCluster)
        var location = try RedisLocation("redis\(isCluster ? "+cluster" : "")://\(address)")
        location.prefix = "t\(UUID().uuidString.prefix(8)):"
        return location
    }

    static func store(cluster: Bool = false) async throws -> RedisStore {
        try await RedisStore(try await location(cluster: cluster), configuration: RedisStore.Configuration(purgesByItself: false))
    }
}

let pinned = PinnedPolicy(scene: "payments", text: "effect: unknown")

func key(_ text: String, scope: String = "tenant") -> OperationID {
    OperationID(scope: Scope(scope), key: try! OperationKey(text))
}

func request(
    _ id: OperationID, _ owner: UInt64 = 1, fingerprint: String = "a", lease: Duration = .seconds(600), onLapse: LapseRule = .uncertain,
    retention: Retention = .standard, limit: Int? = nil
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
}

/// Lets so many in at once.
final class Turnstile: Sendable {
    private let state: Locked<(free: Int, waiting: [CheckedContinuation<Void, Never>])>

    init(_ count: Int) { state = Locked((count, [])) }

    func enter() async {
        await withCheckedContinuation { continuation in
            let isFree = state.withLock { state in
                if state.free == 0 {
                    state.waiting.append(continuation)
                    return false
                }
                state.free -= 1
                return true
            }
            if isFree { continuation.resume() }
        }
    }

    func leave() {
        let next: CheckedContinuation<Void, Never>? = state.withLock { state in
            if state.waiting.isEmpty {
                state.free += 1
                return nil
            }
            return state.waiting.removeFirst()
        }
        next?.resume()
    }
}
