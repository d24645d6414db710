#if MySQL
import Foundation
import Semel
@testable import SemelMySQL
import Testing

@Suite("Performing an operation in the caller's own MariaDB transaction")
struct PerformInTransactionTests {
    private static let migrations = [
        [
            "CREATE TABLE account (name VARCHAR(20) PRIMARY KEY, balance BIGINT NOT NULL CHECK (balance >= 0), version BIGINT NOT NULL DEFAULT 0)",
            "INSERT INTO account (name, balance) VALUES ('a', 100), ('b', 0)",
        ]
    ]

    private func withStore(_ body: (MySQLStore, _ url: String) async throws -> Void) async throws {
        try await withDatabase { url in
            let store = try await MySQLStore(url: url, configuration: quiet(migrations: Self.migrations))
            try await body(store, url)
            await store.close()
        }
    }

    private func scene(_ store: MySQLStore) throws -> Scene {
        let scene = try Operations(store: store).scene(Policy(scene: "withdraw", effect: .localTransaction, minimum: .atomic))
        #expect(scene.guarantee == .atomic)
        return scene
    }

    private func withdraw(_ amount: Int64, key: String, _ scene: Scene, _ store: MySQLStore) async throws -> Performance<Int64> {
        try await scene.perform(key, payload: amount, inTransactionOf: store) { transaction in
            let balance = try transaction.query("SELECT balance FROM account WHERE name = ? FOR UPDATE", "a")[0][0].integer!
            guard balance >= amount else { throw PermanentFailure(code: "no-funds", message: "the balance is \(balance)") }
            let changed = try transaction.execute("UPDATE account SET balance = balance - ?, version = version + 1 WHERE name = ?", .integer(amount), "a")
            #expect(changed == 1)
            return balance - amount
        }
    }

    private func balance(_ store: MySQLStore) async throws -> Int64? {
        try await store.read { try $0.query("SELECT balance FROM account WHERE name = 'a'")[0][0].integer }
    }

    private struct Interrupted: Error {}

    @Test("writes and record are one: repeats replay, and the balance changes once (R14)")
    func once() async throws {
        try await withStore { store, _ in
            let scene = try scene(store)
            for attempt in 0..<3 {
                let result = try await withdraw(30, key: "w-1", scene, store)
                #expect(result.value == 70)
                if attempt > 0 { guard case .replayed = result else { return _ = Issue.record("it ran again") } }
            }
            #expect(try await balance(store) == 70)
        }
    }

    @Test("64 callers in two processes with one key withdraw once (H15)")
    func race() async throws {
        try await withStore { store, url in
            let other = try await MySQLStore(url: url, configuration: quiet(migrations: Self.migrations))
            let scenes = [(try scene(store), store), (try scene(other), other)]
            let values = try await withThrowingTaskGroup(of: Int64.self) { group in
                for number in 0..<64 {
                    let (scene, store) = scenes[number % 2]
                    group.addTask { try await withdraw(30, key: "w-1", scene, store).value }
                }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(values == Array(repeating: 70, count: 64))
            #expect(try await balance(store) == 70)
            await other.close()
        }
    }

    @Test("a permanent failure undoes the writes and is replayed, even when it would succeed now")
    func permanentFailure() async throws {
        try await withStore { store, _ in
            let scene = try scene(store)
            await #expect(throws: PermanentFailure.self) { _ = try await withdraw(500, key: "w-1", scene, store) }
            let failed = try await store.perform(request(key("half"))) { transaction, _ in
                try transaction.execute("UPDATE account SET balance = 1 WHERE name = 'a'")
                return .fail(outcome("no"))
            }
            guard case .performed(outcome("no"), _) = failed else { return _ = Issue.record("\(failed)") }
            #expect(try await balance(store) == 100)
            _ = try await scene.perform("deposit", payload: 1, inTransactionOf: store) { try $0.execute("UPDATE account SET balance = 1000") }
            let again = await #expect(throws: PermanentFailure.self) { _ = try await withdraw(500, key: "w-1", scene, store) }
            #expect(again?.message == "the balance is 100")
            #expect(try await balance(store) == 1000)
        }
    }

    @Test("any other error undoes the writes and leaves the key free")
    func transientFailure() async throws {
        try await withStore { store, _ in
            let scene = try scene(store)
            await #expect(throws: Interrupted.self) {
                _ = try await scene.perform("w-1", payload: Int64(30), inTransactionOf: store) { transaction -> Int64 in
                    try transaction.execute("UPDATE account SET balance = balance - 30 WHERE name = 'a'")
                    throw Interrupted()
                }
            }
            // A constraint of the caller's own.
            await #expect(throws: MySQLError.self) {
                _ = try await store.perform(request(key("broke"))) { transaction, _ in
                    try transaction.execute("UPDATE account SET balance = balance - 500")
                    return .commit(outcome(""))
                }
            }
            #expect(try await balance(store) == 100)
            #expect(try await withdraw(30, key: "w-1", scene, store).value == 70)
            _ = try await store.granted(request(key("broke")))
        }
    }

    @Test("affected rows are those that were met: an UPDATE to the same value finds its row, a lost version does not")
    func affectedRows() async throws {
        try await withStore { store, _ in
            _ = try await store.perform(request(key("a"))) { transaction, _ throws in
                #expect(try transaction.execute("UPDATE account SET balance = 100 WHERE name = 'a'") == 1)
                #expect(try transaction.execute("UPDATE account SET version = version + 1 WHERE name = 'a' AND version = 0") == 1)
                #expect(try transaction.execute("UPDATE account SET version = version + 1 WHERE name = 'a' AND version = 0") == 0)
                #expect(try transaction.execute("INSERT IGNORE INTO account (name, balance) VALUES ('a', 1)") == 0)
                #expect(try transaction.execute("DELETE FROM account") == 2)
                return .commit(outcome(""))
            }
            #expect(try await balance2(store) == 0)
        }
    }

    private func balance2(_ store: MySQLStore) async throws -> Int64? {
        try await store.read { try $0.query("SELECT COUNT(*) FROM account")[0][0].integer }
    }

    @Test("values go in and come out as they are")
    func values() async throws {
        try await withStore { store, _ in
            let blob = [UInt8](0...255) + Array(repeating: 7, count: 5000)
            _ = try await store.perform(request(key("a"))) { transaction, _ in
                let row = try transaction.query(
                    "SELECT ?, ?, ?, ?, ?, ?, CAST(1.50 AS DECIMAL(10,2)), CAST('2024-02-29 01:02:03' AS DATETIME), CAST(NULL AS SIGNED) AS nothing",
                    .integer(.min), .unsigned(.max), .real(0.1), "a'b\\\0é", .blob(blob), nil)[0]
                #expect(row.values.prefix(3) == [.integer(.min), .unsigned(.max), .real(0.1)])
                #expect(row[3] == "a'b\\\0é")
                #expect(row[4].blob == blob)
                #expect(row[5] == .null)
                #expect(row[6] == "1.50")
                #expect(row[7] == "2024-02-29 01:02:03")
                #expect(row["nothing"] == .null)
                return .commit(outcome(""))
            }
        }
    }

    @Test(
        "a statement that would end the transaction is refused, and so are the store's own tables",
        arguments: [
            "COMMIT", " rollback", "/* x */ COMMIT", "-- x\nCOMMIT", "START TRANSACTION", "BEGIN", "SET autocommit = 1", "CREATE TABLE x (a INT)", "TRUNCATE account",
            "SAVEPOINT a", "CALL p()", "/*!COMMIT*/", "SELECT 1 /*M!100000 , 2 */", "LOCK TABLES account WRITE", "DELETE FROM semel_record", "DELETE FROM `semel_record`",
            "UPDATE account, SEMEL_AUDIT SET actor = ''", "", "  ", ";",
        ])
    func refused(_ sql: String) async throws {
        try await withStore { store, _ in
            await #expect(throws: MySQLError.self) {
                _ = try await store.perform(request(key("a"))) { transaction, _ in
                    try transaction.execute("UPDATE account SET balance = 1 WHERE name = 'a'")
                    try transaction.execute(sql)
                    return .commit(outcome(""))
                }
            }
            // Nothing of it is there.
            #expect(try await balance(store) == 100)
            _ = try await store.granted(request(key("a")))
        }
    }

    @Test("what only looks like a refused statement is not", arguments: ["SELECT 'COMMIT; semel_record' -- COMMIT", "(SELECT \"semel_\\\"record\")", "# x\nSELECT 1 -- semel_record"])
    func allowed(_ sql: String) async throws {
        #expect(CallersText.refusal(of: sql) == nil)
        try await withStore { store, _ in
            _ = try await store.perform(request(key("a"))) { transaction, _ throws in
                #expect(try transaction.query(sql).count == 1)
                return .commit(outcome(""))
            }
        }
    }

    @Test("the transaction's own global id comes with the result, and rises")
    func position() async throws {
        try await withStore { store, url in
            var positions: [Int] = []
            for number in 0..<3 {
                let done = try await store.performPositioned(request(key("\(number)"))) { transaction, _ in
                    try transaction.execute("UPDATE account SET version = ? WHERE name = 'a'", .integer(Int64(number)))
                    return .commit(outcome(""))
                }
                let parts = try #require(done.position).split(separator: "-")
                #expect(parts.count == 3)
                positions.append(try #require(Int(parts[2])))
            }
            #expect(positions == positions.sorted() && Set(positions).count == 3)
            // It is the server's: its binary log has come as far.
            let log = try await withConnection(to: url) { try $0.rows("SELECT @@gtid_binlog_pos")[0][0].text ?? "" }
            #expect(try #require(Int(log.split(separator: "-").last ?? "")) >= positions[2])
            let repeated = try await store.performPositioned(request(key("0"), 2)) { _, _ in .commit(outcome("")) }
            #expect(repeated.position == nil)
        }
    }

    @Test("of two bodies that lock each other's rows the one that is undone runs again, and both take effect")
    func deadlock() async throws {
        try await withStore { store, url in
            let other = try await MySQLStore(url: url, configuration: quiet(migrations: Self.migrations))
            let runs = Locked(0)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for (store, names) in [(store, ["a", "b"]), (other, ["b", "a"])] {
                    group.addTask {
                        _ = try await store.perform(request(key(names[0]))) { transaction, _ in
                            let isFirstTime = runs.withLock { runs in
                                runs += 1
                                return runs <= 2
                            }
                            try transaction.execute("UPDATE account SET balance = balance + 1 WHERE name = ?", .text(names[0]))
                            // Until both hold one.
                            if isFirstTime { Thread.sleep(forTimeInterval: 0.5) }
                            try transaction.execute("UPDATE account SET balance = balance + 1 WHERE name = ?", .text(names[1]))
                            return .commit(outcome(""))
                        }
                    }
                }
                try await group.waitForAll()
            }
            #expect(runs.withLock { $0 } == 3, "one of the two was undone")
            #expect(try await store.read { try $0.query("SELECT SUM(balance) FROM account")[0][0] } == "104")
            await other.close()
        }
    }
}
#endif
