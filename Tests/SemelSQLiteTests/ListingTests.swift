import Semel
@testable import SemelSQLite
import SemelTesting
import Testing

@Suite("Listing the embedded store's operations")
struct ListingTests {
    private let folder = TemporaryFolder()
    private let clock = ManualStoreClock()
    private static let refunds = PinnedPolicy(scene: "refunds", text: "effect: unknown")

    private func open() async throws -> SQLiteStore {
        var configuration = SQLiteStore.Configuration(reserve: 1 << 20, purgesByItself: false)
        // Finished operations lie in several segments and in memory.
        configuration.keysPerSegment = 4
        return try await SQLiteStore(path: folder.database, configuration: configuration, clock: clock)
    }

    /// 40 operations, one second apart: claimed, uncertain, completed and tombstones in turn, of two scenes.
    private func fill(_ store: SQLiteStore) async throws {
        for index in 0..<40 {
            let id = key("key-\(index)", scope: index % 3 == 0 ? "a" : "b")
            let retention = Retention(response: index % 4 == 3 ? .zero : .seconds(86_400), key: .seconds(864_000))
            let policy = index % 2 == 0 ? pinned : Self.refunds
            let token = try await store.granted(request(id, lease: .seconds(86_400), retention: retention, policy: policy)).token
            switch index % 4 {
            case 0: break
            case 1: #expect(try await store.apply(.suspend(reason: "lost"), to: id, token: token) == .applied)
            default: #expect(try await store.apply(.complete(outcome("done")), to: id, token: token) == .applied)
            }
            clock.advance(by: .seconds(1))
        }
    }

    /// Every page of a query.
    private func pages(_ store: SQLiteStore, _ query: OperationQuery) async throws -> [[StoredOperation]] {
        var query = query
        var pages: [[StoredOperation]] = []
        repeat {
            let page = try await store.operations(query)
            #expect(page.operations.count <= query.limit)
            pages.append(page.operations)
            query.cursor = page.cursor
        } while query.cursor != nil && pages.count < 100
        return pages
    }

    private func names(_ pages: [[StoredOperation]]) -> [String] { pages.flatMap { $0 }.map(\.id.key.text) }

    @Test("every operation is on exactly one page, oldest change first, whatever the size of the pages", arguments: [1, 3, 7, 40, 1000])
    func paging(limit: Int) async throws {
        let store = try await open()
        try await fill(store)
        #expect(names(try await pages(store, OperationQuery(limit: limit))) == (0..<40).map { "key-\($0)" })
        await store.close()
        // Read from the file again, where leases of before have lapsed.
        let again = try await open()
        #expect(Set(names(try await pages(again, OperationQuery(limit: limit)))) == Set((0..<40).map { "key-\($0)" }))
        await again.close()
    }

    @Test("states, scene, scope, key and age select, alone and together", arguments: [2, 1000])
    func selecting(limit: Int) async throws {
        let store = try await open()
        try await fill(store)
        func list(_ query: OperationQuery) async throws -> [Int] {
            var query = query
            query.limit = limit
            return try await names(pages(store, query)).map { Int($0.dropFirst(4))! }
        }
        #expect(try await list(OperationQuery(states: [.uncertain])) == (0..<40).filter { $0 % 4 == 1 })
        #expect(try await list(OperationQuery(states: [.claimed, .completed])) == (0..<40).filter { $0 % 4 != 1 })
        #expect(try await list(OperationQuery(states: [.completed], scene: "refunds")) == (0..<40).filter { $0 % 4 == 3 })
        #expect(try await list(OperationQuery(states: [])).isEmpty)
        #expect(try await list(OperationQuery(scene: "payments")) == (0..<40).filter { $0 % 2 == 0 })
        #expect(try await list(OperationQuery(scene: "nothing")).isEmpty)
        #expect(try await list(OperationQuery(scope: Scope("a"))) == (0..<40).filter { $0 % 3 == 0 })
        #expect(try await list(OperationQuery(key: OperationKey("key-7"))) == [7])
        #expect(try await list(OperationQuery(scope: Scope("b"), key: OperationKey("key-7"))) == [7])
        #expect(try await list(OperationQuery(scope: Scope("a"), key: OperationKey("key-7"))).isEmpty)
        // The last change was one second ago, that of the first 40.
        #expect(try await list(OperationQuery(unchangedFor: .seconds(31))) == Array(0..<10))
        #expect(try await list(OperationQuery(states: [.uncertain], scene: "refunds", unchangedFor: .seconds(31))) == [1, 5, 9])
        await store.close()
    }

    @Test("a tombstone is listed without its outcome, a completed one with it")
    func outcomes() async throws {
        let store = try await open()
        try await fill(store)
        for operation in try await store.operations(OperationQuery(states: [.completed], limit: 100)).operations {
            let isTombstone = Int(operation.id.key.text.dropFirst(4))! % 4 == 3
            #expect(operation.record.outcome == (isTombstone ? nil : outcome("done")))
        }
        await store.close()
    }

    @Test("what changes between two pages hides nothing else and shows nothing twice")
    func changing() async throws {
        let store = try await open()
        try await fill(store)
        var query = OperationQuery(limit: 5)
        var seen: [String] = []
        var page = 0
        repeat {
            let answer = try await store.operations(query)
            seen += answer.operations.map(\.id.key.text)
            query.cursor = answer.cursor
            // One from a page before is forgotten, and a new one is begun: it comes last.
            if page == 1 {
                #expect(try await store.forget(key("key-2", scope: "b"), by: .sample) == .applied)
                _ = try await store.granted(request(key("new", scope: "b")))
            }
            page += 1
        } while query.cursor != nil && page < 100
        #expect(seen == (0..<40).map { "key-\($0)" } + ["new"])
        await store.close()
    }

    @Test("a page that would look at too many rows ends early and goes on at its cursor")
    func parts() async throws {
        let store = try await open()
        try await fill(store)
        await store.close()
        let engine = try Opening(
            place: Place(path: folder.database), configuration: .init(reserve: 1 << 20), clock: clock, environment: .live,
            observations: ObservationRegistry()
        ).open()
        var position: Engine.ListPosition? = Engine.ListPosition()
        var found: [String] = []
        var parts = 0
        while let start = position, parts < 100 {
            let (part, next) = try engine.list(OperationQuery(states: [.completed], scene: "refunds"), from: start, limit: 100, rows: 3)
            found += part.map(\.id.key.text)
            // A cursor is a text on its way to a client and back.
            position = try next.map { try #require(Engine.ListPosition($0.cursor)) }
            parts += 1
        }
        #expect(found == (0..<40).filter { $0 % 4 == 3 }.map { "key-\($0)" })
        #expect(parts >= 7, "20 finished rows, three at a time")
        engine.close()
    }
}
