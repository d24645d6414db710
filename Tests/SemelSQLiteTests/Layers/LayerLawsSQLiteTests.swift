import Semel
@testable import SemelSQLite
import SemelTesting
import Testing

/// Layers over the embedded store, which is closed and opened again under them.
enum LayerOverSQLite: CaseIterable {
    case nearCache, membershipFilter, timeWindowSet, fallback, fallbackWithoutPrimary, sharded
}

@Suite("Layers over the embedded store")
struct LayerLawsSQLiteTests {
    private let folder = TemporaryFolder()
    private let clock = ManualStoreClock()

    private func open(_ name: String) async throws -> ReopenableStore {
        let configuration = SQLiteStore.Configuration(reserve: 1 << 20, purgesByItself: false)
        return try await ReopenableStore(path: path(name), configuration: configuration, clock: clock)
    }

    private func path(_ name: String) -> String { "\(folder.path)/\(name).db" }

    private func layer(_ layer: LayerOverSQLite, over stores: [ReopenableStore]) async throws -> any OperationStore {
        switch layer {
        case .nearCache: return NearCache(stores[0], configuration: .init(maximumAge: .seconds(100_000)), clock: clock)
        case .membershipFilter: return MembershipFilter(stores[0], capacity: 8, falsePositiveRate: 0.5)
        case .timeWindowSet: return TimeWindowSet(stores[0], name: "events", window: .seconds(3600), clock: clock)
        case .fallback: return try await Fallback(primary: stores[0], second: stores[1])
        case .fallbackWithoutPrimary:
            let primary = InterruptibleStore(stores[0])
            primary.set(.down)
            let fallback = try await Fallback(
                primary: primary, second: stores[1], configuration: .init(failures: 1, probe: .seconds(1_000_000)))
            // The first call finds out that the primary is away.
            await #expect(throws: StoreError.self) { try await fallback.record(of: .sample("nobody's", in: Scope("found out"))) }
            return fallback
        case .sharded: return try await Sharded(zip(["a", "b"], stores).map { ($0, $1) }, home: "a")
        }
    }

    @Test("uphold", arguments: LayerOverSQLite.allCases, StoreLaw.all)
    func uphold(_ kind: LayerOverSQLite, _ law: StoreLaw) async throws {
        let stores = [try await open("one"), try await open("two")]
        var subject = StoreSubject(try await layer(kind, over: stores), clock: clock)
        subject.reopen = {
            for store in stores { try await store.restart() }
            return try await self.layer(kind, over: stores)
        }
        subject.leasesEndOnReopening = true
        // Nobody waits; but each of the many steps by chance is a sync of the disk, and the layers over memory take them all.
        subject.waitsForReal = true
        let paths = [path("one"), path("two")]
        subject.corrupt = { id, state in
            for (store, path) in zip(stores, paths) {
                try await store.restart { try RawDatabase(path: path).plant(state: state, in: id) }
            }
        }
        let verdict = try await law.check(subject)
        for store in stores { await store.close() }
        if case .notApplicable(let missing) = verdict {
            try Test.cancel("not applicable: \(kind) has no \(missing.map(\.rawValue).sorted().joined(separator: ", "))")
        }
    }
}
