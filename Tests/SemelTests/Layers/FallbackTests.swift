import Metrics
import Semel
import SemelTesting
import Testing

@Suite("The fallback store")
struct FallbackTests {
    private let clock = ManualStoreClock()
    private let primary: InterruptibleStore<MemoryStore>
    private let second: InterruptibleStore<MemoryStore>
    private let phases = Locked([Fallback.Phase]())

    init() {
        primary = InterruptibleStore(
            MemoryStore(clock: clock), declaring: StoreCapabilities(engine: "first", durability: .durable, isTransactional: true))
        second = InterruptibleStore(
            MemoryStore(clock: clock), declaring: StoreCapabilities(engine: "other", durability: .durable, isTransactional: true))
    }

    private func fallback(failures: Int = 1, held: Int = 100) async throws -> Fallback {
        let phases = phases
        return try await Fallback(
            primary: primary, second: second,
            configuration: .init(
                failures: failures, probe: .seconds(3600), heldKeys: held, onChange: { phase in phases.withLock { $0.append(phase) } }))
    }

    private func request(_ key: String, owner: Owner = .ada, payload: String = "payload") -> ClaimRequest {
        ClaimRequest(
            id: .sample(key), fingerprint: .sample(payload), owner: owner, lease: .seconds(30), onLapse: .uncertain, policy: .sample,
            retention: Retention(response: .seconds(100), key: .seconds(1000)))
    }

    private struct Refused: Error { let result: ClaimResult }

    private func grant(_ key: String, in store: some OperationStore, owner: Owner = .ada) async throws -> FencingToken {
        let result = try await store.claim(request(key, owner: owner))
        guard case .granted(let grant) = result else { throw Refused(result: result) }
        return grant.token
    }

    private func finish(_ key: String, in store: some OperationStore, _ body: String = "done") async throws {
        let token = try await grant(key, in: store)
        #expect(try await store.apply(.complete(.sample(body)), to: .sample(key), token: token) == .applied)
    }

    private func refusal(_ store: Fallback, _ key: String) async -> StoreError.Code? {
        await #expect(throws: StoreError.self) { try await store.claim(request(key, owner: .ben)) }?.code
    }

    @Test("declares from the start what it can keep in the worst case, so that a policy which asks for more is refused")
    func lowersTheLevel() async throws {
        let store = try await fallback()
        guard case .forgetful(let why) = store.capabilities.durability else { return _ = Issue.record("it is called durable") }
        #expect(why.contains("first") && why.contains("other") && !store.capabilities.isTransactional && store.capabilities.isAuthority)
        let weak = InterruptibleStore(
            MemoryStore(clock: clock),
            declaring: StoreCapabilities(engine: "weak", durability: .durable, isTransactional: false, isAuthority: false))
        #expect(try await !Fallback(primary: weak, second: second).capabilities.isAuthority)
        #expect(try await !Fallback(primary: primary, second: weak).capabilities.isAuthority)
        #expect(throws: PolicyError.self) {
            try Operations(store: store).scene(Policy(scene: "pay", effect: .unknown, minimum: .atMostOnce))
        }
        let scene = try Operations(store: store).scene(Policy(scene: "pay", effect: .deduplicates(keeps: .seconds(1_000_000))))
        #expect(scene.guarantee == .deduplicatedByTarget)
    }

    @Test("lets the second decide about new keys when the primary is away, and says so")
    func fallsBack() async throws {
        let store = try await fallback(failures: 2)
        primary.set(.down)
        #expect(await refusal(store, "a") == .unavailable, "one failure is none yet")
        try await finish("a", in: store)
        #expect(primary.interruptions == 2)
        #expect(store.phase == .degraded("cut off by the test"))
        let health = await store.health()
        #expect(health.isReady && health.detail.hasPrefix("degraded"))
        #expect(phases.withLock { $0 } == [.degraded("cut off by the test")])
        #expect(try await second.base.record(of: .sample("a"))?.state == .completed)
    }

    @Test("never lets the second decide about a key that the primary decided or may have decided")
    func keepsToThePrimary() async throws {
        let store = try await fallback()
        let running = try await grant("running", in: store)
        try await finish("finished", in: store)
        primary.set(.losesAnswers)
        #expect(await refusal(store, "indeterminate") == .indeterminate)
        primary.set(.down)
        _ = try await grant("new", in: store)
        for key in ["running", "finished", "indeterminate"] { #expect(await refusal(store, key) == .unavailable) }
        let late = await #expect(throws: StoreError.self) {
            try await store.apply(.complete(.sample()), to: .sample("running"), token: running)
        }
        #expect(late?.code == .unavailable)
        #expect(try await second.base.operations(OperationQuery()).operations.map(\.id) == [.sample("new")])

        primary.set(.up)
        await store.tend()
        #expect(try await store.apply(.complete(.sample("late")), to: .sample("running"), token: running) == .applied)
        #expect(try await store.claim(request("finished", owner: .cleo)).replayed == .sample())
        #expect(try await store.claim(request("indeterminate", owner: .ben)).isGranted, "its own claim is recognised by its nonce")
    }

    @Test("merges what the second decided before the primary decides about it again, and returns by itself")
    func merges() async throws {
        let store = try await fallback()
        primary.set(.down)
        try await finish("done", in: store, "of the second")
        let running = try await grant("running", in: store)
        let lost = try await grant("lost", in: store)
        #expect(try await store.apply(.suspend(reason: "lost"), to: .sample("lost"), token: lost) == .applied)
        let freed = try await grant("freed", in: store)
        #expect(try await store.apply(.release, to: .sample("freed"), token: freed) == .applied)

        primary.set(.up)
        #expect(
            try await store.claim(request("done", owner: .ben)).replayed == .sample("of the second"),
            "it stays the second's until it is merged")
        await store.tend()
        #expect(store.phase == .merging(1), "what runs there ends there")
        #expect(await store.health().detail.contains("1 keys"))
        #expect(try await store.claim(request("done", owner: .ben)).replayed == .sample("of the second"))
        #expect(try await primary.base.record(of: .sample("done"))?.outcome == .sample("of the second"))
        #expect(try await primary.base.record(of: .sample("lost"))?.state == .uncertain)
        #expect(try await store.claim(request("running", owner: .ben)).isInProgress)
        #expect(try await store.claim(request("freed", owner: .ben)).isGranted)
        #expect(
            try await store.operations(OperationQuery()).operations.map(\.id.key.text).sorted() == ["done", "freed", "lost", "running"])
        #expect(
            try await store.apply(.complete(.sample("known after all")), to: .sample("lost"), token: lost) == .applied,
            "a late owner is heard")

        #expect(try await store.apply(.complete(.sample("ran")), to: .sample("running"), token: running) == .applied)
        await store.tend()
        #expect(store.phase == .primary && store.collisions == 0)
        #expect(try await primary.base.record(of: .sample("running"))?.outcome == .sample("ran"))
        #expect(try await second.base.operations(OperationQuery()).operations.isEmpty)
        #expect(phases.withLock { $0 } == [.degraded("cut off by the test"), .merging(4), .primary])
    }

    @Test("keeps the primary's record where there are two, and tells that the operation may have run twice")
    func collides() async throws {
        // Another process brought this key to the primary.
        try await finish("key", in: primary.base, "of the primary")
        let store = try await fallback()
        primary.set(.down)
        try await finish("key", in: store, "of the second")
        primary.set(.up)
        await store.tend()
        #expect(store.phase == .primary && store.collisions == 1)
        #expect(try await store.claim(request("key", owner: .ben)).replayed == .sample("of the primary"))
    }

    @Test("merges at the next start what a crash left in the second store")
    func recovers() async throws {
        do {
            let store = try await fallback()
            primary.set(.down)
            try await finish("a", in: store)
        }
        primary.set(.up)
        let store = try await fallback()
        #expect(store.phase == .merging(1))
        #expect(try await store.claim(request("a", owner: .ben)).replayed == .sample())
        await store.tend()
        #expect(store.phase == .primary)
        #expect(try await primary.base.record(of: .sample("a"))?.state == .completed)
    }

    @Test("merges what nobody will ever finish or ask for again: its lease lapses in the primary, by its own rule")
    func mergesTheLost() async throws {
        let store = try await fallback()
        primary.set(.down)
        var tokens: [LapseRule: FencingToken] = [:]
        for rule in LapseRule.allCases {
            var request = request("\(rule)")
            request.onLapse = rule
            guard case .granted(let grant) = try await store.claim(request) else { return _ = Issue.record("\(rule) is not granted") }
            tokens[rule] = grant.token
        }
        primary.set(.up)
        await store.tend()
        #expect(store.phase == .merging(3) && store.heldKeys == 3 && store.isHeld(.sample("reclaim")))
        clock.advance(by: .seconds(31))
        await store.tend()
        #expect(store.phase == .primary && store.collisions == 0 && !store.isHeld(.sample("reclaim")))
        #expect(try await second.base.operations(OperationQuery()).operations.isEmpty)

        // Its owner may still come, until somebody else has.
        let late = try #require(tokens[.uncertain])
        #expect(try await store.apply(.complete(.sample("late")), to: .sample("uncertain"), token: late) == .applied)
        clock.advance(by: .seconds(1))
        for (rule, kind) in [(LapseRule.reclaim, Grant.Kind.reclaimed), (.verify, .verify)] {
            var request = request("\(rule)", owner: .ben)
            request.onLapse = rule
            guard case .granted(let grant) = try await store.claim(request) else {
                Issue.record("\(rule) is not granted")
                continue
            }
            #expect(grant.kind == kind)
            let zombie = try #require(tokens[rule])
            #expect(try await store.apply(.complete(.sample("zombie")), to: .sample("\(rule)"), token: zombie) == .superseded)
        }
        #expect(try await store.claim(request("uncertain", owner: .ben)).replayed == .sample("late"))
    }

    @Test("tells its stores apart though both are values: what is left of a lease is asked where the lease is")
    func storesThatAreValues() async throws {
        let metrics = SemelMetrics(factory: NOOPMetricsHandler.instance)
        let uptime = Environment.live.uptime
        let store = try await Fallback(
            primary: MeteredStore(primary, metrics: metrics, uptime: uptime), second: MeteredStore(second, metrics: metrics, uptime: uptime),
            configuration: .init(failures: 1, probe: .seconds(3600)))
        primary.set(.down)
        _ = try await grant("a", in: store)
        let record = try #require(try await store.record(of: .sample("a")))
        let listed = try #require(try await store.operations(OperationQuery()).operations.first)
        let asked = primary.interruptions
        #expect(try await store.leaseRemaining(of: record) == .seconds(30))
        #expect(try await store.leaseRemaining(of: listed.record) == .seconds(30))
        #expect(primary.interruptions == asked)
        primary.set(.up)
        await store.tend()
        #expect(store.phase == .merging(1))
        primary.set(.down)
        #expect(try await store.leaseRemaining(of: record) == .seconds(30), "it is still the second's")
    }

    @Test("goes back to the second when the primary leaves again in the middle of merging, and loses nothing")
    func interrupted() async throws {
        let store = try await fallback()
        primary.set(.down)
        for number in 0..<5 { try await finish("\(number)", in: store, "\(number)") }
        primary.set(.losesAnswers)
        await store.tend()
        #expect(store.phase == .degraded("cut off by the test"), "a primary that is not well is not asked")
        primary.set(.up)
        second.set(.down)
        await store.tend()
        #expect(store.phase != .primary)
        second.set(.up)
        await store.tend()
        #expect(store.phase == .primary && store.collisions == 0)
        for number in 0..<5 { #expect(try await store.claim(request("\(number)", owner: .ben)).replayed == .sample("\(number)")) }
    }

    @Test("refuses new keys when the second holds as many as it may")
    func isBounded() async throws {
        let store = try await fallback(held: 2)
        primary.set(.down)
        for number in 0..<2 { try await finish("\(number)", in: store) }
        #expect(await refusal(store, "one more") == .full)
        #expect(try await store.claim(request("1", owner: .ben)).replayed == .sample())
    }

    @Test("grants every key once while the primary comes and goes under 8 workers")
    func flaps() async throws {
        let store = try await fallback(held: 100_000)
        let grants = Locked([OperationID: Int]())
        let answered = Locked(0)
        await withTaskGroup(of: Void.self) { group in
            group.addTask {
                for round in 0..<40 {
                    primary.set(round % 2 == 0 ? .down : .up)
                    for _ in 0..<50 { await Task.yield() }
                    await store.tend()
                }
                primary.set(.up)
            }
            for worker in 0..<8 {
                group.addTask {
                    for number in 0..<400 {
                        let id = OperationID.sample("\(number)")
                        var request = request("\(number)", owner: .claimant(worker))
                        request.lease = .seconds(100_000)
                        do {
                            let result = try await store.claim(request)
                            answered.withLock { $0 += 1 }
                            guard case .granted(let grant) = result else { continue }
                            if grant.kind == .first { grants.withLock { $0[id, default: 0] += 1 } }
                            for _ in 0..<3 {
                                do {
                                    _ = try await store.apply(.complete(.sample()), to: id, token: grant.token)
                                    break
                                } catch { await Task.yield() }
                            }
                        } catch { await Task.yield() }
                    }
                }
            }
        }
        #expect(primary.interruptions > 0 && answered.withLock { $0 } > 800)
        #expect(grants.withLock { $0.values.filter { $0 > 1 }.count } == 0)
        await store.tend()
        #expect(store.collisions == 0)
    }
}
