import Semel
import SemelTesting
import Testing

@Suite("The sharded store")
struct ShardedTests {
    private let clock = ManualStoreClock()

    private func stores(_ names: [String]) -> [(name: String, store: InterruptibleStore<MemoryStore>)] {
        names.map { ($0, InterruptibleStore(MemoryStore(clock: clock))) }
    }

    private func request(_ key: String, owner: Owner = .ada, limit: Int? = nil) -> ClaimRequest {
        ClaimRequest(
            id: .sample(key), fingerprint: .sample("payload"), owner: owner, lease: .seconds(30), onLapse: .uncertain, policy: .sample,
            retention: Retention(response: .seconds(100), key: .seconds(1000)), liveLimit: limit)
    }

    @Test("sends a key to the same shard in every process, and every shard gets its part")
    func routes() async throws {
        let stores = stores(["a", "b", "c", "d"])
        let sharded = try await Sharded(stores, home: "a")
        let results = try await sharded.claim((0..<400).map { request("\($0)") })
        #expect(results.allSatisfy { $0.isGranted })
        for (name, store) in stores {
            let count = try await store.operations(OperationQuery(limit: 1000)).operations.count {
                $0.id.scope == Scope("tenant", "subject")
            }
            #expect((60...140).contains(count), "\(name) has \(count)")
        }
        let again = try await Sharded(Array(stores.reversed()), home: "a")
        #expect(again.map == sharded.map)
        #expect(try await again.claim((0..<400).map { request("\($0)", owner: .ben) }).allSatisfy(\.isInProgress))
        // The place of a key is for ever: it is written down here.
        #expect(ShardMap.slot(of: .sample("1")) == Int(OperationReference(.sample("1")).high >> 54))
    }

    @Test("is an authority only where every shard is one")
    func weakestShard() async throws {
        func shard(_ isAuthority: Bool) -> InterruptibleStore<MemoryStore> {
            InterruptibleStore(
                MemoryStore(clock: ManualStoreClock()),
                declaring: StoreCapabilities(engine: "shard", durability: .durable, isTransactional: false, isAuthority: isAuthority))
        }
        #expect(try await Sharded([("a", shard(true)), ("b", shard(true))], home: "a").capabilities.isAuthority)
        #expect(try await !Sharded([("a", shard(true)), ("b", shard(false))], home: "a").capabilities.isAuthority)
    }

    @Test("refuses to open without a shard that holds keys")
    func refusesMissingShards() async throws {
        let stores = stores(["a", "b"])
        _ = try await Sharded(stores, home: "a")
        let error = await #expect(throws: StoreError.self) { _ = try await Sharded([stores[0]], home: "a") }
        #expect(error?.code == .misconfigured)
    }

    @Test("fails a batch as indeterminate when a part of it was done, and the same again finds out")
    func partialFailure() async throws {
        let stores = stores(["a", "b"])
        let sharded = try await Sharded(stores, home: "a")
        stores[1].store.set(.down)
        let batch = (0..<20).map { request("\($0)", limit: 30) }
        let error = await #expect(throws: StoreError.self) { try await sharded.claim(batch) }
        #expect(error?.code == .indeterminate)
        stores[1].store.set(.up)
        #expect(try await sharded.claim(batch).allSatisfy(\.isGranted))
        let more = try await sharded.claim((20..<40).map { request("\($0)", limit: 30) })
        #expect(more.count(where: \.isGranted) == 10 && more.count { $0 == .tooManyKeys } == 10, "the limit is of all shards together")
    }

    @Test("moves records in every state as they are, and their holders go on")
    func moves() async throws {
        let stores = stores(["a", "b"])
        let sharded = try await Sharded([stores[0]], home: "a")
        var tokens: [String: FencingToken] = [:]
        for number in 0..<300 {
            guard case .granted(let grant) = try await sharded.claim(request("\(number)")) else { return _ = Issue.record("a new key") }
            tokens["\(number)"] = grant.token
            switch number % 4 {
            case 0:
                #expect(try await sharded.apply(.complete(.sample("\(number)")), to: .sample("\(number)"), token: grant.token) == .applied)
            case 1: #expect(try await sharded.apply(.suspend(reason: "lost"), to: .sample("\(number)"), token: grant.token) == .applied)
            default: break
            }
        }
        let opened = try await Sharded(stores, home: "a")
        let before = try await opened.operations(OperationQuery(limit: 1000)).operations
        #expect(before.count == 300)
        let report = try await opened.move(Set(0..<512), to: "b")
        #expect(report.epoch == 2 && report.leftovers == nil && report.records >= 100)
        let after = try await opened.operations(OperationQuery(limit: 1000)).operations
        #expect(Set(after) == Set(before), "records, times, epochs and nonces are as they were")
        #expect(
            try await stores[0].store.operations(OperationQuery(limit: 1000)).operations.allSatisfy {
                $0.id.scope != Scope("tenant", "subject") || ShardMap.slot(of: $0.id) >= 512
            })
        for number in 0..<300 {
            let (id, token) = (OperationID.sample("\(number)"), tokens["\(number)"]!)
            if number % 4 == 0 {
                #expect(try await opened.claim(request("\(number)", owner: .ben)).replayed == .sample("\(number)"))
            } else {
                #expect(try await opened.apply(.complete(.sample("late")), to: id, token: token) == .applied)
            }
        }
        // And back again, with everything that happened since.
        let back = try await opened.move(Set(0..<512), to: "a")
        #expect(back.epoch == 3)
        #expect(try await opened.claim((0..<300).map { request("\($0)", owner: .cleo) }).allSatisfy { $0.replayed != nil })
        #expect(try await stores[1].store.operations(OperationQuery()).operations.isEmpty)
        #expect(try await Sharded(stores, home: "a").map.epoch == 3)
    }

    @Test("gives higher epochs than before to a key that was moved after it was forgotten (H21)")
    func epochsRise() async throws {
        let stores = stores(["a", "b"])
        let sharded = try await Sharded(stores, home: "a")
        let slot = ShardMap.slot(of: .sample("key"))
        var last = Epoch.zero
        for name in ["b", "a", "b", "a"] {
            guard case .granted(let grant) = try await sharded.claim(request("key")) else { return _ = Issue.record("a free key") }
            #expect(grant.token.epoch > last)
            last = grant.token.epoch
            #expect(try await sharded.apply(.release, to: .sample("key"), token: grant.token) == .applied)
            // Many epochs in the same microsecond: the source's run ahead of its clock.
            _ = try await sharded.claim((0..<50).map { request("\(name) \($0)") })
            try await sharded.move([slot], to: name)
        }
    }

    @Test("leaves everything where it was when a move fails, and another one works")
    func failedMove() async throws {
        let stores = stores(["a", "b"])
        let sharded = try await Sharded(stores, home: "a")
        _ = try await sharded.claim((0..<100).map { request("\($0)") })
        stores[1].store.set(.down)
        await #expect(throws: StoreError.self) { try await sharded.move(Set(0..<1024), to: "b") }
        stores[1].store.set(.up)
        #expect(sharded.map.epoch == 1)
        #expect(try await sharded.claim((0..<100).map { request("\($0)", owner: .ben) }).allSatisfy(\.isInProgress))
        try await sharded.move(Set(0..<1024), to: "b")
        #expect(try await sharded.claim((0..<100).map { request("\($0)", owner: .ben) }).allSatisfy(\.isInProgress))
        #expect(sharded.map.epoch == 2)
    }

    @Test("stands still when nobody knows which map holds, and the next opening knows (H14)")
    func unknownMap() async throws {
        let stores = stores(["a", "b"])
        let sharded = try await Sharded(stores, home: "a")
        _ = try await sharded.claim((0..<50).map { request("\($0)") })
        // Nothing of these slots is in b's home but the map, whose answers are lost.
        let half = Set(sharded.map.slots(of: "b").prefix(100))
        await #expect(throws: StoreError.self) {
            stores[0].store.set(.losesAnswers)
            defer { stores[0].store.set(.up) }
            try await sharded.move(half, to: "a")
        }
        let opened = try await Sharded(stores, home: "a")
        #expect(try await opened.claim((0..<50).map { request("\($0)", owner: .ben) }).allSatisfy(\.isInProgress))
    }

    @Test("lists many pages over its shards in order, each operation once")
    func lists() async throws {
        let sharded = try await Sharded(stores(["a", "b", "c"]), home: "c")
        for number in 0..<60 {
            _ = try await sharded.claim(request("\(number)"))
            clock.advance(by: .milliseconds(1))
        }
        var (found, query): ([String], OperationQuery) = ([], OperationQuery(limit: 7))
        repeat {
            let page = try await sharded.operations(query)
            found += page.operations.map(\.id.key.text)
            query.cursor = page.cursor
        } while query.cursor != nil
        #expect(found == (0..<60).map { "\($0)" })
        #expect(try await sharded.operations(OperationQuery(cursor: "nonsense")).operations.isEmpty)
    }

    @Test("shows the audit logs of its shards as one chain, in the order of the acts, and each shard keeps its own")
    func audits() async throws {
        let stores = stores(["a", "b"])
        let sharded = try await Sharded(stores, home: "a")
        for number in 0..<20 {
            guard case .granted(let grant) = try await sharded.claim(request("\(number)")) else { return _ = Issue.record("a new key") }
            _ = try await sharded.apply(.suspend(reason: "lost"), to: .sample("\(number)"), token: grant.token)
            _ = try await sharded.resolve(.sample("\(number)"), as: .applied(nil), by: OperatorAct(actor: "\(number)", reason: "looked"))
        }
        let entries = try await sharded.audit(after: 0, limit: 100)
        #expect(entries.map(\.actor) == (0..<20).map { "\($0)" })
        #expect(AuditEntry.firstBreak(in: entries, following: (0, AuditEntry.genesisHash)) == nil)
        let own = try await stores[0].store.audit(after: 0, limit: 100).count + stores[1].store.audit(after: 0, limit: 100).count
        #expect(own == 20)
    }
}
