import AsyncHTTPClient
import Logging
import NIOCore
import NIOHTTP1
import Semel
import SemelTesting
import ServiceLifecycle
import Testing

@testable import SemelServer

/// A gateway that listens on a port of its own, as the configuration says, and a client of it.
struct GatewayUnderTest: Sendable {
    let gateway: Gateway
    let port: Int
    let store: StoreDouble
    private let services: ServiceGroup

    static func run(
        _ configuration: ServerConfiguration, store: StoreDouble = .durable(isTransactional: true),
        _ body: @escaping @Sendable (GatewayUnderTest) async throws -> Void
    ) async throws {
        let quiet = Logger(label: "quiet") { _ in SwiftLogNoOpLogHandler() }
        let gateway = try await Gateway(configuration: configuration, store: store, logger: quiet)
        let services = ServiceGroup(configuration: .init(services: [gateway], logger: quiet))
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await services.run() }
            group.addTask { try await body(GatewayUnderTest(gateway: gateway, port: try await gateway.port, store: store, services: services)) }
            // Whichever ends first: the body, or a gateway that could not start.
            let first = await group.nextResult()
            await services.triggerGracefulShutdown()
            try await group.waitForAll()
            try first?.get()
        }
    }

    /// What SIGTERM does.
    func shutDown() async { await services.triggerGracefulShutdown() }

    func post(
        _ path: String = "/v1/payments", key: String? = "key-1", body: String = #"{"amount":1}"#, fields: [(String, String)] = []
    ) async throws -> PlaneAnswer {
        try await send(.POST, path, body: body, (key.map { [("Idempotency-Key", "\"\($0)\"")] } ?? []) + fields)
    }

    func send(_ method: HTTPMethod, _ path: String, body: String? = nil, _ fields: [(String, String)] = []) async throws -> PlaneAnswer {
        var request = HTTPClientRequest(url: "http://127.0.0.1:\(port)\(path)")
        request.method = method
        for (name, value) in fields { request.headers.add(name: name, value: value) }
        if let body { request.body = .bytes(ByteBuffer(string: body)) }
        let response = try await PlaneUnderTest.client.execute(request, timeout: .seconds(180))
        return PlaneAnswer(
            status: Int(response.status.code), fields: response.headers, body: Array(buffer: try await response.body.collect(upTo: 64 << 20)))
    }

    /// Repeats a request while its first run, or the resolver, is at it.
    func postUntilSettled(key: String = "key-1", fields: [(String, String)] = []) async throws -> PlaneAnswer {
        while true {
            let answer = try await post(key: key, fields: fields)
            if answer.code != "in-progress" { return answer }
            try await Task.sleep(for: .milliseconds(10))
        }
    }

    /// The record of a key; `scope` is empty for a scene without one.
    func record(_ key: String = "key-1", scope: String...) async throws -> Record? {
        try await store.record(of: OperationID(scope: Scope(parts: ["http"] + scope), key: try OperationKey(key)))
    }
}

extension PlaneAnswer {
    func field(_ name: String) -> String? { fields.first(name: name) }
    var isReplay: Bool { field("Idempotent-Replayed") == "true" }
    var guarantee: String? { field("Semel-Guarantee") }
}

extension ServerConfiguration {
    /// One upstream on this machine, and one scene for everything under /v1, with these lines. A line replaces the default of
    /// the same name.
    static func gateway(
        _ upstream: String, scene lines: String..., top: [String] = [], _ place: SourceLocation = #_sourceLocation
    ) throws -> ServerConfiguration {
        try gateway(upstream, scenes: [lines], top: top, place)
    }

    static func gateway(_ upstream: Int, scene lines: String..., top: [String] = [], _ place: SourceLocation = #_sourceLocation) throws -> ServerConfiguration {
        try gateway("http://127.0.0.1:\(upstream)", scenes: [lines], top: top, place)
    }

    static func gateway(
        _ upstream: String, scenes: [[String]], top: [String] = [], _ place: SourceLocation = #_sourceLocation
    ) throws -> ServerConfiguration {
        let defaults = [
            "match: { methods: [POST], path: /v1/** }", "upstream: payments", "key: { required: true }", "scope: none", "effect: unknown",
        ]
        var text = """
            listen: 127.0.0.1:0
            store: sqlite:./levels-of-production.db
            upstreams:
              payments: \(upstream)

            """
        for line in top { text += line + "\n" }
        text += scenes.isEmpty ? "" : "scenes:\n"
        for (index, lines) in scenes.enumerated() {
            text += "  - name: scene\(index)\n"
            let names = lines.map { $0.prefix { $0 != ":" } }
            for line in defaults.filter({ !names.contains($0.prefix { $0 != ":" }) }) + lines { text += "    \(line)\n" }
        }
        let reading = ConfigurationReader.read(text: text, file: "semel.yaml")
        return try #require(reading.configuration, "\(reading.mistakes)", sourceLocation: place)
    }
}
