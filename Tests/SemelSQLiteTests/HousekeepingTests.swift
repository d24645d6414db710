import Semel
@testable import SemelSQLite
import SemelTesting
import Testing

@Suite("The embedded store's housekeeping")
struct HousekeepingTests {
    private let folder = TemporaryFolder()
    private let clock = ManualStoreClock()
    private static let retention = Retention(response: .seconds(3600), key: .seconds(7200))

    private func open(purges: Bool, keysPerSegment: Int = 1 << 18) async throws -> SQLiteStore {
        var configuration = SQLiteStore.Configuration(reserve: 1 << 20, purgesByItself: purges)
        configuration.keysPerSegment = keysPerSegment
        return try await SQLiteStore(path: folder.database, configuration: configuration, clock: clock)
    }

    private func count(_ table: String, _ store: SQLiteStore) async throws -> Int64 {
        try await store.read { try $0.query("SELECT count(*) FROM \(table)")[0][0].integer ?? -1 }
    }

    /// Housekeeping is done in idle moments, which tell nobody.
    private func eventually(_ comment: Comment, _ condition: () async throws -> Bool) async throws {
        let deadline = ContinuousClock.now + .seconds(120)
        while ContinuousClock.now < deadline {
            if try await condition() { return }
            try await Task.sleep(for: .milliseconds(100))
        }
        Issue.record(comment)
    }

    @Test("by itself it removes outcomes, then keys, once they have been due for a while; never what is live (H23)")
    func purgesByItself() async throws {
        let store = try await open(purges: true)
        for index in 0..<50 { try await store.finish(key("key-\(index)"), retention: Self.retention) }
        let live = try await store.granted(request(key("live"), lease: .seconds(60)))
        let uncertain = try await store.granted(request(key("uncertain")))
        #expect(try await store.apply(.suspend(reason: "lost"), to: key("uncertain"), token: uncertain.token) == .applied)

        // Due, but only just: told at once as expired, and removed later together with others.
        clock.advance(by: .seconds(3600))
        #expect(try await store.claim(request(key("key-0"), 7)) == .expired)
        try await Task.sleep(for: .milliseconds(300))
        #expect(try await count("semel_completed", store) == 50)

        clock.advance(by: .seconds(301))
        try await eventually("the outcomes are removed") { try await count("semel_tombstone", store) == 50 }
        #expect(try await count("semel_completed", store) == 0)
        #expect(try await store.claim(request(key("key-49"), 7)) == .expired)

        clock.advance(by: .seconds(3600))
        try await eventually("the keys are removed") { try await count("semel_tombstone", store) == 0 }
        #expect(try await store.granted(request(key("key-0"), 7)).kind == .first)

        // A year later what is live is still there.
        clock.advance(by: .seconds(365 * 86_400))
        try await store.finish(key("another"), retention: Self.retention)
        #expect(try await store.record(of: key("uncertain"))?.state == .uncertain)
        #expect(try await store.apply(.complete(outcome("late")), to: key("live"), token: live.token) == .applied)
        await store.close()
    }

    @Test("under load it removes as it goes, so that the file does not grow without end")
    func purgesUnderLoad() async throws {
        let store = try await open(purges: true)
        let short = Retention(response: .seconds(1), key: .seconds(2))
        for round in 0..<30 {
            for index in 0..<20 { try await store.finish(key("\(round)-\(index)"), retention: short) }
            clock.advance(by: .seconds(400))
        }
        #expect(
            try await count("semel_completed", store) + count("semel_tombstone", store) <= 100, "of 600 keys those are gone that were due")
        await store.close()
    }

    @Test("one that is told not to purge by itself keeps everything until it is asked")
    func asked() async throws {
        let store = try await open(purges: false)
        for index in 0..<10 { try await store.finish(key("key-\(index)"), retention: Self.retention) }
        clock.advance(by: .seconds(86_400))
        try await Task.sleep(for: .milliseconds(300))
        #expect(try await count("semel_completed", store) == 10)
        #expect(try await store.purge(limit: 4) == PurgeReport(outcomes: 0, keys: 4))
        #expect(try await store.purge(limit: 100) == PurgeReport(outcomes: 0, keys: 6))
        #expect(try await store.purge(limit: 100) == PurgeReport(outcomes: 0, keys: 0))
        await store.close()
    }

    @Test("a segment whose keys are all gone is dropped with its pieces; one with a key that stays is kept, and still finds it")
    func segments() async throws {
        let store = try await open(purges: false, keysPerSegment: 64)
        for index in 0..<320 {
            let stays = index == 100
            try await store.finish(
                key("key-\(index)"), with: "\(index)",
                retention: stays ? Retention(response: .seconds(864_000), key: .seconds(864_000)) : Self.retention)
        }
        try await eventually("full tables are sealed") { try await count("semel_segment", store) >= 4 }
        #expect(try await count("semel_piece", store) == 128 * (try await count("semel_segment", store)))

        clock.advance(by: .seconds(7200))
        #expect(try await store.purge(limit: .max).keys == 319)
        #expect(try await count("semel_segment", store) == 1)
        #expect(try await count("semel_piece", store) == 128)
        #expect(try await count("semel_completed", store) == 1)

        for reopened in [false, true] {
            let current = reopened ? try await open(purges: false, keysPerSegment: 64) : store
            guard case .completed(let record) = try await current.claim(request(key("key-100"), 7)) else {
                return _ = Issue.record("the key that stays is lost")
            }
            #expect(record.outcome == outcome("100"))
            for index in [0, 99, 101, 319] { #expect(try await current.record(of: key("key-\(index)")) == nil) }
            // What is finished from now on is found too: a dropped segment's place in the filter is free again.
            for index in 0..<200 { try await current.finish(key("\(reopened)-\(index)"), retention: Self.retention) }
            for index in 0..<200 {
                guard case .completed = try await current.claim(request(key("\(reopened)-\(index)"), 7)) else {
                    return _ = Issue.record("\(reopened)-\(index) is lost")
                }
            }
            await current.close()
        }
    }

    @Test(
        "the file itself refuses to change, remove or replace a line of the audit log",
        arguments: [
            "UPDATE semel_audit SET actor = 'mallory'", "UPDATE semel_audit SET detail = detail WHERE sequence = 1",
            "DELETE FROM semel_audit",
            "DELETE FROM semel_audit WHERE sequence = 2",
            "INSERT OR REPLACE INTO semel_audit SELECT sequence, time, 'mallory', reason, action, operation, scene, detail, previous, hash FROM semel_audit WHERE sequence = 1",
            "REPLACE INTO semel_audit SELECT * FROM semel_audit",
        ])
    func audit(sql: String) async throws {
        let store = try await open(purges: false)
        for name in ["a", "b"] {
            try await store.finish(key(name))
            #expect(try await store.forget(key(name), by: .sample) == .applied)
        }
        let before = try await store.audit(after: 0, limit: 10)
        await store.close()
        let file = RawDatabase(path: folder.database)
        let error = #expect(throws: SQLiteError.self) { try file.execute(sql) }
        #expect(error?.description.contains("append-only") == true)

        let again = try await open(purges: false)
        #expect(try await again.audit(after: 0, limit: 10) == before && before.count == 2)
        // It is still written to.
        try await again.finish(key("c"))
        #expect(try await again.forget(key("c"), by: .sample) == .applied)
        let entries = try await again.audit(after: 0, limit: 10)
        #expect(entries.count == 3 && AuditEntry.firstBreak(in: entries, following: (0, AuditEntry.genesisHash)) == nil)
        await again.close()
    }

    @Test("how many items share a commit is counted")
    func batches() async throws {
        let factory = CountingFactory()
        let store = try await SQLiteStore(
            path: folder.database, configuration: .init(reserve: 1 << 20, metrics: SemelMetrics(factory: factory).store("sqlite")),
            clock: clock)
        let ids = (0..<30).map { key("key-\($0)") }
        _ = try await store.claim(ids.map { request($0) })
        #expect(factory.values == [30])
        // What changes nothing is no batch.
        _ = try await store.claim(ids.map { request($0, 7) })
        _ = try await store.record(of: ids[0])
        #expect(factory.values == [30])
        await store.close()
    }
}
