import Semel
import SemelTesting
import Testing

@testable import SemelServer

/// Modes, concurrent requests, a store that cannot be reached, a new configuration, and the end.
@Suite("Rules of a scene at the gateway")
struct RuleTests {
    // MARK: Modes

    @Test("observe records and shows what would be done, and turns nobody away")
    func observes() async throws {
        let upstream = try await UpstreamUnderTest.making()
        try await GatewayUnderTest.run(try ServerConfiguration.gateway(upstream.port, scene: "mode: observe")) { gateway in
            for body in ["a", "a", "b"] {
                let answer = try await gateway.post(body: body)
                #expect((answer.status, answer.text, answer.isReplay, answer.guarantee) == (201, "made", false, "bestEffort"))
            }
            for key in [nil, "a\"b"] as [String?] { #expect(try await gateway.post(key: key).status == 201) }
            #expect(try await gateway.record()?.state == .completed)
            #expect(upstream.posts.map(\.body) == ["a", "a", "b", #"{"amount":1}"#, #"{"amount":1}"#])
        }
    }

    @Test("off passes everything through untouched, and records nothing")
    func off() async throws {
        let upstream = try await UpstreamUnderTest.making()
        try await GatewayUnderTest.run(try ServerConfiguration.gateway(upstream.port, scene: "mode: off")) { gateway in
            for _ in 1...2 {
                let answer = try await gateway.post()
                #expect((answer.status, answer.isReplay, answer.guarantee) == (201, false, nil))
            }
            #expect(try await gateway.record() == nil)
            #expect(upstream.posts.count == 2)
        }
    }

    // MARK: Concurrency

    @Test("by default a second request is refused at once while the first one runs (H40)")
    func conflict() async throws {
        let gate = Gate()
        let upstream = try await UpstreamUnderTest { _ in
            await gate.wait()
            return .answer(201, [], "made")
        }
        try await GatewayUnderTest.run(try ServerConfiguration.gateway(upstream.port)) { gateway in
            async let first = gateway.post()
            await upstream.requests.wait(for: 1)
            let second = try await gateway.post()
            #expect((second.status, second.code) == (409, "in-progress"))
            #expect(second.field( "retry-after").flatMap { Int($0) } ?? 0 >= 1)
            // A mismatch is told before it.
            #expect(try await gateway.post(body: "other").code == "key-reused")
            gate.open()
            #expect(try await first.status == 201)
            #expect(try await gateway.post().isReplay)
            #expect(upstream.posts.count == 1)
        }
    }

    @Test("onConcurrent: wait lets as many wait as it says, and replays the outcome to them (H40)")
    func waits() async throws {
        let gate = Gate()
        let upstream = try await UpstreamUnderTest { _ in
            await gate.wait()
            return .answer(201, [], "made")
        }
        try await GatewayUnderTest.run(try ServerConfiguration.gateway(upstream.port, scene: "onConcurrent: { wait: 30s, waiters: 2 }")) { gateway in
            async let first = gateway.post()
            await upstream.requests.wait(for: 1)
            let others = Collected<PlaneAnswer>()
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 1...3 { group.addTask { others.add(try await gateway.post()) } }
                // There is no room for the third, whichever that is.
                await others.wait(for: 1)
                #expect((others.values[0].status, others.values[0].code) == (409, "in-progress"))
                gate.open()
                try await group.waitForAll()
            }
            #expect(try await first.isReplay == false)
            #expect(others.values.dropFirst().allSatisfy { $0.status == 201 && $0.isReplay && $0.text == "made" })
            #expect(upstream.posts.count == 1)
        }
    }

    @Test("who waits is told when the first run came to nothing, and when the time is over")
    func waitsInVain() async throws {
        let gate = Gate()
        let upstream = try await UpstreamUnderTest { _ in
            await gate.wait()
            return .reset
        }
        try await GatewayUnderTest.run(try ServerConfiguration.gateway("http://127.0.0.1:\(upstream.port)", scenes: [
            ["match: { path: /v1/long }", "onConcurrent: { wait: 30s, waiters: 9 }"], ["match: { path: /v1/short }", "onConcurrent: { wait: 50ms, waiters: 9 }"],
        ])) { gateway in
            async let long = gateway.post("/v1/long", key: "long")
            async let short = gateway.post("/v1/short", key: "short")
            await upstream.requests.wait(for: 2)
            let impatient = try await gateway.post("/v1/short", key: "short")
            #expect(impatient.code == "in-progress")
            async let waiter = gateway.post("/v1/long", key: "long")
            gate.open()
            #expect(try await [long.code, short.code] == ["upstream-lost", "upstream-lost"])
            #expect(try await waiter.code == "outcome-uncertain")
        }
    }

    // MARK: The store

    @Test("onStoreFailure: closed runs nothing while the store cannot be reached (H13)")
    func closed() async throws {
        let upstream = try await UpstreamUnderTest.making()
        try await GatewayUnderTest.run(try ServerConfiguration.gateway(upstream.port)) { gateway in
            gateway.store.fail(with: StoreError(.unavailable, "test"))
            let refused = try await gateway.post()
            #expect((refused.status, refused.code) == (503, "store-unavailable"))
            #expect(refused.field( "retry-after") == "1")
            #expect(upstream.posts.isEmpty)
            gateway.store.fail(with: nil)
            #expect(try await gateway.post().status == 201)
        }
    }

    @Test("onStoreFailure: open runs unprotected, at the level that then holds, and shows it (H13)")
    func open() async throws {
        let upstream = try await UpstreamUnderTest.making()
        try await GatewayUnderTest.run(try ServerConfiguration.gateway("http://127.0.0.1:\(upstream.port)", scenes: [
            ["match: { path: /v1/unknown }", "onStoreFailure: open"], ["match: { path: /v1/dedup }", "onStoreFailure: open", "effect: deduplicates"],
        ])) { gateway in
            gateway.store.fail(with: StoreError(.unavailable, "test"))
            for (path, level) in [("/v1/unknown", "bestEffort"), ("/v1/dedup", "deduplicatedByTarget")] {
                for _ in 1...2 {
                    let answer = try await gateway.post(path)
                    #expect((answer.status, answer.guarantee) == (201, level))
                }
            }
            #expect(upstream.posts.count == 4)
            #expect(upstream.posts.allSatisfy { $0.field("idempotency-key") == "\"key-1\"" })
        }
    }

    // MARK: A new configuration

    @Test("a reload drops no request: those under way end by the rules they began with, later ones meet the new ones (H57)")
    func reloads() async throws {
        let gate = Gate()
        let old = try await UpstreamUnderTest { request in
            if request.target == "/v1/slow" { await gate.wait() }
            return .answer(201, [], "old")
        }
        let new = try await UpstreamUnderTest { _ in .answer(201, [], "new") }
        @Sendable func configuration(_ port: Int, _ round: Int) throws -> ServerConfiguration {
            try .gateway(port, scene: "retention: { response: \(round + 1)h }", "onConcurrent: \(round % 2 == 0 ? "conflict" : "{ wait: 1s }")")
        }
        try await GatewayUnderTest.run(try configuration(old.port, 0)) { gateway in
            async let slow = gateway.post("/v1/slow", key: "slow")
            await old.requests.wait(for: 1)
            let isOver = Locked(false)
            let answers = Collected<PlaneAnswer>()
            try await withThrowingTaskGroup(of: Void.self) { group in
                for client in 1...4 {
                    group.addTask {
                        var number = 0
                        while !isOver.withLock({ $0 }) {
                            number += 1
                            answers.add(try await gateway.post(key: "\(client)-\(number)"))
                        }
                    }
                }
                for round in 1...20 {
                    await answers.wait(for: round * 10)
                    try await gateway.gateway.update(try configuration(round % 2 == 0 ? old.port : new.port, round))
                }
                await answers.wait(for: 220)
                isOver.withLock { $0 = true }
            }
            #expect(answers.values.allSatisfy { $0.status == 201 })
            #expect(Set(answers.values.map(\.text)) == ["old", "new"])
            try await gateway.gateway.update(try configuration(new.port, 99))
            gate.open()
            #expect(try await slow.text == "old")
            let record = try #require(try await gateway.record("slow"))
            #expect(record.retention.response == .seconds(3600))
            // Replayed, not sent to where such requests go now.
            let again = try await gateway.post("/v1/slow", key: "slow")
            #expect((again.text, again.isReplay) == ("old", true))
        }
    }

    @Test("a reload that cannot be kept changes nothing")
    func refusesReload() async throws {
        let upstream = try await UpstreamUnderTest.making()
        try await GatewayUnderTest.run(try ServerConfiguration.gateway(upstream.port)) { gateway in
            var broken = try ServerConfiguration.gateway("https://127.0.0.1:\(upstream.port)")
            broken.scenes[0].upstream.trustRoots = "/nowhere/authorities.pem"
            await #expect(throws: (any Error).self) { try await gateway.gateway.update(broken) }
            #expect(try await gateway.post().status == 201)
        }
    }

    // MARK: The end

    @Test("a graceful shutdown refuses new connections, finishes what is under way, and closes idle connections")
    func drains() async throws {
        let gate = Gate()
        let upstream = try await UpstreamUnderTest { _ in
            await gate.wait()
            return .answer(201, [], "made")
        }
        try await GatewayUnderTest.run(try ServerConfiguration.gateway(upstream.port)) { gateway in
            try await withConnection(to: gateway.port) { idle in
                try await withConnection(to: gateway.port) { busy in
                    try await busy.send("POST /v1/payments HTTP/1.1\r\nHost: a\r\nIdempotency-Key: \"k\"\r\nContent-Length: 0\r\n\r\n")
                    await upstream.requests.wait(for: 1)
                    await gateway.shutDown()
                    #expect(await idle.rest() == "")
                    await #expect(throws: (any Error).self) { try await withConnection(to: gateway.port) { _ = try await $0.more() } }
                    gate.open()
                    let answer = try await busy.message()
                    #expect((answer.status, answer.body, answer.field("connection")) == (201, "made", "close"))
                    #expect(await busy.rest() == "")
                }
            }
            #expect(try await gateway.record("k")?.state == .completed)
        }
    }

    @Test("a shutdown waits no longer than the drain time; what was under way is left to its lease")
    func drainEnds() async throws {
        let gate = Gate()
        let upstream = try await UpstreamUnderTest { _ in
            await gate.wait()
            return .reset
        }
        let store = StoreDouble.durable(isTransactional: true)
        try await GatewayUnderTest.run(try ServerConfiguration.gateway(upstream.port, top: ["drain: 50ms"]), store: store) { gateway in
            try await withConnection(to: gateway.port) { busy in
                try await busy.send("POST /v1/payments HTTP/1.1\r\nHost: a\r\nIdempotency-Key: \"k\"\r\nContent-Length: 0\r\n\r\n")
                await upstream.requests.wait(for: 1)
                await gateway.shutDown()
                #expect(await busy.rest() == "")
            }
            #expect(try await gateway.record("k")?.state == .claimed)
        }
        gate.open()
    }
}

extension StoreDouble {
    /// From now on nothing can be claimed or changed, until it is called with `nil`.
    func fail(with error: StoreError?) { set { ($0.claim, $0.apply) = (error, error) } }
}
