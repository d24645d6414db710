#if MySQL
import Foundation
import Semel
@testable import SemelMySQL
import TestServers

/// `mysql://root@host:port` of a server of a test's own, without a database.
/// - Parameter disk: where its files go.
func ownServer(_ options: String = "", on disk: URL = FileManager.default.temporaryDirectory) async throws -> TestServer {
    try await TestServer("start-mariadb", environment: ["MARIADB_OPTIONS": options], on: disk)
}

/// A store in a new database of a test's own server, which takes it along when it goes.
func ownStore(on server: String, _ configuration: MySQLStore.Configuration) async throws -> MySQLStore {
    try await MySQLStore(url: try await Database(on: server).url, configuration: configuration)
}

struct ServerError: Error, CustomStringConvertible {
    let description: String
}

/// A database of its own for one test.
struct Database: Sendable {
    let url: String
    private let server: String
    private let name = "semel_\(UUID().uuidString.replacingOccurrences(of: "-", with: "").lowercased())"

    /// - Parameter server: the one of the whole run, when `nil`.
    init(on server: String? = nil) async throws {
        self.server = if let server { server } else { try await TestServer.url("SEMEL_TEST_MYSQL", script: "start-mariadb") }
        url = self.server + "/" + name
        let statement = "CREATE DATABASE \(name)"
        try await withConnection(to: self.server + "/mysql") { try $0.execute(statement) }
    }

    func drop() async throws {
        let statement = "DROP DATABASE \(name)"
        try await withConnection(to: server + "/mysql") { try $0.execute(statement) }
    }
}

/// A database of its own for one test, dropped afterwards.
/// - Parameter server: the one of the whole run, when `nil`.
func withDatabase<Value>(on server: String? = nil, _ body: (_ url: String) async throws -> Value) async throws -> Value {
    let database = try await Database(on: server)
    let result: Result<Value, any Error>
    do {
        result = .success(try await body(database.url))
    } catch {
        result = .failure(error)
    }
    try await database.drop()
    return try result.get()
}

/// A plain connection, on a thread of its own.
func withConnection<Value: Sendable>(to url: String, _ body: @escaping @Sendable (Connection) throws -> Value) async throws -> Value {
    let target = try Target(url: url)
    return try await blocking { try body(try Connection(to: target, timeout: .seconds(60), counting: .changed)) }
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
    _ id: OperationID, _ owner: UInt64 = 1, fingerprint: String = "a", lease: Duration = .seconds(600), onLapse: LapseRule = .uncertain,
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
    // Patient: a busy machine is not a server that is gone.
    MySQLStore.Configuration(
        connections: connections, timeout: .seconds(60), patience: .seconds(60), migrations: migrations, purgesByItself: false)
}
#endif
