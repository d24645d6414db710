import Semel
import SemelTesting
import Testing

@Suite("The near cache")
struct NearCacheTests {
    private let clock = ManualStoreClock()
    private let base: InterruptibleStore<MemoryStore>
    private let cache: NearCache<InterruptibleStore<MemoryStore>>

    init() {
        base = InterruptibleStore(MemoryStore(clock: clock))
        cache = NearCache(base, configuration: .init(count: 3, bytes: 100_000, maximumAge: .seconds(60)), clock: clock)
    }

    private func request(_ key: String, payload: String = "payload", owner: Owner = .ada) -> ClaimRequest {
        ClaimRequest(
            id: .sample(key), fingerprint: .sample(payload), owner: owner, lease: .seconds(30), onLapse: .uncertain, policy: .sample,
            retention: Retention(response: .seconds(100), key: .seconds(1000)))
    }

    private func finish(_ key: String, through store: some OperationStore, body: String = "done") async throws {
        guard case .granted(let grant) = try await store.claim(request(key)) else { throw Unexpected() }
        guard try await store.apply(.complete(.sample(body)), to: .sample(key), token: grant.token) == .applied else { throw Unexpected() }
    }

    private struct Unexpected: Error {}

    @Test("replays without the store what it saw replayed once, and compares the fingerprint")
    func replays() async throws {
        try await finish("a", through: cache)
        #expect(try await cache.claim(request("a", owner: .ben)).replayed == .sample())
        base.set(.down)
        #expect(try await cache.claim(request("a", owner: .cleo)).replayed == .sample())
        await #expect(throws: StoreError.self) { try await cache.claim(request("a", payload: "another")) }
        await #expect(throws: StoreError.self) { try await cache.claim(request("b")) }
        base.set(.up)
        #expect(try await cache.claim(request("a", payload: "another")) == .mismatch)
    }

    @Test("answers the hits of a batch itself and the rest by the store, in order")
    func batches() async throws {
        for key in ["a", "b"] {
            try await finish(key, through: cache, body: key)
            _ = try await cache.claim(request(key))
        }
        let answers = try await cache.claim([
            request("b"), request("new"), request("a"), request("b", payload: "another"), request("new", owner: .ben),
        ])
        #expect(answers[0].replayed == .sample("b") && answers[2].replayed == .sample("a"))
        #expect(answers[1].isGranted && answers[3] == .mismatch && answers[4].isInProgress)
    }

    @Test("forgets no later than the store does, and never keeps a copy longer than its maximum age")
    func expires() async throws {
        try await finish("a", through: cache)
        clock.advance(by: .seconds(70))
        #expect(try await cache.claim(request("a")).replayed == .sample())
        clock.advance(by: .seconds(29))
        base.set(.down)
        #expect(try await cache.claim(request("a")).replayed == .sample())
        clock.advance(by: .seconds(1))
        await #expect(throws: StoreError.self, "the response retention of 100 s is over") { try await cache.claim(request("a")) }
        base.set(.up)
        #expect(try await cache.claim(request("a")) == .expired)

        try await finish("b", through: cache)
        _ = try await cache.claim(request("b"))
        base.set(.down)
        clock.advance(by: .seconds(60))
        await #expect(throws: StoreError.self, "the maximum age of 60 s is over") { try await cache.claim(request("b")) }
    }

    @Test("takes a store's clock that was set forward from the next grant")
    func followsTheStore() async throws {
        try await finish("a", through: cache)
        _ = try await cache.claim(request("a"))
        clock.advanceRetentions(by: .seconds(500))
        #expect(try await cache.claim(request("b")).isGranted)
        #expect(try await cache.claim(request("a")) == .expired)
    }

    @Test("lets go at once of what is forgotten through it, and in time of what is forgotten elsewhere")
    func forgets() async throws {
        try await finish("a", through: cache)
        _ = try await cache.claim(request("a"))
        #expect(try await cache.forget(.sample("a"), by: .sample) == .applied)
        #expect(try await cache.claim(request("a")).isGranted)

        try await finish("b", through: cache)
        _ = try await cache.claim(request("b"))
        #expect(try await base.forget(.sample("b"), by: .sample) == .applied)
        #expect(try await cache.claim(request("b")).replayed == .sample(), "the documented staleness")
        clock.advance(by: .seconds(60))
        #expect(try await cache.claim(request("b")).isGranted)
    }

    @Test("keeps no more than its count and its bytes")
    func isBounded() async throws {
        for number in 0..<10 {
            try await finish("\(number)", through: cache)
            _ = try await cache.claim(request("\(number)"))
        }
        #expect(cache.size.count == 3)
        try await finish("large", through: cache, body: String(repeating: "x", count: 50_000))
        _ = try await cache.claim(request("large"))
        #expect(cache.size.bytes < 10_000, "what takes more than an eighth of all is not kept")
    }
}
