#if MySQL
import Semel
@testable import SemelMySQL
import Testing

@Suite("Records as rows of MariaDB")
struct RecordsTests {
    private func withStore(_ body: (MySQLStore, _ url: String) async throws -> Void) async throws {
        try await withDatabase { url in
            let store = try await MySQLStore(url: url, configuration: quiet(connections: 1))
            try await body(store, url)
            await store.close()
        }
    }

    private func count(_ url: String, _ condition: String) async throws -> Int64? {
        try await withConnection(to: url) { try $0.rows("SELECT COUNT(*) FROM semel_record WHERE \(condition)")[0][0].integer }
    }

    @Test("a record comes back from its row as it was, in every state")
    func roundTrip() throws {
        for state in RecordState.allCases {
            let id = key("ключ\0", scope: "tenant")
            let record = Record(
                state: state, epoch: Epoch(rawValue: 7 << 52 | 1_700_000_000_000_000), owner: Owner(high: .max, low: 1),
                fingerprint: Fingerprint(of: [1]), policy: pinned.hash, mode: .observe, onLapse: .verify,
                retention: Retention(response: .seconds(10), key: .microseconds(20_000_001)), attempt: 3,
                leaseUntil: state == .completed ? .distantPast : Timestamp(microseconds: 1_700_000_000_000_009),
                createdAt: Timestamp(microseconds: 1_700_000_000_000_000), changedAt: Timestamp(microseconds: 1_700_000_000_000_005),
                traceID: TraceID(high: 1, low: .max), parent: OperationReference(high: 9, low: 8), reason: state == .uncertain ? "lost" : nil,
                outcome: state == .completed ? outcome("é") : nil)
            let row = Row(RowID(id), id, record)
            let (decodedID, decoded) = try row.decode()
            #expect(decodedID == id)
            #expect(decoded == record)
            #expect((row.live == nil) == (state == .completed))
        }
    }

    @Test("what is damaged, or is another key's, is no record (H19, H29)", arguments: 0..<40)
    func damaged(_ seed: Int) throws {
        let record = Record(
            state: .completed, epoch: Epoch(rawValue: 1), owner: Owner(high: 1, low: 1), fingerprint: Fingerprint(of: [1]), policy: pinned.hash,
            mode: .enforce, onLapse: .uncertain, retention: .standard, attempt: 1, leaseUntil: .distantPast,
            createdAt: Timestamp(microseconds: 5), changedAt: Timestamp(microseconds: 6), outcome: outcome("body"))
        var row = Row(RowID(key("a")), key("a"), record)
        if seed == 0 {
            row.id = RowID(key("b"))
        } else if seed % 2 == 0 {
            row.head[seed * 31 % row.head.count] ^= 1 << UInt8(seed % 8)
        } else {
            row.outcome![seed * 31 % row.outcome!.count] ^= 1 << UInt8(seed % 8)
        }
        #expect(throws: Row.Failure.self) { try row.decode() }
        for length in 0..<8 {
            row.head = Array(row.head.prefix(length))
            #expect(throws: Row.Failure.self) { try row.decode() }
        }
    }

    @Test("completions of keys that are absent leave nothing, and spoil no other of their batch")
    func ghosts() async throws {
        try await withStore { store, url in
            let grants = [try await store.granted(request(key("a"))), try await store.granted(request(key("b")))]
            let stale = FencingToken(epoch: Epoch(rawValue: 5), owner: Owner(high: 1, low: 1))
            let results = try await store.apply([
                Transition(id: key("a"), token: grants[0].token, change: .complete(outcome("a"))),
                Transition(id: key("nobody"), token: stale, change: .complete(outcome("x"))),
                Transition(id: key("b"), token: grants[1].token, change: .complete(outcome("b"))),
                Transition(id: key("no one"), token: stale, change: .complete(outcome("x"))),
            ])
            #expect(results == [.applied, .superseded, .applied, .superseded])
            #expect(try await count(url, "1 = 1") == 2)
            #expect(try await count(url, "state = 5 AND live IS NULL") == 2)
        }
    }

    @Test("a key that is released keeps its last epoch for a while, and the next claim goes above it, whatever the clock said")
    func freeRows() async throws {
        try await withStore { store, url in
            let first = try await store.granted(request(key("a")))
            #expect(try await store.apply(.release, to: key("a"), token: first.token) == .applied)
            #expect(try await count(url, "state = 0 AND LENGTH(head) = 0") == 1)
            // As if another process had drawn its epoch from a clock that is ahead.
            try await withConnection(to: url) { try $0.execute("UPDATE semel_record SET epoch = epoch + 100000000") }
            #expect(try await store.record(of: key("a")) == nil)
            #expect(try await store.operation(OperationReference(key("a"))) == nil)
            #expect(try await store.operations(OperationQuery()).operations.isEmpty)
            let second = try await store.granted(request(key("a"), 2))
            #expect(second.kind == .first)
            #expect(second.token.epoch.rawValue > first.token.epoch.rawValue + 100_000_000)

            // It goes when no time that is still in use could give so low an epoch.
            #expect(try await store.apply(.release, to: key("a"), token: second.token) == .applied)
            _ = try await store.purge(limit: 10)
            try await withConnection(to: url) { try $0.execute("UPDATE semel_record SET due = 0") }
            _ = try await store.purge(limit: 10)
            #expect(try await count(url, "1 = 1") == 1)
            try await withConnection(to: url) { try $0.execute("UPDATE semel_record SET due = 0, epoch = epoch - 1000000000") }
            _ = try await store.purge(limit: 10)
            #expect(try await count(url, "1 = 1") == 0)
        }
    }

    @Test("when the server's clock is set back the store's time stands, and epochs go on rising (H9, H34)")
    func clock() async throws {
        try await withStore { store, url in
            let first = try await store.granted(request(key("a")))
            // The highest time that was seen lies an hour ahead: as if the clock had been set back by an hour.
            try await withConnection(to: url) { try $0.execute("UPDATE semel_state SET seen = seen + 3600000000") }
            let second = try await store.granted(request(key("b")))
            #expect(second.grantedAt - first.grantedAt > .seconds(3500))
            let third = try await store.granted(request(key("c")))
            #expect(third.grantedAt >= second.grantedAt)
            #expect(third.token.epoch >= second.token.epoch)

            // The same claimant comes back to its key: what is drawn in the same moment must not pass for what was.
            #expect(try await store.apply(.release, to: key("c"), token: third.token) == .applied)
            let fourth = try await store.granted(request(key("c")))
            #expect(fourth.token.epoch > third.token.epoch)
            #expect(try await store.record(of: key("c"))?.token == fourth.token)
        }
    }

    @Test("a raised incarnation stands above every epoch of before, in every process, at once (H21)")
    func incarnation() async throws {
        try await withStore { store, url in
            let other = try await MySQLStore(url: url, configuration: quiet())
            let first = try await store.granted(request(key("a")))
            let raised = try await other.raiseIncarnation()
            let second = try await store.granted(request(key("b")))
            #expect(second.token.epoch.incarnation == raised)
            #expect(second.token.epoch > first.token.epoch)
            await other.close()
        }
    }

    @Test("a limit of live keys holds to the last one, between processes")
    func limit() async throws {
        try await withStore { store, url in
            let others = [try await MySQLStore(url: url, configuration: quiet()), try await MySQLStore(url: url, configuration: quiet())]
            let results = try await withThrowingTaskGroup(of: [ClaimResult].self) { group in
                for number in 0..<60 {
                    let store = ([store] + others)[number % 3]
                    group.addTask { try await store.claim((0..<3).map { request(key("\(number).\($0)"), limit: 50) }) }
                }
                return try await group.reduce(into: []) { $0 += $1 }
            }
            let granted = results.count { if case .granted = $0 { true } else { false } }
            #expect(granted == 50)
            #expect(results.count { $0 == .tooManyKeys } == 130)
            for store in others { await store.close() }
        }
    }

    @Test("an outcome larger than the server takes is refused by itself, with the remedy (H35)")
    func tooLarge() async throws {
        try await withStore { store, _ in
            let grants = [try await store.granted(request(key("a"))), try await store.granted(request(key("b")))]
            let huge = Outcome(body: .kept(Array(repeating: 0, count: 17 << 20)))
            async let small = store.apply(.complete(outcome("x")), to: key("b"), token: grants[1].token)
            let error = await #expect(throws: StoreError.self) { try await store.apply(.complete(huge), to: key("a"), token: grants[0].token) }
            #expect(error?.code == .refused)
            #expect(error?.message.contains("max_allowed_packet") == true)
            #expect(try await small == .applied)
            #expect(try await store.apply(.complete(outcome("y")), to: key("a"), token: grants[0].token) == .applied)
        }
    }
}
#endif
