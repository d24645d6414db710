import Foundation
import Semel
@testable import SemelSQLite
import SemelTesting
import Testing

@Suite("Moving keys between embedded databases")
struct ShardMoveTests {
    private let folder = TemporaryFolder()

    private func open(_ name: String) async throws -> SQLiteStore {
        try await SQLiteStore(path: "\(folder.path)/\(name).db", configuration: .init(reserve: 1 << 20))
    }

    /// How long the load runs at least: 60 with `SEMEL_SHARD_SECONDS=60`.
    private static let seconds = ProcessInfo.processInfo.environment["SEMEL_SHARD_SECONDS"].flatMap { Double($0) } ?? 2

    /// Claims with contention and repeats from all sides, while ranges move back and forth. Every key may be granted for the
    /// first time once, and its outcome is what its holder said, wherever it is by then (H59).
    @Test("grants every key once under load while ranges move")
    func movesUnderLoad() async throws {
        let stores = [(name: "a", store: try await open("a")), (name: "b", store: try await open("b"))]
        let sharded = try await Sharded(stores, home: "a")
        let start = ContinuousClock.now
        let isOver = Locked(false)
        let grants = Locked([Int: UInt64]())
        let wrong = Locked([String]())
        let claims = Locked(0)
        let frozen = Locked([Duration]())
        let next = Locked(0)
        let policy = PinnedPolicy(scene: "load", text: "")

        try await withThrowingTaskGroup(of: Void.self) { group in
            for worker in 0..<64 {
                group.addTask {
                    var generator = SplitMix64(seed: UInt64(worker))
                    while !isOver.withLock({ $0 }) {
                        // One key in two is new; the others are what somebody has, or had, in hand.
                        let newest = next.withLock { next in
                            next += 1
                            return next
                        }
                        let number = generator.next() & 1 == 0 ? newest : max(1, newest - Int(generator.next() % 200))
                        let id = key("order \(number)", scope: "tenant")
                        let owner = Owner(high: UInt64(worker), low: generator.next())
                        let result = try await sharded.claim(
                            ClaimRequest(
                                id: id, fingerprint: Fingerprint(of: Array("a".utf8)), owner: owner, lease: .seconds(600),
                                onLapse: .uncertain, policy: policy))
                        claims.withLock { $0 += 1 }
                        switch result {
                        case .granted(let grant):
                            let former = grants.withLock { $0.updateValue(grant.token.epoch.rawValue, forKey: number) }
                            if let former {
                                wrong.withLock { $0.append("order \(number) was granted at \(former) and at \(grant.token.epoch)") }
                            }
                            let said = outcome("\(grant.token.epoch)")
                            if try await sharded.apply(.complete(said), to: id, token: grant.token) != .applied {
                                wrong.withLock { $0.append("the holder of order \(number) was superseded") }
                            }
                        case .completed(let record):
                            let expected = grants.withLock { $0[number] }
                            if record.outcome != expected.map({ outcome("\($0)") }) {
                                wrong.withLock { $0.append("order \(number) replays \(record.outcome.debugDescription)") }
                            }
                        case .inProgress: break
                        default: wrong.withLock { $0.append("order \(number): \(result)") }
                        }
                    }
                }
            }
            group.addTask {
                var generator = SplitMix64(seed: 99)
                var moves = 0
                defer { isOver.withLock { $0 = true } }
                // However slow the machine is: so many moves, under so many claims.
                while ContinuousClock.now < start + .seconds(Self.seconds) || sharded.map.epoch < 5 || claims.withLock({ $0 }) <= 1000 {
                    let first = Int(generator.next() % 900)
                    let report = try await sharded.move(Set(first..<first + 100), to: moves % 2 == 0 ? "b" : "a")
                    frozen.withLock { $0.append(report.frozen) }
                    if let leftovers = report.leftovers { wrong.withLock { $0.append("\(leftovers)") } }
                    moves += 1
                }
            }
            try await group.waitForAll()
        }
        let total = claims.withLock { $0 }
        let rate = Double(total) / ((ContinuousClock.now - start) / .seconds(1))
        let longest = frozen.withLock { $0.max() ?? .zero }
        print(
            "shards: \(total) claims (\(Int(rate)) a second), \(grants.withLock { $0.count }) granted, \(frozen.withLock { $0.count }) moves, frozen for \(longest) at most, map of epoch \(sharded.map.epoch)"
        )
        #expect(wrong.withLock { Array($0.prefix(5)) } == [])
        #expect(sharded.map.epoch >= 5 && total > 1000)

        // Both processes of before and after a restart agree on every key.
        for (_, store) in stores { await store.close() }
        let reopened = [(name: "a", store: try await open("a")), (name: "b", store: try await open("b"))]
        let again = try await Sharded(reopened, home: "a")
        #expect(again.map == sharded.map)
        for (number, epoch) in grants.withLock({ $0 }).prefix(2000) {
            let record = try await again.record(of: key("order \(number)", scope: "tenant"))
            #expect(record?.outcome == outcome("\(epoch)"))
        }
        for (_, store) in reopened { await store.close() }
    }

    @Test("is refused, and leaves everything where it is, when a record cannot be read (H58)")
    func damage() async throws {
        let id = key("damaged")
        do {
            let store = try await open("a")
            try await store.finish(id)
            try await store.finish(key("whole"))
            await store.close()
        }
        try RawDatabase(path: "\(folder.path)/a.db").plant(state: 200, in: id)
        let stores = [(name: "a", store: try await open("a")), (name: "b", store: try await open("b"))]
        let sharded = try await Sharded([stores[0]], home: "a")
        let wider = try await Sharded(stores, home: "a")
        let error = await #expect(throws: StoreError.self) { try await wider.move(Set(0..<ShardMap.slotCount), to: "b") }
        #expect(error?.code == .damaged)
        #expect(wider.map == sharded.map)
        guard case .unreadable = try await wider.claim(request(id)) else { return _ = Issue.record("the key fails closed") }
        let other = Set(0..<ShardMap.slotCount).subtracting([ShardMap.slot(of: id)])
        #expect(try await wider.move(other, to: "b").leftovers == nil)
        for (_, store) in stores { await store.close() }
    }
}
