import Semel
import SemelTesting
import Testing

@Suite("The memory store, over time")
struct MemoryStoreTests {
    @Test("what has outlived its retentions is let go of while others come, and nothing before its time")
    func letsGo() async throws {
        let clock = ManualStoreClock()
        let store = MemoryStore(clock: clock)
        var generator = SystemRandomNumberGenerator()
        let policy = PinnedPolicy(scene: "orders", text: "orders")

        func finish(_ number: Int) async throws {
            let id = OperationID(scope: Scope("orders"), key: try OperationKey("key-\(number)"))
            let request = ClaimRequest(
                id: id, fingerprint: Fingerprint(of: [1]), owner: Owner(using: &generator), lease: .seconds(30), onLapse: .uncertain,
                policy: policy, retention: Retention(response: .seconds(60), key: .seconds(600)))
            guard case .granted(let grant) = try await store.claim(request) else {
                Issue.record("key-\(number) was not granted")
                return
            }
            _ = try await store.apply(.complete(Outcome(body: .kept([1, 2, 3]))), to: id, token: grant.token)
        }
        func kept() async throws -> (replayable: Int, tombstones: Int) {
            let all = try await store.operations(OperationQuery(limit: 10_000)).operations
            return (all.count { $0.record.outcome != nil }, all.count { $0.record.outcome == nil })
        }

        for number in 0..<100 { try await finish(number) }
        #expect(try await kept() == (100, 0))
        clock.advance(by: .seconds(61))
        for number in 100..<150 { try await finish(number) }
        #expect(try await kept() == (50, 100))
        clock.advance(by: .seconds(600))
        for number in 150..<250 { try await finish(number) }
        // Two for each claim: all that expired is gone from memory, not only from view.
        #expect(try await store.purge(limit: 1000) == PurgeReport(outcomes: 0, keys: 0))
        #expect(try await kept() == (100, 0))
    }
}
