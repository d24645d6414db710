import NIOCore
import Semel
import SemelHTTP
import SemelTesting
import Testing

@testable import SemelServer

/// A service that keeps what it did by the name a request gives it, and can be asked. It loses its answer, before it does
/// anything, to whoever it is told to.
private final class KeepingTarget: Sendable {
    struct State {
        var effects: Set<String> = []
        var keys: [String] = []
        var losing: Set<String> = []
    }

    let state = Locked(State())

    /// - Parameter name: what a request calls its effect.
    func serve(_ peer: RawPeer, name: @Sendable (RawMessage) -> String) async throws {
        while true {
            let message = try await peer.message()
            let effect = name(message)
            if message.startLine.hasPrefix("GET") {
                // Asked about nobody in particular, it tells about everybody.
                let isKnown = state.withLock { state in
                    state.effects.contains { $0 == effect || (effect.hasPrefix("nobody ") && $0.hasSuffix(effect.dropFirst("nobody".count))) }
                }
                try await peer.send("HTTP/1.1 \(isKnown ? "200 OK" : "404 Not Found")\r\nContent-Length: 0\r\n\r\n")
            } else {
                let isLost = state.withLock { state in
                    state.keys.append(message.field("idempotency-key") ?? "none")
                    if state.losing.remove(message.field("x-tenant") ?? "none") != nil { return true }
                    state.effects.insert(effect)
                    return false
                }
                if isLost { return }
                try await peer.send("HTTP/1.1 201 Created\r\nContent-Length: \(effect.utf8.count)\r\n\r\n\(effect)")
            }
        }
    }
}

/// Runs a gateway with one scene in front of a raw server.
private func withGateway(
    scene: String, top: String = "", store: MemoryStore = MemoryStore(), environment: Semel.Environment = .live,
    target: @escaping @Sendable (RawPeer) async throws -> Void,
    _ body: (_ port: Int, _ reload: (_ scene: String) async throws -> Void) async throws -> Void
) async throws {
    let server = try await RawServer(target)
    func configuration(_ scene: String) throws -> ServerConfiguration {
        let text = """
            listen: 127.0.0.1:0
            store: memory
            upstreams: { payments: http://127.0.0.1:\(server.port) }
            \(top)
            scenes:
              - name: payment
                match: { methods: [POST], path: /v1/** }
                upstream: payments
            \(scene.replacing("PORT", with: "\(server.port)").split(separator: "\n").map { "    " + $0 }.joined(separator: "\n"))
            """
        let reading = ConfigurationReader.read(text: text, file: "semel.yaml")
        return try #require(reading.configuration, "\(reading.diagnostics)")
    }
    let gateway = try await Gateway(configuration: try configuration(scene), store: store, environment: environment)
    let running = Task { try await gateway.run() }
    defer { running.cancel() }
    try await body(try await gateway.port) { try await gateway.update(try configuration($0)) }
}

private func post(_ port: Int, _ fields: [String], path: String = "/v1/payments", body: String = "{}") async throws -> RawMessage {
    try await withConnection(to: port) { peer in
        try await peer.send("POST \(path) HTTP/1.1\r\nHost: test\r\nContent-Length: \(body.utf8.count)\r\n" + fields.map { $0 + "\r\n" }.joined() + "\r\n" + body)
        return try await peer.message()
    }
}

/// How one target learns whose key is meant.
private struct Telling: Sendable, CustomTestStringConvertible {
    var testDescription: String
    var scene: String
    var name: @Sendable (RawMessage) -> String

    /// What stands after `name=` in a request's query.
    static func query(_ message: RawMessage, _ name: String) -> String? {
        message.startLine.split(separator: " ")[1].split(whereSeparator: { "?&".contains($0) }).first { $0.hasPrefix(name + "=") }
            .map { String($0.dropFirst(name.utf8.count + 1)) }
    }

    static func key(_ message: RawMessage) -> String {
        query(message, "key") ?? message.field("idempotency-key")?.filter { $0 != "\"" } ?? "none"
    }

    static let all = [
        Telling(
            testDescription: "by the scope's own field", scene: "effect: { queryable: { get: '/effects?key={key}', inFlight: 1ms, fence: Semel-Epoch } }",
            name: { "\($0.field("x-tenant") ?? "nobody") \(key($0))" }),
        Telling(
            testDescription: "by {scope}",
            scene: "effect: { queryable: { get: '/effects?key={key}&tenant={scope}', inFlight: 1ms, fence: Semel-Epoch } }",
            name: { message in
                message.startLine.hasPrefix("GET") ? "\(query(message, "tenant") ?? "nobody") \(key(message))" : "\(message.field("x-tenant") ?? "nobody") \(key(message))"
            }),
        Telling(
            testDescription: "by a derived key", scene: "effect: { queryable: { get: '/effects?key={derived}', inFlight: 1ms, fence: Semel-Epoch } }",
            name: { key($0) }),
    ]
}

@Suite("What a target is told about keys")
struct ScopedTargetTests {
    @Test("two tenants with equal keys never meet each other's effects when the target is asked", arguments: Telling.all)
    fileprivate func asked(_ telling: Telling) async throws {
        let target = KeepingTarget()
        target.state.withLock { $0.losing = ["B"] }
        let secret = "secret: \(String(repeating: "s", count: 32))"
        try await withGateway(scene: "scope: { header: X-Tenant }\n" + telling.scene, top: secret, target: { try await target.serve($0, name: telling.name) }) { port, _ in
            func pay(_ tenant: String) async throws -> RawMessage { try await post(port, ["Idempotency-Key: \"k\"", "X-Tenant: \(tenant)"]) }
            #expect(try await pay("A").status == 201)
            // The target took B's request and did nothing: the gateway has to ask.
            #expect(try await pay("B").status == 502)
            var answer = try await pay("B")
            // The resolver may be asking at this moment.
            for _ in 0..<100 where answer.status == 409 {
                try await ContinuousClock().sleep(for: .milliseconds(50))
                answer = try await pay("B")
            }
            #expect(answer.status == 201, "\(answer.head)\(answer.body)")
            #expect(target.state.withLock { $0.effects.count } == 2)
        }
    }

    @Test("a derived key reaches the target in place of the client's, and is the one it is asked by")
    func derived() async throws {
        let secret = Secret(bytes: Array(String(repeating: "s", count: 32).utf8))
        let target = KeepingTarget()
        try await withGateway(
            scene: "scope: { header: X-Tenant }\n" + Telling.all[2].scene, top: "secret: \(String(decoding: secret.bytes, as: UTF8.self))",
            target: { try await target.serve($0) { Telling.key($0) } }
        ) { port, _ in
            _ = try await post(port, ["Idempotency-Key: \"k\"", "X-Tenant: A"])
            let id = OperationID(scope: Scope("http", "A"), key: try OperationKey("k"))
            let key = DownstreamKey(header: .idempotencyKey, value: .derived(secret)).text(for: id)
            #expect(key.utf8.count == 64)
            #expect(target.state.withLock { $0.keys } == ["\"\(key)\""])
        }
    }

    @Test("the target gets the operation's key at every attempt, whatever the client puts into the field", arguments: [
        ("key: { body: [$.order] }", "first", "second"), ("key: { syntax: lenient, required: true }", "k", "\"k\""),
        ("key: { syntax: lenient, required: true }", "\"k\";a=1", "k"),
    ])
    func canonicalKey(key: String, first: String, second: String) async throws {
        let target = KeepingTarget()
        target.state.withLock { $0.losing = ["none"] }
        try await withGateway(scene: "scope: none\neffect: deduplicates\n" + key, target: { try await target.serve($0) { Telling.key($0) } }) { port, _ in
            #expect(try await post(port, ["Idempotency-Key: \(first)"], body: #"{"order":1}"#).status == 502)
            #expect(try await post(port, ["Idempotency-Key: \(second)"], body: #"{"order":1}"#).status == 201)
            let seen = target.state.withLock { $0.keys }
            let order = try BusinessKey(selecting: [JSONSelector("$.order")], in: JSONValue(parsing: Array(#"{"order":1}"#.utf8))).description
            let expected = key.contains("body") ? order : "k"
            #expect(seen == ["\"\(expected)\"", "\"\(expected)\""])
        }
    }

    @Test("a retry asks when nothing can be in flight by the scene its operation was claimed under (H57)", .timeLimit(.minutes(5)))
    func boundAsPinned() async throws {
        let clock = ManualClock()
        let (askedAt, posts) = (Collected<Duration>(), Locked(0))
        func scene(_ bound: String) -> String { "scope: none\neffect: { queryable: { get: '/effects?key={key}', inFlight: \(bound) } }" }
        try await withGateway(scene: scene("20s"), store: MemoryStore(clock: ManualStoreClock()), environment: clock.environment(), target: { peer in
            while true {
                if try await peer.message().startLine.hasPrefix("GET") {
                    askedAt.add(clock.now.offset)
                    try await peer.send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                } else {
                    let isFirst = posts.withLock { posts in
                        posts += 1
                        return posts == 1
                    }
                    if isFirst { return }
                    try await peer.send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
                }
            }
        }) { port, reload in
            #expect(try await post(port, ["Idempotency-Key: \"k\""]).status == 502)
            try await reload(scene("1s"))
            async let retry = post(port, ["Idempotency-Key: \"k\""])
            // The resolver, the heartbeat, and the wait.
            await clock.sleepers(atLeast: 3)
            while askedAt.values.isEmpty && clock.now.offset < .seconds(20) {
                clock.advance(by: .seconds(1))
                try await ContinuousClock().sleep(for: .milliseconds(20))
            }
            #expect(try await retry.status == 201)
            #expect(askedAt.values == [.seconds(20)])
        }
    }
}

#if JWT
@Suite("Tokens of a scene")
struct SceneTokenTests {
    /// HS256 with 32 times the letter s, for `{"sub":"ada"}`.
    static let token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZGEifQ.ROkFw_1Vow1OxRyyRyRUxWNRCLW0LKHA_v3TaERXI0c"

    @Test("are verified where another service is asked too, before it is", arguments: ["", "authorize: http://127.0.0.1:PORT/authorize\n"])
    func verified(authorize: String) async throws {
        let seen = Collected<String>()
        let scene = "scope: none\neffect: unknown\njwt: { secret: \(String(repeating: "s", count: 32)) }\n" + authorize
        try await withGateway(scene: scene, target: { peer in
            while true {
                let message = try await peer.message()
                seen.add(String(message.startLine.split(separator: " ")[1]))
                try await peer.send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
            }
        }) { port, _ in
            for fields in [[], ["Authorization: Bearer \(Self.token)x"], ["Authorization: Basic \(Self.token)"]] {
                let answer = try await post(port, ["Idempotency-Key: \"k\""] + fields)
                #expect(answer.status == 401 && answer.field("www-authenticate") == "Bearer", "\(fields)")
            }
            #expect(seen.values == [])
            #expect(try await post(port, ["Idempotency-Key: \"k\"", "Authorization: Bearer \(Self.token)"]).status == 201)
            #expect(seen.values == (authorize.isEmpty ? [] : ["/authorize"]) + ["/v1/payments"])
        }
    }
}
#endif
