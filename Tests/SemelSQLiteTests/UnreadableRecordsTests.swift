import Semel
import SemelSQLite
import Testing

@Suite("Records of the embedded store that cannot be read")
struct UnreadableRecordsTests {
    private let folder = TemporaryFolder()

    @Test("a live record that cannot be read is not changed and does not silence the others of its batch (H58)")
    func unreadable() async throws {
        let first = try await ReopenableStore(path: folder.database, configuration: .init(reserve: 1 << 20), clock: SystemStoreClock())
        let ids = ["a", "broken", "c"].map { key($0) }
        let transitions = try await zip(ids, first.claim(ids.map { request($0) })).map { id, result in
            guard case .granted(let grant) = result else { throw NotGranted(result: result) }
            return Transition(id: id, token: grant.token, change: .complete(outcome("done")))
        }
        let path = folder.database
        try await first.restart { try RawDatabase(path: path).plant(state: 200, in: ids[1]) }

        #expect(try await first.apply(transitions) == [.applied, .superseded, .applied])
        #expect(try await first.record(of: ids[2])?.outcome == outcome("done"))
        guard case .unreadable = try await first.claim(request(ids[1], 2)) else { return _ = Issue.record("it was changed") }
        // Nor is it absent for an operator.
        await #expect { try await first.operation(OperationReference(ids[1])) } throws: { ($0 as? StoreError)?.code == .damaged }
        #expect(try await first.operation(OperationReference(key("nobody"))) == nil)
        await first.close()
    }
}
