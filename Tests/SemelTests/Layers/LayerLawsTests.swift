import Semel
import SemelTesting
import Testing

/// A layer over memory stores, with what makes it hard for it: a filter that is wrong half of the time, a primary that is away.
enum LayerOverMemory: CaseIterable {
    case nearCache, tinyNearCache, membershipFilter, timeWindowSet, fallback, fallbackWithoutPrimary, sharded, layered

    func store(_ clock: ManualStoreClock) async throws(StoreError) -> any OperationStore {
        switch self {
        case .nearCache: return NearCache(MemoryStore(clock: clock), configuration: .init(maximumAge: .seconds(100_000)), clock: clock)
        case .tinyNearCache:
            return NearCache(MemoryStore(clock: clock), configuration: .init(count: 2, maximumAge: .seconds(100_000)), clock: clock)
        case .membershipFilter: return MembershipFilter(MemoryStore(clock: clock), capacity: 8, falsePositiveRate: 0.5)
        case .timeWindowSet: return TimeWindowSet(MemoryStore(clock: clock), name: "events", window: .seconds(3600), clock: clock)
        case .fallback: return try await Fallback(primary: MemoryStore(clock: clock), second: MemoryStore(clock: clock))
        case .fallbackWithoutPrimary:
            let primary = InterruptibleStore(MemoryStore(clock: clock))
            primary.set(.down)
            return try await Fallback(
                primary: primary, second: MemoryStore(clock: clock), configuration: .init(failures: 1, probe: .seconds(3600)))
        case .sharded: return try await Sharded(["a", "b", "c"].map { ($0, MemoryStore(clock: clock)) }, home: "b")
        case .layered:
            let shards = try await Sharded(["a", "b"].map { ($0, MemoryStore(clock: clock)) }, home: "a")
            return NearCache(MembershipFilter(shards, falsePositiveRate: 0.1), clock: clock)
        }
    }
}

@Suite("Layers over the memory store")
struct LayerLawsTests {
    private func subject(_ layer: LayerOverMemory) async throws -> StoreSubject {
        let clock = ManualStoreClock()
        let store = try await layer.store(clock)
        if layer == .fallbackWithoutPrimary {
            // The first call finds out that the primary is away.
            await #expect(throws: StoreError.self) { try await store.record(of: .sample("nobody's", in: Scope("found out"))) }
        }
        return StoreSubject(store, clock: clock)
    }

    @Test("uphold", arguments: LayerOverMemory.allCases, StoreLaw.all)
    func uphold(_ layer: LayerOverMemory, _ law: StoreLaw) async throws {
        if case .notApplicable(let missing) = try await law.check(try await subject(layer)) {
            try Test.cancel("not applicable: the memory store has no \(missing.map(\.rawValue).sorted().joined(separator: ", "))")
        }
    }
}
