import Semel
import SemelCore
import Testing

@testable import SemelServer

/// What a failing upstream does to the first client and to the retry, for each kind of effect.
@Suite("Scenes by their effect")
struct EffectTests {
    enum Fault: String, Sendable, CaseIterable { case error500, lost, timedOut }

    /// A scene, what its upstream does, and what must come of it.
    struct Trial: Sendable, CustomTestStringConvertible {
        var effect: String
        var onError: String?
        var fault: Fault
        /// What the target says when it is asked.
        var isApplied = false
        /// Status, and code of a problem.
        var first: (Int, String?)
        var retry: (Int, String?)
        var isReplay = false
        var runs: Int

        var testDescription: String { "\(effect.prefix { $0 != "," }) onError \(onError ?? "default"), \(fault)\(isApplied ? ", applied" : "")" }
    }

    static let unknown = "unknown"
    static let deduplicates = "deduplicates"
    static let queryable = #"{ queryable: { get: "/v1/payments?key={key}", applied: 200, absent: 404, inFlight: 50ms, fence: Semel-Epoch } }"#
    static let uncertain = (409, "outcome-uncertain" as String?)

    static let trials: [Trial] = [
        Trial(effect: unknown, onError: nil, fault: .error500, first: (500, nil), retry: uncertain, runs: 1),
        Trial(effect: unknown, onError: "replay", fault: .error500, first: (500, nil), retry: (500, nil), isReplay: true, runs: 1),
        Trial(effect: unknown, onError: "uncertain", fault: .error500, first: (500, nil), retry: uncertain, runs: 1),
        Trial(effect: unknown, onError: "replay", fault: .lost, first: (502, "upstream-lost"), retry: uncertain, runs: 1),
        Trial(effect: unknown, onError: nil, fault: .timedOut, first: (504, "upstream-lost"), retry: uncertain, runs: 1),
        Trial(effect: deduplicates, onError: nil, fault: .error500, first: (500, nil), retry: (201, nil), runs: 2),
        Trial(effect: deduplicates, onError: "replay", fault: .error500, first: (500, nil), retry: (500, nil), isReplay: true, runs: 1),
        Trial(effect: deduplicates, onError: "rerun", fault: .error500, first: (500, nil), retry: (201, nil), runs: 2),
        Trial(effect: deduplicates, onError: "uncertain", fault: .error500, first: (500, nil), retry: uncertain, runs: 1),
        Trial(effect: deduplicates, onError: nil, fault: .lost, first: (502, "upstream-lost"), retry: (201, nil), runs: 2),
        Trial(effect: deduplicates, onError: nil, fault: .timedOut, first: (504, "upstream-lost"), retry: (201, nil), runs: 2),
        Trial(effect: queryable, onError: "replay", fault: .error500, first: (500, nil), retry: (500, nil), isReplay: true, runs: 1),
        Trial(effect: queryable, onError: nil, fault: .error500, first: (500, nil), retry: (201, nil), runs: 2),
        Trial(effect: queryable, onError: nil, fault: .error500, isApplied: true, first: (500, nil), retry: (409, "outcome-unavailable"), runs: 1),
        Trial(effect: queryable, onError: nil, fault: .lost, first: (502, "upstream-lost"), retry: (201, nil), runs: 2),
        Trial(effect: queryable, onError: nil, fault: .lost, isApplied: true, first: (502, "upstream-lost"), retry: (409, "outcome-unavailable"), runs: 1),
    ]

    @Test("a failure is answered as it is known, and the retry does what the level allows (H2, H4)", arguments: trials)
    func fails(_ trial: Trial) async throws {
        let failures = Locked(1)
        let never = Gate()
        defer { never.open() }
        let upstream = try await UpstreamUnderTest { request in
            if request.method == "GET" { return .answer(trial.isApplied ? 200 : 404) }
            let fails = failures.withLock { left in
                defer { left -= 1 }
                return left > 0
            }
            guard fails else { return .answer(201, [], "made") }
            switch trial.fault {
            case .error500: return .answer(500, [], "broken")
            case .lost: return .reset
            case .timedOut:
                await never.wait()
                return .reset
            }
        }
        let lines = ["effect: \(trial.effect)"] + (trial.onError.map { ["onError: \($0)"] } ?? [])
        let timeout = trial.fault == .timedOut ? "5s" : "60s"
        let configuration = try ServerConfiguration.gateway("{ url: \"http://127.0.0.1:\(upstream.port)\", timeout: \(timeout) }", scenes: [lines])
        try await GatewayUnderTest.run(configuration) { gateway in
            let first = try await gateway.post()
            #expect((first.status, first.code) == trial.first, "\(first.text)")
            #expect(first.guarantee == configuration.scenes[0].assessment.level.name)
            // A 5xx is given as it came; it proves nothing.
            if trial.fault == .error500 { #expect(first.text == "broken") } else { #expect(first["safe_new_key"]?.bool == false) }
            // The resolver may be at it.
            let retry = try await gateway.postUntilSettled()
            #expect((retry.status, retry.code) == trial.retry, "\(retry.text)")
            #expect(retry.isReplay == trial.isReplay)
            #expect(upstream.posts.count == trial.runs)
            // What was decided stands.
            let again = try await gateway.post()
            #expect((again.status, again.code) == trial.retry)
            #expect(upstream.posts.count == trial.runs)
        }
    }

    @Test("a refused connection gives the key back, and says that nothing was sent", arguments: [unknown, deduplicates, queryable])
    func refused(effect: String) async throws {
        let port = try RefusingPort()
        let configuration = try ServerConfiguration.gateway(port.number, scene: "effect: \(effect)")
        try await GatewayUnderTest.run(configuration) { gateway in
            for _ in 1...2 {
                let answer = try await gateway.post()
                #expect((answer.status, answer.code) == (502, "upstream-refused"))
                // Where a lost run gives its key back too, the key's absence is no proof.
                #expect(answer["safe_new_key"]?.bool == (effect != Self.deduplicates))
                #expect(try await gateway.record() == nil)
            }
            port.release()
            let upstream = try await UpstreamUnderTest(port: port.number) { _ in .answer(201, [], "made") }
            #expect(try await gateway.post().status == 201)
            #expect(upstream.posts.count == 1)
        }
    }

    @Test("a target that deduplicates gets one key for every attempt", arguments: ["key", "derived"])
    func sameKey(kind: String) async throws {
        let upstream = try await UpstreamUnderTest { [failures = Locked(2)] _ in
            failures.withLock { left in
                left -= 1
                return left >= 0 ? .reset : .answer(201)
            }
        }
        let derive = kind == "derived"
        let configuration = try ServerConfiguration.gateway(
            upstream.port, scene: "effect: { deduplicates: { header: X-Dedup, keeps: 24h, derive: \(derive) } }",
            top: ["secret: 0123456789abcdef0123456789abcdef"])
        try await GatewayUnderTest.run(configuration) { gateway in
            // What the client writes there is not the key, and differs in each attempt.
            for attempt in 1...3 { _ = try await gateway.post(fields: [("X-Dedup", "mine-\(attempt)")]) }
            let keys = upstream.posts.map { $0.all("x-dedup") }
            #expect(keys.count == 3)
            #expect(Set(keys).count == 1 && keys[0].count == 1)
            #expect(derive ? keys[0][0].count == 64 : keys[0][0] == "key-1")
            // The client's own key goes on as it was.
            #expect(upstream.posts.allSatisfy { $0.all("idempotency-key") == ["\"key-1\""] })
        }
    }

    @Test("a target that fences sees each key's epoch rise, before it is asked and in the run after (H5, H6)")
    func fence() async throws {
        let upstream = try await UpstreamUnderTest { [losses = Locked(2)] request in
            if request.method == "GET" { return .answer(404) }
            return losses.withLock { left in
                left -= 1
                return left >= 0 ? .reset : .answer(201)
            }
        }
        let configuration = try ServerConfiguration.gateway(upstream.port, scene: "effect: \(Self.queryable)")
        try await GatewayUnderTest.run(configuration) { gateway in
            // A client that raised the fence would lock its own operation, or another's, out.
            var last = try await gateway.post(fields: [("Semel-Epoch", "9223372036854775807")])
            while last.status != 201 { last = try await gateway.postUntilSettled() }
            let seen = upstream.requests.values
            let epochs = seen.compactMap { $0.field("semel-epoch").flatMap { UInt64($0) } }
            #expect(epochs.count == seen.count && epochs.count >= 5)
            #expect(epochs == epochs.sorted() && !epochs.contains(9_223_372_036_854_775_807))
            let runs = upstream.posts.compactMap { $0.field("semel-epoch") }
            #expect(runs.count == 3 && Set(runs).count == 3)
            #expect(seen.contains { $0.target == "/v1/payments?key=key-1" })
        }
    }

    @Test("a fence of another name cannot be raised by a client either, with a key or without")
    func fenceIsOurs() async throws {
        let upstream = try await UpstreamUnderTest.making()
        let configuration = try ServerConfiguration.gateway(
            upstream.port, scene: "key: { required: false }",
            #"effect: { queryable: { get: "/v1/payments?key={key}", inFlight: 1s, fence: X-Fence } }"#)
        try await GatewayUnderTest.run(configuration) { gateway in
            _ = try await gateway.post(fields: [("X-Fence", "99999")])
            _ = try await gateway.post(key: nil, fields: [("X-Fence", "99999")])
            let seen = upstream.posts.map { $0.all("x-fence") }
            #expect(seen.count == 2 && seen[0].count == 1 && seen[0] != ["99999"])
            #expect(seen[1] == [])
        }
    }

    @Test("the query's answer is replayed, where the scene says that it is the outcome")
    func queriedOutcome() async throws {
        let upstream = try await UpstreamUnderTest { request in
            request.method == "GET" ? .answer(200, [("Content-Type", "text/plain"), ("Set-Cookie", "a=b")], "found") : .reset
        }
        let effect = Self.queryable.replacing("fence:", with: "outcome: response, fence:")
        try await GatewayUnderTest.run(try ServerConfiguration.gateway(upstream.port, scene: "effect: \(effect)")) { gateway in
            _ = try await gateway.post()
            for _ in 1...2 {
                let answer = try await gateway.postUntilSettled()
                #expect((answer.status, answer.text, answer.isReplay) == (200, "found", true))
                #expect(answer.field( "content-type") == "text/plain")
                #expect(answer.field( "set-cookie") == nil)
            }
            #expect(upstream.posts.count == 1)
        }
    }

    @Test("a target that does not know, or cannot be asked, leaves the operation uncertain", arguments: [500, 200])
    func unanswered(status: Int) async throws {
        // 200 is not in the list of this scene.
        let upstream = try await UpstreamUnderTest { $0.method == "GET" ? .answer(status) : .reset }
        let effect = Self.queryable.replacing("applied: 200", with: "applied: 204")
        try await GatewayUnderTest.run(try ServerConfiguration.gateway(upstream.port, scene: "effect: \(effect)")) { gateway in
            _ = try await gateway.post()
            for _ in 1...2 {
                let retry = try await gateway.postUntilSettled()
                #expect((retry.status, retry.code) == Self.uncertain)
            }
            #expect(upstream.posts.count == 1)
        }
    }

    @Test("the resolver asks by itself: what was applied is completed, what was not is given back", arguments: [true, false])
    func resolves(isApplied: Bool) async throws {
        let upstream = try await UpstreamUnderTest { [runs = Locked(0)] request in
            if request.method == "GET" { return .answer(isApplied ? 200 : 404) }
            return runs.withLock { runs in
                runs += 1
                return runs == 1 ? .reset : .answer(201)
            }
        }
        try await GatewayUnderTest.run(try ServerConfiguration.gateway(upstream.port, scene: "effect: \(Self.queryable)")) { gateway in
            _ = try await gateway.post()
            await upstream.requests.wait(for: 2)
            try await eventually({
                let state = try await gateway.record()?.state
                return isApplied ? state == .completed : state == nil
            }, "the resolver did not end the operation")
            let epochs = upstream.requests.values.prefix(2).compactMap { $0.field("semel-epoch").flatMap { UInt64($0) } }
            #expect(epochs.count == 2 && epochs[0] < epochs[1])
            let retry = try await gateway.post()
            #expect((retry.status, retry.code) == (isApplied ? (409, "outcome-unavailable") : (201, nil)))
            #expect(upstream.posts.count == (isApplied ? 1 : 2))
        }
    }

    @Test("an operation is asked about by the rules it was claimed under, whatever is configured now (H57)")
    func pinnedQuery() async throws {
        let upstream = try await UpstreamUnderTest { request in
            switch (request.method, request.target) {
            case ("GET", "/old?key=key-1"): .answer(200)
            case ("GET", _): .answer(404)
            default: .reset
            }
        }
        @Sendable func configuration(_ path: String) throws -> ServerConfiguration {
            try .gateway(upstream.port, scene: #"effect: { queryable: { get: "\#(path)?key={key}", inFlight: 50ms, fence: Semel-Epoch } }"#)
        }
        try await GatewayUnderTest.run(try configuration("/old")) { gateway in
            _ = try await gateway.post()
            try await gateway.gateway.update(try configuration("/new"))
            let retry = try await gateway.postUntilSettled()
            #expect((retry.status, retry.code) == (409, "outcome-unavailable"))
            #expect(upstream.posts.count == 1)
            #expect(!upstream.requests.values.contains { $0.target.hasPrefix("/new") })
        }
    }

    @Test("an answer too large to keep is sent whole, and its retry is told that it is not there (H35)")
    func tooLarge() async throws {
        let body = String(repeating: "x", count: 100_000)
        let upstream = try await UpstreamUnderTest { _ in .answer(201, [], body) }
        try await GatewayUnderTest.run(try ServerConfiguration.gateway(upstream.port, scene: "limits: { response: 10KiB }")) { gateway in
            #expect(try await gateway.post().text == body)
            let retry = try await gateway.postUntilSettled()
            #expect((retry.status, retry.code) == (409, "outcome-unavailable"))
            #expect(upstream.posts.count == 1)
        }
    }
}
