#if Postgres
import Foundation
import Semel
@testable import SemelPostgres
import SemelTesting
import Testing
import TestServers

/// A schema of its own in a real database, and stores over it.
struct Place {
    var url: String
    var configuration: PostgresStore.Configuration

    /// In the server of the whole run.
    init(_ configuration: PostgresStore.Configuration = .forTests) async throws {
        let server = try await TestServer.url("SEMEL_TEST_POSTGRES", script: "start-postgres")
        self.init(server: server, configuration)
    }

    init(server: String, _ configuration: PostgresStore.Configuration = .forTests) {
        url = server + (server.contains("?") ? "&" : "?") + "schema=t_" + UUID().uuidString.lowercased().filter { $0 != "-" }
        self.configuration = configuration
    }

    func open(environment: Semel.Environment = .live) async throws -> PostgresStore {
        try await PostgresStore.open(url, migrate: true, configuration: configuration, environment: environment)
    }

    /// The same schema, and what lies in it stands before what the server brings along under the same name.
    func searchedFirst() -> Place {
        var place = self
        let schema = url.split(separator: "schema=").last ?? ""
        place.url += "&options=-c%20search_path%3D\(schema)%2Cpg_catalog"
        return place
    }

    /// The same schema through another port.
    func url(through port: Int) -> String {
        guard var parts = URLComponents(string: url) else { return url }
        parts.port = port
        return parts.string ?? url
    }

    /// Runs statements beside every store.
    @discardableResult
    func run(_ statements: String...) async throws -> [[String]] {
        let (url, configuration) = (url, configuration)
        return try await blocking {
            let target = try Target(url: url, schema: configuration.schema)
            let connection = try Connection(to: target, within: .seconds(60), uptime: Semel.Environment.live.uptime, name: "semel test")
            var last: [[String]] = []
            for statement in statements {
                let sql = statement.replacing("{schema}", with: target.quotedSchema)
                let rows = try connection.run([.callers(connection.statement(forCaller: sql), [])], within: .seconds(120))[0].get()
                last = (0..<rows.count).map { row in (0..<rows.columnCount).map { rows.text(row, $0) } }
            }
            return last
        }
    }

    /// Runs a statement in a transaction beside every store, and leaves that open until it is told.
    func holding(_ statement: String, until isOver: Locked<Bool>) async throws {
        let (url, configuration) = (url, configuration)
        try await blocking {
            let target = try Target(url: url, schema: configuration.schema)
            let connection = try Connection(to: target, within: .seconds(60), uptime: Semel.Environment.live.uptime, name: "semel test")
            let sql = statement.replacing("{schema}", with: target.quotedSchema)
            for reply in try connection.run([.text("BEGIN"), .text(sql)], within: .seconds(120)) { _ = try reply.get() }
            while !isOver.withLock({ $0 }) { Thread.sleep(forTimeInterval: 0.01) }
            _ = try connection.run([.text("ROLLBACK")], within: .seconds(120))
        }
    }

    func drop() async throws { try await run("DROP SCHEMA IF EXISTS {schema} CASCADE") }
}

/// On a thread of its own, so that what waits for the server holds up no other test.
private func blocking<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await withCheckedThrowingContinuation { caller in
        Thread.detachNewThread { caller.resume(with: Result { try body() }) }
    }
}

extension PostgresStore.Configuration {
    /// Few connections: many tests share the server. Patient: a busy machine is not a server that is gone.
    static var forTests: Self {
        Self(connections: 2, transactions: 2, purgesEvery: nil, patience: .seconds(60), connectLimit: .seconds(60), answerLimit: .seconds(60))
    }
}

/// Lets only so many tests use the server at once; it has so many connections.
actor Turnstile {
    static let laws = Turnstile(14)
    private var free: Int
    private var waiting: [CheckedContinuation<Void, Never>] = []

    init(_ count: Int) { free = count }

    func enter() async {
        if free > 0 { free -= 1 } else { await withCheckedContinuation { waiting.append($0) } }
    }

    func leave() {
        if waiting.isEmpty { free += 1 } else { waiting.removeFirst().resume() }
    }

    nonisolated func pass<Value: Sendable>(_ body: () async throws -> Value) async throws -> Value {
        await enter()
        do {
            let value = try await body()
            await leave()
            return value
        } catch {
            await leave()
            throw error
        }
    }
}

func key(_ text: String) -> OperationID { OperationID(scope: Scope("tenant"), key: try! OperationKey(text)) }

func owner() -> Owner {
    var generator = SystemRandomNumberGenerator()
    return Owner(using: &generator)
}

let pinned = PinnedPolicy(scene: "payments", text: "rules")

func request(_ id: OperationID, by claimant: Owner = owner(), lease: Duration = .seconds(600)) -> ClaimRequest {
    ClaimRequest(id: id, fingerprint: Fingerprint(of: [1]), owner: claimant, lease: lease, onLapse: .uncertain, policy: pinned)
}

func outcome(_ text: String) -> Outcome { Outcome(body: .kept(Array(text.utf8))) }

extension PostgresStore {
    /// A claim that must be granted.
    func granted(_ request: ClaimRequest) async throws -> Grant {
        let result = try await claim(request)
        guard case .granted(let grant) = result else { throw Unexpected(description: "\(result)") }
        return grant
    }
}

struct Unexpected: Error, CustomStringConvertible {
    let description: String
}
#endif
