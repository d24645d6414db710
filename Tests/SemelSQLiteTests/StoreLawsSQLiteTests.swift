import ChildProcesses
import Semel
@testable import SemelSQLite
import SemelTesting
import Testing

@Suite("The embedded store upholds the store laws")
struct StoreLawsSQLiteTests {
    private let folder = TemporaryFolder()
    private let clock = ManualStoreClock()

    /// - Parameter keysPerSegment: tiny, so that most laws also meet sealed keys; or as in production.
    private func withSubject(keysPerSegment: Int = 1 << 18, _ body: (StoreSubject) async throws -> Void) async throws {
        // The laws count what a purge removes, so the store must not have purged before.
        var configuration = SQLiteStore.Configuration(reserve: 1 << 20, purgesByItself: false)
        configuration.keysPerSegment = keysPerSegment
        let store = try await ReopenableStore(path: folder.database, configuration: configuration, clock: clock)
        var subject = StoreSubject(store, clock: clock)
        subject.reopen = {
            try await store.restart()
            return store
        }
        subject.leasesEndOnReopening = true
        let path = folder.database
        subject.corrupt = { id, state in try await store.restart { try RawDatabase(path: path).plant(state: state, in: id) } }
        try await body(subject)
        await store.close()
    }

    private func check(_ law: StoreLaw, keysPerSegment: Int) async throws {
        try await withSubject(keysPerSegment: keysPerSegment) { subject in
            if case .notApplicable(let missing) = try await law.check(subject) {
                try Test.cancel("not applicable: the embedded store has no \(missing.map(\.rawValue).sorted().joined(separator: ", "))")
            }
        }
    }

    @Test("has the row of the README's guarantee table that its capabilities give")
    func row() async throws {
        try await withSubject { subject in
            let row = GuaranteeRow("SQLite (embedded)", subject)
            let readme = try Repository.text(of: "README.md")
            #expect(row.isIn(readme), "README.md lacks this row: \(row.markdown)")
        }
    }

    @Test("upholds", arguments: StoreLaw.all)
    func upholds(_ law: StoreLaw) async throws { try await check(law, keysPerSegment: 1 << 18) }

    @Test("upholds, with keys sealed two at a time", arguments: StoreLaw.all)
    func upholdsWhenSealed(_ law: StoreLaw) async throws { try await check(law, keysPerSegment: 2) }
}
