import AsyncHTTPClient
import Foundation
import Logging
import NIOCore
import NIOHTTP1
import Semel
import SemelSQLite
import SemelTesting
import ServiceLifecycle
import Testing

@testable import SemelServer

/// The stores on which the control plane is tried.
enum TriedStore: String, CaseIterable, CustomTestStringConvertible {
    case memory, sqlite

    var testDescription: String { "\(rawValue) store" }

    func use(clock: any StoreClock = SystemStoreClock(), _ body: (any OperationStore) async throws -> Void) async throws {
        switch self {
        case .memory:
            try await body(MemoryStore(clock: clock))
        case .sqlite:
            try await withTemporaryFolder { folder in
                var configuration = SQLiteStore.Configuration()
                configuration.reserve = 1 << 16
                let store = try await SQLiteStore(path: "\(folder)/semel.db", configuration: configuration, clock: clock)
                do { try await body(store) } catch {
                    await store.close()
                    throw error
                }
                await store.close()
            }
        }
    }

    /// The levels of the two rules of the claims API on this store.
    var reclaimLevel: String { self == .memory ? "bestEffort" : "atLeastOnce" }
    var uncertainLevel: String { self == .memory ? "bestEffort" : "atMostOnce" }
}

func withTemporaryFolder(_ body: (String) async throws -> Void) async throws {
    let folder = NSTemporaryDirectory() + "semel-control-plane-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    try await body(folder)
}

/// What was answered. Every answer was held to the server's own description before a test sees it.
struct PlaneAnswer: Sendable {
    var status: Int
    var fields: HTTPHeaders
    var body: [UInt8]

    var text: String { String(decoding: body, as: UTF8.self) }
    var json: JSONValue { (try? JSONValue(parsing: body)) ?? .null }
    var code: String? { json["code"]?.string }
    subscript(name: String) -> JSONValue? { json[name] }
}

struct UnexpectedAnswer: Error {
    var answer: PlaneAnswer
}

extension ControlPlane {
    /// One that keeps its log to itself.
    static func quiet(
        admin: AdminConfiguration, claims: ClaimsConfiguration = ClaimsConfiguration(), store: any OperationStore,
        claimsAPI: ClaimsAPI? = nil, scenes: @escaping @Sendable () -> [SceneReport] = { [] }, checks: [ReadinessCheck] = [],
        metrics: @escaping @Sendable () -> String = { "" }
    ) throws(ControlPlaneError) -> ControlPlane {
        try ControlPlane(
            admin: admin, claims: claims, store: store, claimsAPI: claimsAPI, scenes: scenes, checks: checks, metrics: metrics,
            logger: Logger(label: "quiet") { _ in SwiftLogNoOpLogHandler() })
    }
}

/// A control plane that serves on a port of its own, and a client of it.
struct PlaneUnderTest: Sendable {
    let plane: ControlPlane
    let port: Int
    /// `nil` until the description was read.
    var description: OpenAPIDescription?
    /// What was answered so far: operation id and status.
    let seen = Locked(Set<String>())

    /// One client for all tests: as many connections as a race needs.
    static let client = HTTPClient(
        eventLoopGroupProvider: .singleton,
        configuration: .init(
            timeout: .init(connect: .seconds(120), read: .seconds(180)),
            connectionPool: .init(idleTimeout: .seconds(60), concurrentHTTP1ConnectionsPerHostSoftLimit: 256)))

    static func run(
        _ plane: ControlPlane, _ body: @escaping @Sendable (PlaneUnderTest) async throws -> Void
    ) async throws {
        let services = ServiceGroup(configuration: .init(services: [plane], logger: Logger(label: "semel.tests")))
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await services.run() }
            group.addTask {
                var test = PlaneUnderTest(plane: plane, port: try await plane.port())
                let description = try await test.get("/openapi.json")
                try #require(description.status == 200)
                test.description = OpenAPIDescription(description.json)
                try await body(test)
            }
            // Whichever ends first: the body, or a server that could not start.
            let first = await group.nextResult()
            await services.triggerGracefulShutdown()
            try await group.waitForAll()
            try first?.get()
        }
    }

    func get(_ path: String, token: String? = nil) async throws -> PlaneAnswer { try await send(.GET, path, token: token) }

    func post(_ path: String, _ body: JSONValue, token: String? = nil) async throws -> PlaneAnswer {
        try await send(.POST, path, body: body.serialized(), token: token)
    }

    func post(_ path: String, text: String, token: String? = nil) async throws -> PlaneAnswer {
        try await send(.POST, path, body: Array(text.utf8), token: token)
    }

    func send(
        _ method: HTTPMethod, _ path: String, body: [UInt8]? = nil, token: String? = nil, fields: [(String, String)] = []
    ) async throws -> PlaneAnswer {
        var request = HTTPClientRequest(url: "http://127.0.0.1:\(port)\(path)")
        request.method = method
        if let token { request.headers.add(name: "Authorization", value: "Bearer \(token)") }
        if let body {
            request.body = .bytes(body)
            if !fields.contains(where: { $0.0 == "Content-Type" }) { request.headers.add(name: "Content-Type", value: "application/json") }
        }
        for (name, value) in fields { request.headers.replaceOrAdd(name: name, value: value) }
        let response = try await Self.client.execute(request, timeout: .seconds(180))
        let answer = PlaneAnswer(
            status: Int(response.status.code), fields: response.headers,
            body: Array(buffer: try await response.body.collect(upTo: 64 << 20)))
        if let description, method != .HEAD {
            for violation in description.violations(of: method.rawValue, path, answer) {
                Issue.record("\(method) \(path) → \(answer.status) does not fit its description: \(violation)\n\(answer.text.prefix(2000))")
            }
            if let name = description.operation(method.rawValue, path)?["operationId"]?.string {
                seen.withLock { _ = $0.insert("\(name) \(answer.status)") }
            }
        }
        return answer
    }
}

/// Claims as a worker says them.
extension PlaneUnderTest {
    func claim(
        _ key: String, scope: String = "orders", fingerprint: String = "f", lease: String = "30s", onLapse: String? = nil,
        owner: String? = nil, token: String? = nil
    ) async throws -> PlaneAnswer {
        try await post("/v1/claim", .claim(key, scope: scope, fingerprint: fingerprint, lease: lease, onLapse: onLapse, owner: owner), token: token)
    }

    /// A claim that must be granted: its fencing token.
    func granted(_ key: String, lease: String = "30s", onLapse: String? = nil, owner: String? = nil) async throws -> String {
        let answer = try await claim(key, lease: lease, onLapse: onLapse, owner: owner)
        return try #require(answer["token"]?.string, "\(answer.text)")
    }

    /// Says something as the holder of a token: whether it was applied.
    func apply(_ verb: String, _ key: String, _ token: String, _ more: JSONValue = [:]) async throws -> Bool {
        var item = JSONValue.item(key)
        item["token"] = .string(token)
        for member in more.object?.members ?? [] { item[member.name] = member.value }
        let answer = try await post("/v1/\(verb)", .object(item))
        let applied: Bool? = answer["applied"]?.bool
        guard let applied else { throw UnexpectedAnswer(answer: answer) }
        return applied
    }

    func complete(_ key: String, _ token: String, _ outcome: JSONValue = ["status": 201, "body": "b2s="]) async throws -> Bool {
        try await apply("complete", key, token, ["outcome": outcome])
    }

    func wait(_ key: String, _ timeout: String) async throws -> PlaneAnswer {
        var item = JSONValue.item(key)
        item["timeout"] = .string(timeout)
        return try await post("/v1/wait", .object(item))
    }

    func reference(_ key: String, scope: String = "orders") -> String {
        OperationReference(OperationID(scope: Scope("claims", scope), key: try! OperationKey(key))).description
    }
}

extension JSONValue {
    static func item(_ key: String, scope: String = "orders") -> JSONObject {
        var item = JSONObject()
        item["scope"] = .string(scope)
        item["key"] = .string(key)
        return item
    }

    static func claim(
        _ key: String, scope: String = "orders", fingerprint: String = "f", lease: String = "30s", onLapse: String? = nil,
        owner: String? = nil
    ) -> JSONValue {
        var item = item(key, scope: scope)
        item["fingerprint"] = .string(fingerprint)
        item["lease"] = .string(lease)
        item["onLapse"] = onLapse.map(JSONValue.string)
        item["owner"] = owner.map(JSONValue.string)
        return .object(item)
    }
}

/// Asks again until it holds, for what has no signal outside of the server.
func eventually(_ condition: () async throws -> Bool, _ comment: Comment) async throws {
    let deadline = ContinuousClock.now + .seconds(120)
    while ContinuousClock.now < deadline {
        if try await condition() { return }
        try await Task.sleep(for: .milliseconds(5))
    }
    Issue.record(comment)
}
