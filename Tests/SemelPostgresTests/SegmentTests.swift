#if Postgres
import Foundation
import Semel
@testable import SemelPostgres
import Testing

@Suite("Segments of keys in PostgreSQL")
struct SegmentTests {
    private func small(_ keys: Int) -> PostgresStore.Configuration {
        var configuration = PostgresStore.Configuration.forTests
        configuration.segmentKeys = keys
        return configuration
    }

    private func segments(_ place: Place) async throws -> [String] {
        try await place.run("SELECT number::text FROM {schema}.segment ORDER BY number").map { $0[0] }
    }

    private func untilAllFilters(_ stores: PostgresStore...) async throws {
        for store in stores {
            for _ in 0..<2000 where !store.internals.segments.hasAllFilters { try await Task.sleep(for: .milliseconds(5)) }
            #expect(store.internals.segments.hasAllFilters, "the filters do not come")
        }
    }

    private func claimAndComplete(_ store: PostgresStore, _ name: String, retention: Retention? = nil) async throws {
        let grant = try await store.granted(request(key(name)))
        #expect(try await store.apply(.complete(outcome(name), retention: retention), to: key(name), token: grant.token) == .applied)
    }

    @Test("what is in sealed segments is found there, by this process and by others, with and without their filters")
    func sealed() async throws {
        let place = try await Place(small(3))
        let (first, second) = (try await place.open(), try await place.open())
        for number in 0..<60 { try await claimAndComplete(first, "\(number)") }
        #expect(try await segments(place).count >= 18)
        for isLoaded in [false, true] {
            if isLoaded { try await untilAllFilters(first, second) }
            for store in [first, second] {
                for number in 0..<60 {
                    guard case .completed(let record) = try await store.claim(request(key("\(number)"))) else { throw Unexpected(description: "\(number) ran again") }
                    #expect(record.outcome == outcome("\(number)"))
                    guard case .notRun(.completed) = try await store.perform(request(key("\(number)")), { _, _ in .commit(outcome("again")) }) else {
                        throw Unexpected(description: "\(number) ran again")
                    }
                    let statement = PostgresStatement("SELECT 1")
                    guard case .notRun(.completed) = try await store.perform(request(key("\(number)")), writing: [statement], recording: outcome("again")) else {
                        throw Unexpected(description: "\(number) ran again")
                    }
                }
            }
        }
        // Filters are kept, so that opening the store reads no keys.
        #expect(try await place.run("SELECT count(*)::text FROM {schema}.segment WHERE sealed IS NOT NULL AND filter IS NULL") == [["0"]])
        #expect(try await second.operations(OperationQuery(limit: 100)).operations.count == 60)
        for store in [first, second] { await store.close() }
        try await place.drop()
    }

    @Test("a segment whose records are all outlived is dropped whole; what is live in it moves on, and its holder completes it")
    func dropped() async throws {
        let place = try await Place(small(4))
        let (first, second) = (try await place.open(), try await place.open())
        let held = try await first.granted(request(key("held")))
        let brief = Retention(response: .milliseconds(1), key: .milliseconds(1))
        for number in 0..<100 { try await claimAndComplete(first, "\(number)", retention: brief) }
        let before = try await segments(place)
        #expect(before.count >= 20)
        try await Task.sleep(for: .milliseconds(20))
        var keys = 0
        for _ in 0..<5 { keys += try await second.purge(limit: 1000).keys }
        #expect(keys == 100)
        #expect(try await segments(place).count <= 2)
        #expect(try await segments(place).contains(before[0]) == false)
        #expect(try await place.run("SELECT count(*)::text FROM {schema}.record") == [["1"]])
        for store in [first, second] {
            guard case .inProgress = try await store.claim(request(key("held"))) else { throw Unexpected(description: "it is held") }
        }
        #expect(try await first.apply(.complete(outcome("late")), to: key("held"), token: held.token) == .applied)
        // Outlived keys run again.
        for number in 0..<100 { _ = try await first.granted(request(key("\(number)"))) }
        for store in [first, second] { await store.close() }
        try await place.drop()
    }

    @Test("the first version's table becomes sealed segments, one for each of its parts", arguments: [1, 3])
    func migrated(partitions: Int) async throws {
        let place = try await Place()
        let target = try Target(url: place.url, schema: "semel")
        let connection = try Connection(to: target, within: .seconds(60), uptime: Semel.Environment.live.uptime, name: "semel test")
        try Schema.migrate(connection, at: target, to: 1, partitions: partitions, within: .seconds(60))
        let (old, live) = try Self.rows()
        for (_, values) in old {
            try await place.run("INSERT INTO {schema}.policy (hash, scene, text) VALUES ('\(values.policy)', 'payments', 'rules') ON CONFLICT DO NOTHING")
            try await place.run("INSERT INTO {schema}.record VALUES (\(values.row))")
        }
        #expect(try await PostgresStore.migrate(place.url, configuration: .forTests) == (1, 2))
        let store = try await place.open()
        #expect(try await segments(place).count == (partitions == 1 ? 2 : partitions + 1))
        for isLoaded in [false, true] {
            if isLoaded { try await untilAllFilters(store) }
            for (id, _) in old {
                let answer = try await store.claim(request(id))
                if id == live {
                    guard case .inProgress = answer else { throw Unexpected(description: "\(answer)") }
                } else {
                    guard case .completed(let record) = answer else { throw Unexpected(description: "\(answer)") }
                    #expect(record.outcome == outcome(id.key.text))
                }
            }
        }
        _ = try await store.granted(request(key("new")))
        await store.close()
        try await place.drop()
    }

    /// Rows as the first version wrote them: completed ones, and one that is held.
    private static func rows() throws -> (rows: [(OperationID, (row: String, policy: String))], live: OperationID) {
        func hex(_ bytes: [UInt8]) -> String { "'\\x" + bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() + "'" }
        func uuid(_ reference: OperationReference) -> String { String(reference.description.dropFirst(3)) }
        let now = Int64(Date().timeIntervalSince1970 * 1_000_000)
        let live = key("30")
        let hash = uuid(OperationReference(high: pinned.hash.high, low: pinned.hash.low))
        let rows = try (0...30).map { number -> (OperationID, (row: String, policy: String)) in
            let id = key("\(number)")
            let time = StoreTime(Timestamp(microseconds: now))
            guard case (_, .put(var record)) = RecordMachine.claim(
                request(id), on: nil, at: time, liveRecords: { 0 }, nextEpoch: { $0.next(at: time.retention, in: Incarnation(rawValue: 0)) })
            else { throw Unexpected(description: "an absent key is granted") }
            if id != live {
                let transition = Transition(id: id, token: record.token, change: .complete(outcome("\(number)")))
                guard case (.applied, .put(let completed)) = RecordMachine.apply(transition, to: record, at: time) else { throw Unexpected(description: "completed") }
                record = completed
            }
            let row = Row(id, OperationReference(id), record, policy: 1)
            let owner = uuid(OperationReference(high: row.owner.high, low: row.owner.low))
            return (
                id,
                (
                    "\(row.epoch), \(row.due), \(row.response), \(row.key), '\(uuid(row.id))', '\(owner)', \(row.state), \(hex(row.head)), \(row.outcome.map(hex) ?? "NULL")",
                    hash
                )
            )
        }
        return (rows, live)
    }

    // MARK: The race

    /// What the claims of a race were answered.
    private final class Ledger: Sendable {
        struct State {
            var winners: [Int: Int] = [:]
            var tokens: [Int: FencingToken] = [:]
            var claims = 0
        }
        let state = Locked(State())

        func answered(_ key: Int, _ token: FencingToken?) {
            state.withLock { state in
                state.claims += 1
                guard let token else { return }
                state.winners[key, default: 0] += 1
                state.tokens[key] = token
            }
        }
    }

    private struct Race {
        var claims = 0
        var keys = 0
        var rotations = 0
        var drops = 0
        /// Keys with more or fewer winners than one.
        var wrong: [String] = []
    }

    /// Races claims of the same keys by several stores against each other, and against rotations and drops.
    private func race(claims: Int, in place: Place) async throws -> Race {
        let claimants = 8
        let keysPerRound = claims > 200_000 ? 400 : 40
        let rounds = max(1, claims / (claimants * keysPerRound))
        var place = place
        place.configuration.segmentKeys = max(20, rounds * keysPerRound / 80)
        var stores: [PostgresStore] = []
        for _ in 0..<3 { stores.append(try await place.open()) }
        let driver = try AnotherDriver(place)
        let ledger = Ledger()
        let isOver = Locked(false)
        let brief = Retention(response: .milliseconds(1), key: .milliseconds(1))
        let housekeeper = stores[0]
        async let purges: Void = {
            while !isOver.withLock({ $0 }) {
                try await housekeeper.purge(limit: 100_000)
                try await Task.sleep(for: .milliseconds(20))
            }
        }()
        // Those that are held for some time are claimed again and again: they move with every drop.
        var held: [Int] = []
        var race = Race()
        do {
            for round in 0..<rounds where race.wrong.isEmpty {
                let fresh = Array(round * keysPerRound..<(round + 1) * keysPerRound)
                let former = Array(held.shuffled().prefix(4))
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for claimant in 0..<claimants {
                        let store = stores[claimant % stores.count]
                        let numbers = (fresh + former).shuffled()
                        // Long transactions: a claim is open for a while before it is committed.
                        let isSlow = claimant == round % claimants
                        group.addTask {
                            var numbers = numbers[...]
                            if isSlow, let number = numbers.popFirst() {
                                _ = try await driver.run("BEGIN", [])
                                let claim = try await store.claim(request(key("\(number)"), lease: .seconds(3600)), in: driver)
                                _ = try await driver.run("SELECT pg_sleep(0.004)::text", [])
                                _ = try await driver.run("COMMIT", [])
                                if case .granted(let open) = claim { ledger.answered(number, open.grant.token) } else { ledger.answered(number, nil) }
                            }
                            // Lone claims, small batches and large ones.
                            var size = [1, 7, 44][claimant % 3]
                            while !numbers.isEmpty {
                                let part = Array(numbers.prefix(size))
                                numbers = numbers.dropFirst(size)
                                size = keysPerRound > 40 ? size * 2 : size
                                let results = try await store.claim(part.map { request(key("\($0)"), lease: .seconds(3600)) })
                                for (number, result) in zip(part, results) {
                                    if case .granted(let grant) = result { ledger.answered(number, grant.token) } else { ledger.answered(number, nil) }
                                }
                            }
                        }
                    }
                    try await group.waitForAll()
                }
                let (winners, tokens) = ledger.state.withLock { ($0.winners, $0.tokens) }
                race.wrong = (fresh + former).filter { winners[$0] != 1 }.map { "key \($0) in round \(round): \(winners[$0] ?? 0) winners" }
                held.append(fresh[0])
                // Most are completed and soon outlived, so that their segments can leave; of those held, the oldest go.
                let leaving = fresh.dropFirst() + (held.count > 100 ? held.prefix(50) : [])
                if held.count > 100 { held.removeFirst(50) }
                _ = try await stores[round % stores.count].apply(
                    leaving.compactMap { number in
                        tokens[number].map { Transition(id: key("\(number)"), token: $0, change: .complete(outcome("done"), retention: brief)) }
                    })
            }
        } catch {
            isOver.withLock { $0 = true }
            // What went wrong first is told.
            _ = try? await purges
            throw error
        }
        isOver.withLock { $0 = true }
        // Without the lock a key can be in two segments, and cannot move to where it is already.
        do { try await purges } catch { race.wrong.append("\(error)") }
        for _ in 0..<3 where race.wrong.isEmpty { try await housekeeper.purge(limit: 100_000) }
        race.wrong += try await place.run("SELECT id::text FROM {schema}.record GROUP BY id HAVING count(*) > 1").map { "\($0[0]) has two records" }
        let segments = try await place.run("SELECT max(number)::text, count(*)::text FROM {schema}.segment")[0].compactMap { Int($0) }
        race.rotations = segments[0] - 1
        race.drops = segments[0] - segments[1]
        (race.claims, race.keys) = ledger.state.withLock { ($0.claims, $0.winners.count) }
        for store in stores { await store.close() }
        try await place.drop()
        return race
    }

    /// `SEMEL_TEST_SEGMENT_CLAIMS` says how many claims race.
    @Test("claims of the same keys by several processes race rotations and drops: each key has one winner (H1, H23)")
    func race() async throws {
        let claims = ProcessInfo.processInfo.environment["SEMEL_TEST_SEGMENT_CLAIMS"].flatMap { Int($0) } ?? 10_000
        let start = ContinuousClock.now
        let race = try await race(claims: claims, in: try await Place())
        print(
            "segments: \(race.claims) claims of \(race.keys) keys, \(race.rotations) rotations, \(race.drops) drops, in \(ContinuousClock.now - start)")
        #expect(race.wrong.isEmpty, "\(race.wrong)")
        #expect(race.claims >= claims * 9 / 10)
        #expect(race.rotations >= (claims >= 1_000_000 ? 50 : 10), "too few rotations")
        #expect(race.drops >= (claims >= 1_000_000 ? 20 : 3), "too few drops")
    }
}
#endif
