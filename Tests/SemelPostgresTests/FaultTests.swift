#if Postgres
import Foundation
import Semel
@testable import SemelPostgres
import Testing
import TestProxy
import TestServers

@Suite("The store on PostgreSQL when the server or the way to it fails", .serialized)
struct FaultTests {
    /// What callers were told, against what the server holds.
    private final class Ledger: Sendable {
        private struct State {
            var granted: [OperationID: FencingToken] = [:]
            var completed: [OperationID: String] = [:]
            var failures = 0
            var codes: Set<StoreError.Code> = []
            var lastSuccess = ContinuousClock.now
        }
        private let state = Locked(State())

        func grant(_ id: OperationID, _ token: FencingToken) { state.withLock { $0.granted[id] = token } }
        func complete(_ id: OperationID, _ text: String) {
            state.withLock { state in
                state.completed[id] = text
                state.lastSuccess = .now
            }
        }
        func fail(_ error: StoreError) {
            state.withLock { state in
                state.failures += 1
                state.codes.insert(error.code)
            }
        }
        var successes: Int { state.withLock { $0.completed.count } }
        var failures: Int { state.withLock { $0.failures } }
        var codes: Set<StoreError.Code> { state.withLock { $0.codes } }
        var completed: [OperationID: String] { state.withLock { $0.completed } }
        func succeeded(after time: ContinuousClock.Instant) -> Bool { state.withLock { $0.lastSuccess > time } }
    }

    /// Claims and completes fresh keys from several tasks until told to stop; whatever is not certain is said again.
    private func traffic(_ store: PostgresStore, _ ledger: Ledger, until isOver: Locked<Bool>, tasks: Int = 8) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for task in 0..<tasks {
                group.addTask {
                    var number = 0
                    while !isOver.withLock({ $0 }) {
                        number += 1
                        // Others test at the same time.
                        try await Task.sleep(for: .milliseconds(3))
                        let id = key("\(task)-\(number)")
                        let claim = request(id)
                        let grant: Grant
                        do {
                            grant = try await Self.persisting(ledger) { () async throws(StoreError) in
                                switch try await store.claim(claim) {
                                case .granted(let grant): return grant
                                case let other: throw StoreError(.refused, "a fresh key was answered \(other)")
                                }
                            }
                        }
                        let result = try await Self.persisting(ledger) { () async throws(StoreError) in
                            try await store.apply(.complete(outcome(id.key.text)), to: id, token: grant.token)
                        }
                        guard result == .applied else { throw Unexpected(description: "\(id) was \(result)") }
                        ledger.complete(id, id.key.text)
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    private static func persisting<Value: Sendable>(_ ledger: Ledger, _ body: () async throws(StoreError) -> Value) async throws -> Value {
        for _ in 0..<200 {
            do throws(StoreError) {
                return try await body()
            } catch {
                ledger.fail(error)
                guard error.isTransient else { throw error }
                try await Task.sleep(for: .milliseconds(50))
            }
        }
        throw Unexpected(description: "the server does not come back")
    }

    /// Every outcome that was acknowledged is there, and every record is one that somebody was told of.
    private func check(_ ledger: Ledger, in store: PostgresStore) async throws {
        for (id, text) in ledger.completed {
            let replay = try await store.claim(request(id))
            guard case .completed(let record) = replay, record.outcome == outcome(text), record.attempt == 1 else {
                throw Unexpected(description: "\(id.key.text) was acknowledged, and now it is \(replay)")
            }
        }
        let live = try await store.operations(OperationQuery(states: [.claimed, .verifying, .streaming, .uncertain])).operations
        #expect(live.isEmpty, "left over: \(live.map(\.id.key.text))")
    }

    private func run(
        _ store: PostgresStore, _ faults: @escaping @Sendable (Ledger) async throws -> Void
    ) async throws -> Ledger {
        let ledger = Ledger()
        let isOver = Locked(false)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await traffic(store, ledger, until: isOver) }
            group.addTask {
                do {
                    try await faults(ledger)
                    // Successes after the last fault are required.
                    let last = ContinuousClock.now
                    for _ in 0..<20_000 where !ledger.succeeded(after: last) { try await Task.sleep(for: .milliseconds(10)) }
                    if !ledger.succeeded(after: last) { throw Unexpected(description: "nothing succeeds after the last fault") }
                    try await Task.sleep(for: .milliseconds(200))
                } catch {
                    isOver.withLock { $0 = true }
                    throw error
                }
                isOver.withLock { $0 = true }
            }
            try await group.waitForAll()
        }
        #expect(ledger.successes > 100, "too little traffic")
        return ledger
    }

    private var brief: PostgresStore.Configuration {
        PostgresStore.Configuration(
            connections: 2, transactions: 2, patience: .milliseconds(500), connectLimit: .seconds(1), answerLimit: .seconds(1))
    }

    private func untilTraffic(_ ledger: Ledger, _ count: Int) async throws {
        let before = ledger.successes
        for _ in 0..<20_000 where ledger.successes < before + count { try await Task.sleep(for: .milliseconds(10)) }
        if ledger.successes < before + count { throw Unexpected(description: "the traffic came to a halt at \(ledger.successes)") }
    }

    @Test("killed with -9 in mid-traffic and started again, three times: nothing acknowledged is lost, nothing runs twice (H3, H14)")
    func killed() async throws {
        let server = Locked(try await TestServer("start-postgres"))
        let place = Place(server: server.withLock { $0.address }, brief)
        let store = try await place.open()
        let ledger = try await run(store) { ledger in
            for _ in 0..<3 {
                try await untilTraffic(ledger, 100)
                let victim = server.withLock { $0 }
                victim.signal(SIGKILL)
                try await victim.gone()
                let failures = ledger.failures
                for _ in 0..<20_000 where ledger.failures == failures { try await Task.sleep(for: .milliseconds(10)) }
                #expect(ledger.failures > failures, "the kill was not noticed")
                let next = try await victim.restarted()
                server.withLock { $0 = next }
            }
        }
        #expect(ledger.codes.isSubset(of: [.unavailable, .indeterminate]), "\(ledger.codes)")
        try await check(ledger, in: store)
        await store.close()
    }

    @Test("stopped with SIGSTOP past the limit for answers, and continued (H5)")
    func stopped() async throws {
        let server = try await TestServer("start-postgres")
        let store = try await Place(server: server.address, brief).open()
        let ledger = try await run(store) { ledger in
            for _ in 0..<2 {
                try await untilTraffic(ledger, 100)
                server.signal(SIGSTOP)
                let failures = ledger.failures
                for _ in 0..<20_000 where ledger.failures == failures { try await Task.sleep(for: .milliseconds(10)) }
                server.signal(SIGCONT)
                #expect(ledger.failures > failures, "the pause was not noticed")
            }
        }
        try await check(ledger, in: store)
        await store.close()
    }

    @Test("connections cut again and again, in the middle of answers")
    func cut() async throws {
        let place = try await Place(brief)
        await (try await place.open()).close()
        guard let port = URLComponents(string: place.url)?.port else { throw Unexpected(description: place.url) }
        let proxy = try TestProxy(to: port)
        let store = try await PostgresStore.open(place.url(through: proxy.port), configuration: brief)
        let ledger = try await run(store) { ledger in
            for round in 0..<12 {
                try await untilTraffic(ledger, 30)
                if round % 2 == 0 { proxy.cut() } else { proxy.cut(afterAnswerBytes: 100 + 37 * round) }
            }
        }
        #expect(proxy.cuts >= 12)
        try await check(ledger, in: store)
        await store.close()
        try await place.drop()
    }

    @Test("answers lost while what was asked happens: claims and completions are found out, not guessed (H14)")
    func lostAnswers() async throws {
        let place = try await Place(brief)
        await (try await place.open()).close()
        guard let port = URLComponents(string: place.url)?.port else { throw Unexpected(description: place.url) }
        let proxy = try TestProxy(to: port)
        let store = try await PostgresStore.open(place.url(through: proxy.port), configuration: brief)
        let ledger = try await run(store) { ledger in
            for _ in 0..<3 {
                try await untilTraffic(ledger, 60)
                proxy.mode = .dropAnswers
                let dropped = proxy.droppedBytes
                for _ in 0..<20_000 where proxy.droppedBytes == dropped { try await Task.sleep(for: .milliseconds(5)) }
                #expect(proxy.droppedBytes > dropped, "no answer was lost")
                proxy.cut()
                proxy.mode = .forward
            }
        }
        try await check(ledger, in: store)
        await store.close()
        try await place.drop()
    }

    @Test("what a lost connection still had under way is ended before the same is said again, and never comes to effect late", .timeLimit(.minutes(5)))
    func lateStatement() async throws {
        let place = try await Place()
        await (try await place.open()).close()
        guard let port = URLComponents(string: place.url)?.port else { throw Unexpected(description: place.url) }
        let proxy = try TestProxy(to: port)
        let store = try await PostgresStore.open(place.url(through: proxy.port), configuration: .forTests)
        let grant = try await store.granted(request(key("held")))
        let schema = try Target(url: place.url, schema: "semel").schema
        /// The server's process that waits for the stranger's lock.
        func waiting() async throws -> String {
            for _ in 0..<12_000 {
                let found = try await place.run(
                    "SELECT pid::text FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%\(schema)%' AND query LIKE 'UPDATE%'")
                if let process = found.first?.first { return process }
                try await Task.sleep(for: .milliseconds(10))
            }
            throw Unexpected(description: "nobody waits for the lock")
        }
        let isOver = Locked(false)
        async let stranger: Void = place.holding("SELECT FROM {schema}.record FOR UPDATE", until: isOver)
        // The stranger has its lock once another cannot have it.
        while try await place.run("SELECT 1::text FROM {schema}.record FOR UPDATE SKIP LOCKED").count > 0 {
            try await Task.sleep(for: .milliseconds(10))
        }
        async let result = store.apply(.complete(outcome("done")), to: key("held"), token: grant.token)
        let first = try await waiting()
        proxy.cut()
        var second = first
        while second == first { second = try await waiting() }
        #expect(try await place.run("SELECT pid::text FROM pg_stat_activity WHERE pid = \(first)") == [])
        isOver.withLock { $0 = true }
        try await stranger
        #expect(try await result == .applied)
        await store.close()
        try await place.drop()
    }

    @Test("a server that is not there is said to be unavailable, in time; it is used again when it is back")
    func absent() async throws {
        let place = try await Place(brief)
        await (try await place.open()).close()
        guard let port = URLComponents(string: place.url)?.port else { throw Unexpected(description: place.url) }
        let proxy = try TestProxy(to: port)
        let store = try await PostgresStore.open(place.url(through: proxy.port), configuration: brief)
        _ = try await store.granted(request(key("before")))
        proxy.mode = .refuse
        proxy.cut()
        let start = ContinuousClock.now
        for _ in 0..<2 {
            let error = await #expect(throws: StoreError.self) { _ = try await store.claim(request(key("during"))) }
            #expect(error?.isTransient == true, "\(String(describing: error))")
        }
        #expect(ContinuousClock.now - start < .seconds(60))
        #expect(await !store.health().isReady)
        proxy.mode = .forward
        _ = try await store.granted(request(key("after")))
        #expect(await store.health().isReady)
        await store.close()
        try await place.drop()
    }

    @Test("a COMMIT of a caller's own writes whose answer is lost is found out: body and record are there once (H14)")
    func lostCommit() async throws {
        let place = try await Place(brief)
        await (try await place.open()).close()
        try await place.run("CREATE TABLE {schema}.account (name text PRIMARY KEY, balance bigint NOT NULL)", "INSERT INTO {schema}.account VALUES ('a', 0)")
        guard let port = URLComponents(string: place.url)?.port else { throw Unexpected(description: place.url) }
        let proxy = try TestProxy(to: port)
        let url = place.url(through: proxy.port)
        let schema = try Target(url: url, schema: "semel").quotedSchema
        for (round, isBeforeCommit) in [true, false, true, false].enumerated() {
            // The answer to COMMIT is lost, or everything from COMMIT on.
            let hits = Locked(0)
            let environment = Environment(
                clock: ContinuousClock(), random: { .random(in: 0 ... .max) },
                failpoints: Failpoints([
                    .beforeCommit: (1, .call { _ in
                        hits.withLock { $0 += 1 }
                        if isBeforeCommit { proxy.cut() } else { proxy.mode = .dropAnswers }
                    })
                ]))
            let store = try await PostgresStore.open(url, configuration: brief, environment: environment)
            async let result = store.perform(request(key("round \(round)"))) { transaction, _ in
                try transaction.execute("UPDATE \(schema).account SET balance = balance + 1")
                return .commit(outcome("done"))
            }
            if !isBeforeCommit {
                for _ in 0..<20_000 where proxy.droppedBytes == 0 || hits.withLock({ $0 }) == 0 { try await Task.sleep(for: .milliseconds(5)) }
                try await Task.sleep(for: .milliseconds(50))
                proxy.cut()
                proxy.mode = .forward
            }
            guard case .performed(let recorded, _) = try await result else { throw Unexpected(description: "not performed") }
            #expect(recorded == outcome("done"))
            #expect(hits.withLock { $0 } == 1, "the fault did not happen")
            #expect(try await place.run("SELECT balance::text FROM {schema}.account") == [["\(round + 1)"]])
            await store.close()
        }
        try await place.drop()
    }
}
#endif
