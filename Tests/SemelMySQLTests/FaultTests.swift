#if MySQL
import ChildProcesses
import Foundation
import Semel
@testable import SemelMySQL
import SemelTesting
import TestProxy
import TestServers
import Testing

@Suite("Faults of the server and of the way to it, on the store in MariaDB")
struct FaultTests {
    // MARK: Answers that are lost

    /// A store that reaches its server through a proxy, and another that reaches it directly.
    private func throughProxy(
        _ configuration: MySQLStore.Configuration = quiet(), _ body: (MySQLStore, _ direct: MySQLStore, TestProxy, _ url: String) async throws -> Void
    ) async throws {
        try await withDatabase { url in
            let parts = url.split(separator: ":")
            let end = parts.last!.split(separator: "/")
            let proxy = try TestProxy(to: Int(end[0])!)
            defer { proxy.end() }
            let direct = try await MySQLStore(url: url, configuration: quiet())
            let store = try await MySQLStore(url: "mysql://root@127.0.0.1:\(proxy.port)/\(end[1])", configuration: configuration)
            try await body(store, direct, proxy, url)
            await store.close()
            await direct.close()
        }
    }

    @Test("a claim whose COMMIT went unanswered is granted all the same, and to nobody else (H14, R11)")
    func lostClaim() async throws {
        try await throughProxy { store, direct, proxy, _ in
            _ = try await store.granted(request(key("warm")))
            proxy.cut(whenSaid: "COMMIT", isHeard: true)
            let grant = try await store.granted(request(key("a")))
            #expect(proxy.cuts == 1)
            guard case .inProgress = try await direct.claim(request(key("a"), 2)) else { return _ = Issue.record("it was granted twice") }
            proxy.cut(whenSaid: "COMMIT", isHeard: true)
            #expect(try await store.apply(.complete(outcome("done"), retention: Retention(response: .zero, key: .seconds(60))), to: key("a"), token: grant.token) == .applied)
            #expect(proxy.cuts == 2)
            #expect(try await direct.claim(request(key("a"), 2)) == .expired)
        }
    }

    @Test("a claim whose COMMIT never arrived is granted once it has, and its old transaction never comes to effect")
    func lostStatement() async throws {
        try await throughProxy { store, direct, proxy, _ in
            _ = try await store.granted(request(key("warm")))
            proxy.cut(whenSaid: "COMMIT", isHeard: false)
            let grant = try await store.granted(request(key("a")))
            #expect(proxy.cuts == 1)
            #expect(try await direct.record(of: key("a"))?.token == grant.token)
        }
    }

    @Test(
        "each transition whose COMMIT went unanswered is answered as what it did",
        arguments: [Transition.Change.release, .suspend(reason: "lost"), .stream, .renew(.seconds(60)), .complete(outcome("x"))])
    func lostTransition(_ change: Transition.Change) async throws {
        try await throughProxy { store, direct, proxy, _ in
            let grant = try await store.granted(request(key("a")))
            proxy.cut(whenSaid: "COMMIT", isHeard: true)
            #expect(try await store.apply(change, to: key("a"), token: grant.token) == .applied)
            #expect(proxy.cuts == 1)
            if case .release = change { #expect(try await direct.record(of: key("a")) == nil) }
        }
    }

    @Test("an operator's act and a verification whose COMMIT went unanswered are done once, with one audit entry")
    func lostActs() async throws {
        try await throughProxy { store, direct, proxy, _ in
            for id in ["a", "b"] {
                let grant = try await store.granted(request(key(id)))
                _ = try await store.apply(.suspend(reason: "lost"), to: key(id), token: grant.token)
            }
            proxy.cut(whenSaid: "COMMIT", isHeard: true)
            let act = OperatorAct(actor: "olga", reason: "looked")
            #expect(try await store.resolve(key("a"), as: .notApplied, by: act) == .applied)
            #expect(try await direct.audit(after: 0, limit: 9).map(\.action) == ["resolve-not-applied"])
            proxy.cut(whenSaid: "COMMIT", isHeard: true)
            let grant = try #require(try await store.verify(key("b"), owner: Owner(high: 5, low: 5), lease: .seconds(30)))
            #expect(try await direct.record(of: key("b"))?.token == grant.token)
            #expect(proxy.cuts == 2)
        }
    }

    @Test("a caller's transaction whose COMMIT went unanswered took effect once, and is answered as what it did")
    func lostTransaction() async throws {
        try await throughProxy { store, direct, proxy, url in
            try await withConnection(to: url) { try $0.execute("CREATE TABLE counter (n INT)") }
            let runs = Locked(0)
            for (number, (words, isHeard)) in [("COMMIT", true), ("COMMIT", false), ("INSERT INTO counter", true)].enumerated() {
                runs.withLock { $0 = 0 }
                proxy.cut(whenSaid: words, isHeard: isHeard)
                let result = try await store.perform(request(key("\(number)"))) { transaction, _ in
                    runs.withLock { $0 += 1 }
                    try transaction.execute("INSERT INTO counter VALUES (\(number))")
                    return .commit(outcome("\(number)"))
                }
                #expect(proxy.cuts == number + 1)
                guard case .performed(outcome("\(number)"), _) = result else { return _ = Issue.record("\(result)") }
                let rows = try await direct.read { try $0.query("SELECT COUNT(*) FROM counter WHERE n = \(number)")[0][0] }
                #expect(rows == 1)
                #expect(runs.withLock { $0 } == (number == 0 ? 1 : 2))
            }
        }
    }

    // MARK: Servers that are killed, stopped, started again

    /// Gives up soon.
    private let brief = MySQLStore.Configuration(connections: 2, timeout: .seconds(1), patience: .seconds(1), purgesByItself: false)

    @Test("killed with -9 under load and started again, twice: nothing acknowledged is lost, nothing runs twice (H3, H13, H14)")
    func killed() async throws {
        let server = Locked(try await ownServer())
        let store = try await ownStore(on: server.withLock { $0.address }, brief)
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
        let server = try await ownServer()
        let store = try await ownStore(on: server.address, brief)
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

    @Test("connections cut again and again, in the middle of answers (H14)")
    func cut() async throws {
        try await throughProxy(brief) { store, _, proxy, _ in
            try await FaultTrial().run(store) { load in try await proxy.cut(rounds: 12) { try await load.untilCompleted(30) } }
            #expect(proxy.cuts >= 12)
        }
    }

    @Test("answers lost while what is asked happens: claims and completions are found out, not guessed (H14)")
    func lostAnswers() async throws {
        try await throughProxy(brief) { store, _, proxy, _ in
            try await FaultTrial().run(store) { load in try await proxy.loseAnswers(rounds: 3) { try await load.untilCompleted(60) } }
            #expect(proxy.droppedBytes > 0)
        }
    }

    // MARK: A full disk

    private let underFullDisk = FaultTrial(bodyBytes: 8000, expectedErrors: [.full, .unavailable, .indeterminate])

    @Test("a disk on which no table can grow: what does not fit is refused as full, nothing acknowledged is lost, and with space it goes on (H17)")
    func full() async throws {
        try await SmallDisk.with(megabytes: 300) { log in
            try await SmallDisk.with(megabytes: 300) { disk in
                // The binary log lies elsewhere: it would be what fills first.
                try FileManager.default.setAttributes([.posixPermissions: 0o777], ofItemAtPath: log.folder.path)
                let server = try await ownServer("--log-bin=\(log.folder.path)/bin", on: disk.folder)
                let store = try await ownStore(on: server.address, brief)
                let load = try await underFullDisk.run(store) { load in
                    try await load.untilCompleted(50)
                    try disk.fill(leaving: 2 << 20)
                    try await load.untilErrors(50, .full)
                    try await load.replay()
                    try disk.free()
                }
                #expect(load.message(.full)?.contains("free some space") == true)
                await store.close()
                server.stop()
            }
        }
    }

    @Test("a disk on which the binary log cannot grow: the server hangs, calls end in time, and with space and a start it goes on (H17)")
    func fullLog() async throws {
        try await SmallDisk.with(megabytes: 300) { log in
            try FileManager.default.setAttributes([.posixPermissions: 0o777], ofItemAtPath: log.folder.path)
            let server = Locked(try await ownServer("--log-bin=\(log.folder.path)/bin"))
            let store = try await ownStore(on: server.withLock { $0.address }, brief)
            try await FaultTrial(bodyBytes: 8000).run(store) { load in
                try await load.untilCompleted(50)
                try log.fill(leaving: 1 << 18)
                try await load.untilErrors(10)
                // With space it would go on by itself, when it looks again: once a minute.
                let victim = server.withLock { $0 }
                victim.signal(SIGKILL)
                try await victim.gone()
                try log.free()
                let next = try await victim.restarted()
                server.withLock { $0 = next }
            }
            await store.close()
        }
    }

    // MARK: Single calls

    @Test("without a server every call ends in time, with an error that says so, and the health says so too")
    func gone() async throws {
        var server = try await ownServer()
        try await withDatabase(on: server.address) { url in
            let store = try await MySQLStore(
                url: url, configuration: .init(connections: 1, timeout: .seconds(1), patience: .milliseconds(300), purgesByItself: false))
            _ = try await store.granted(request(key("a")))
            server.signal(SIGKILL)
            try await server.gone()
            let start = ContinuousClock.now
            for _ in 0..<3 {
                let error = await #expect(throws: StoreError.self) { try await store.claim(request(key("b"))) }
                #expect(error?.code == .unavailable)
                #expect(error?.message.contains("Remedy") == true)
            }
            #expect(ContinuousClock.now - start < .seconds(60))
            #expect(await store.health().isReady == false)
            server = try await server.restarted()
            #expect(await store.health().isReady)
            guard case .inProgress = try await store.claim(request(key("a"), 2)) else { return _ = Issue.record("the claim is lost") }
            await store.close()
            await #expect { try await store.claim(request(key("a"))) } throws: { ($0 as? StoreError)?.code == .stopped }
        }
    }

    // MARK: Others in the way

    @Test("a batch that is undone by a deadlock is tried again, and answered as if nothing had been", .timeLimit(.minutes(5)))
    func deadlock() async throws {
        try await withDatabase { url in
            let store = try await MySQLStore(url: url, configuration: quiet(connections: 1))
            let ids = (0..<2).map { key("\($0)") }.sorted { RowID($0) < RowID($1) }
            let grants = [try await store.granted(request(ids[0])), try await store.granted(request(ids[1]))]
            let stranger = try await blocking { Held(try Connection(to: try Target(url: url), timeout: .seconds(60), counting: .changed)) }
            // It holds the later row, and has done much, so it is not the one that is undone.
            try await stranger.run { connection in
                try connection.execute("CREATE TABLE much (n INT)")
                try connection.execute("BEGIN")
                try connection.execute("INSERT INTO much SELECT seq FROM seq_1_to_5000")
                try connection.execute("SELECT * FROM semel_record WHERE id = X'\(hex(ids[1]))' FOR UPDATE")
            }
            async let results = store.apply(zip(ids, grants).map { Transition(id: $0, token: $1.token, change: .complete(outcome("done"))) })
            // It has the earlier row, and waits for the later.
            try await stranger.run { connection in
                let waiting = """
                    SELECT COUNT(*) FROM information_schema.innodb_trx t JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id
                    WHERE t.trx_state = 'LOCK WAIT' AND p.db = DATABASE()
                    """
                while try connection.rows(waiting)[0][0].integer == 0 { Thread.sleep(forTimeInterval: 0.15) }
            }
            let deadlocks = try await stranger.run { connection in
                try connection.execute("SELECT * FROM semel_record WHERE id = X'\(hex(ids[0]))' FOR UPDATE")
                let count = try connection.rows("SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'INNODB_DEADLOCKS'")[0][0]
                try connection.execute("ROLLBACK")
                return count
            }
            #expect(try await results == [.applied, .applied])
            #expect(deadlocks.text != "0")
            await store.close()
        }
    }

    @Test("a row that a stranger holds stops its own key, and no other of the same lane")
    func blocked() async throws {
        try await withDatabase { url in
            let store = try await MySQLStore(url: url, configuration: .init(connections: 1, patience: .milliseconds(500), purgesByItself: false))
            let grant = try await store.granted(request(key("held")))
            let stranger = try await blocking { Held(try Connection(to: try Target(url: url), timeout: .seconds(60), counting: .changed)) }
            try await stranger.run { connection in
                // Without locks on the gaps, into which others insert.
                try connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
                try connection.execute("BEGIN")
                try connection.execute("SELECT * FROM semel_record FOR UPDATE")
            }
            let stuck = Task { try await store.apply(.complete(outcome("")), to: key("held"), token: grant.token) }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<20 { group.addTask { try await store.finish(key("free-\(number)")) } }
                try await group.waitForAll()
            }
            let error = await #expect(throws: StoreError.self) { _ = try await stuck.value }
            #expect(error?.code == .unavailable)
            try await stranger.run { try $0.execute("ROLLBACK") }
            #expect(try await store.apply(.complete(outcome("")), to: key("held"), token: grant.token) == .applied)
            await store.close()
        }
    }

    private func hex(_ id: OperationID) -> String { RowID(id).bytes.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined() }

    /// A connection that stays open between the steps of a test, each on a thread of its own, one at a time.
    private final class Held: @unchecked Sendable {
        private let connection: Connection
        init(_ connection: Connection) { self.connection = connection }
        @discardableResult
        func run<Value: Sendable>(_ body: @escaping @Sendable (Connection) throws -> Value) async throws -> Value {
            try await blocking { [self] in try body(connection) }
        }
    }
}
#endif
