#if Postgres
import ChildProcesses
import Foundation
import Semel
@testable import SemelPostgres
import SemelTesting
import Testing
import TestProxy
import TestServers

@Suite("The store on PostgreSQL when the server or the way to it fails", .serialized)
struct FaultTests {
    private var brief: PostgresStore.Configuration {
        PostgresStore.Configuration(
            connections: 2, transactions: 2, patience: .milliseconds(500), connectLimit: .seconds(1), answerLimit: .seconds(1))
    }

    @Test("killed with -9 in mid-traffic and started again, twice: nothing acknowledged is lost, nothing runs twice (H3, H14)")
    func killed() async throws {
        let server = Locked(try await TestServer("start-postgres"))
        let store = try await Place(server: server.withLock { $0.address }, brief).open()
        try await FaultTrial().run(store) { load in
            for _ in 0..<2 {
                try await load.untilCompleted(100)
                let victim = server.withLock { $0 }
                victim.signal(SIGKILL)
                try await victim.gone()
                try await load.untilErrors()
                let next = try await victim.restarted()
                server.withLock { $0 = next }
            }
        }
        await store.close()
    }

    @Test("stopped with SIGSTOP past the limit for answers, and continued (H5)")
    func stopped() async throws {
        let server = try await TestServer("start-postgres")
        let store = try await Place(server: server.address, brief).open()
        try await FaultTrial().run(store) { load in
            for _ in 0..<2 {
                try await load.untilCompleted(100)
                server.signal(SIGSTOP)
                defer { server.signal(SIGCONT) }
                try await load.untilErrors()
            }
        }
        await store.close()
    }

    /// A store that reaches the server of the run through a proxy.
    private func throughProxy(connections: Int = 2, _ body: (PostgresStore, TestProxy) async throws -> Void) async throws {
        let place = try await Place(brief)
        await (try await place.open()).close()
        guard let port = URLComponents(string: place.url)?.port else { throw Unexpected(description: place.url) }
        let proxy = try TestProxy(to: port)
        var configuration = brief
        configuration.connections = connections
        let store = try await PostgresStore.open(place.url(through: proxy.port), configuration: configuration)
        try await body(store, proxy)
        await store.close()
        try await place.drop()
    }

    @Test("connections cut again and again, in the middle of answers (H14)")
    func cut() async throws {
        try await throughProxy { store, proxy in
            try await FaultTrial().run(store) { load in try await proxy.cut(rounds: 12) { try await load.untilCompleted(30) } }
            #expect(proxy.cuts >= 12)
        }
    }

    @Test("answers lost while what is asked happens: claims and completions are found out, not guessed (H14)")
    func lostAnswers() async throws {
        try await throughProxy { store, proxy in
            try await FaultTrial().run(store) { load in try await proxy.loseAnswers(rounds: 3) { try await load.untilCompleted(60) } }
            #expect(proxy.droppedBytes > 0)
        }
    }

    // MARK: A full disk

    /// A store on a server whose files lie on a small disk.
    private func onSmallDisk(_ body: (PostgresStore, SmallDisk, Locked<TestServer>, Place) async throws -> Void) async throws {
        try await SmallDisk.with(megabytes: 200) { disk in
            let server = Locked(try await TestServer("start-postgres", on: disk.folder))
            let place = Place(server: server.withLock { $0.address }, brief)
            let store = try await place.open()
            try await body(store, disk, server, place)
            await store.close()
        }
    }

    private let underFullDisk = FaultTrial(bodyBytes: 8000, expectedErrors: [.full, .unavailable, .indeterminate])

    @Test("a disk on which no table can grow: what does not fit is refused as full, nothing acknowledged is lost, and with space it goes on (H17)")
    func full() async throws {
        try await onSmallDisk { store, disk, _, _ in
            let load = try await underFullDisk.run(store) { load in
                try await load.untilCompleted(50)
                try disk.fill(leaving: 2 << 20)
                try await load.untilErrors(50, .full)
                try await load.replay()
                try disk.free()
            }
            #expect(load.message(.full)?.contains("free some space") == true)
        }
    }

    @Test("a disk on which the log cannot grow stops the server: unavailable, and with space and a start it goes on (H17)")
    func fullLog() async throws {
        try await onSmallDisk { store, disk, server, place in
            let load = try await underFullDisk.run(store) { load in
                try await load.untilCompleted(50)
                try disk.fill()
                // Each of these asks for a new file of the log; the last one there is no space for.
                var stops = 0
                while load.errors[.unavailable, default: 0] + load.errors[.indeterminate, default: 0] == 0, stops < 100 {
                    stops += 1
                    do { try await place.run("SELECT pg_switch_wal()") } catch { break }
                }
                try await load.untilErrors(10)
                try disk.free()
                // It may have given up trying to recover by itself.
                let completed = load.completed
                while load.completed < completed + 20 {
                    let current = server.withLock { $0 }
                    if current.isGone {
                        let next = try await current.restarted()
                        server.withLock { $0 = next }
                    }
                    try await Task.sleep(for: .milliseconds(50))
                }
            }
            #expect(load.errors[.unavailable, default: 0] + load.errors[.indeterminate, default: 0] > 0, "the server did not stop")
        }
    }

    // MARK: Single calls

    @Test("claims that are committed when the connection is lost before their answer are in doubt, not said to be undone (H14)")
    func lostAfterCommit() async throws {
        try await throughProxy(connections: 1) { store, proxy in
            _ = try await store.granted(request(key("warm")))
            // So many take long, and long ones are given an epoch drawn after their commit.
            let claims = (0..<600).map { request(key("\($0)")) }
            proxy.mode = .refuse
            proxy.cut(whenSaid: "semel_restamp", isHeard: false)
            let error = await #expect(throws: StoreError.self) { try await store.claim(claims) }
            #expect(error?.code == .indeterminate)
            #expect(proxy.cuts == 1)
            proxy.mode = .forward
            for case .granted(let grant) in try await store.claim(claims) { #expect(grant.kind == .again) }
        }
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
