import Foundation
import Semel
import SemelSQLite
import SemelTesting
import Testing

@Suite("The embedded store")
struct StoreBasicsTests {
    let folder = TemporaryFolder()

    @Test("what was answered is there after closing and opening again")
    func survivesReopening() async throws {
        let first = try await SQLiteStore(path: folder.database)
        try await first.finish(key("a"))
        let open = try await first.granted(request(key("b")))
        await first.close()

        let second = try await SQLiteStore(path: folder.database)
        guard case .completed(let record) = try await second.claim(request(key("a"), 2)) else {
            Issue.record("the outcome is lost")
            return
        }
        #expect(record.outcome == outcome("done"))
        // The lease of an earlier run has lapsed, and the rule says that nobody runs.
        guard case .uncertain = try await second.claim(request(key("b"), 2)) else {
            Issue.record("the claim is lost")
            return
        }
        #expect(try await second.apply(.complete(outcome("late")), to: key("b"), token: open.token) == .applied)
        await second.close()
    }

    @Test("a closed store refuses calls")
    func refusesWhenClosed() async throws {
        let store = try await SQLiteStore(path: folder.database)
        await store.close()
        await #expect { try await store.claim(request(key("a"))) } throws: { ($0 as? StoreError)?.code == .stopped }
        #expect(await store.health().isReady == false)
    }

    @Test("sealing loses no key: with tiny segments every key is found, before and after opening again", arguments: [64, 500])
    func sealing(keysPerSegment: Int) async throws {
        var configuration = SQLiteStore.Configuration()
        configuration.keysPerSegment = keysPerSegment
        var store = try await SQLiteStore(path: folder.database, configuration: configuration)
        let count = 3000
        for start in stride(from: 0, to: count, by: 100) {
            let ids = (start..<start + 100).map { key("key-\($0)") }
            let granted = try await store.claim(ids.map { request($0) })
            let transitions = zip(ids, granted).map { id, result in
                guard case .granted(let grant) = result else { fatalError("\(id) was not granted: \(result)") }
                return Transition(id: id, token: grant.token, change: .complete(outcome(id.key.text)))
            }
            #expect(try await store.apply(transitions).allSatisfy { $0 == .applied })
        }
        for _ in 0..<2 {
            for index in 0..<count {
                guard case .completed(let record) = try await store.claim(request(key("key-\(index)"), 7)) else {
                    Issue.record("key-\(index) was forgotten")
                    return
                }
                #expect(record.outcome == outcome("key-\(index)"))
                #expect(try await store.operation(OperationReference(key("key-\(index)")))?.id == key("key-\(index)"))
            }
            await store.close()
            store = try await SQLiteStore(path: folder.database, configuration: configuration)
        }
        await store.close()
    }
}
