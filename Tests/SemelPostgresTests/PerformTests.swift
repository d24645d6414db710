#if Postgres
import Semel
@testable import SemelPostgres
import Testing

@Suite("Performing an operation in a PostgreSQL transaction of the caller's own")
struct PerformTests {
    private func withScene(_ body: (Scene, PostgresStore, Place, String) async throws -> Void) async throws {
        let place = try await Place()
        let store = try await place.open()
        let schema = try Target(url: place.url, schema: "semel").quotedSchema
        try await place.run(
            "CREATE TABLE {schema}.account (name text PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0))",
            "INSERT INTO {schema}.account VALUES ('a', 100)")
        let scene = try Operations(store: store).scene(Policy(scene: "withdraw", effect: .localTransaction, minimum: .atomic))
        #expect(scene.guarantee == .atomic)
        try await body(scene, store, place, "\(schema).account")
        await store.close()
        try await place.drop()
    }

    private func withdraw(_ amount: Int64, key: String, _ scene: Scene, _ store: PostgresStore, _ table: String) async throws -> Performance<Int64> {
        try await scene.perform(key, payload: amount, inTransactionOf: store) { transaction in
            let balance = try transaction.query("SELECT balance FROM \(table) WHERE name = $1 FOR UPDATE", "a")[0][0].integer!
            guard balance >= amount else { throw PermanentFailure(code: "no-funds", message: "the balance is \(balance)") }
            let changed = try transaction.execute("UPDATE \(table) SET balance = balance - $1 WHERE name = 'a'", .integer(amount))
            #expect(changed == 1)
            return balance - amount
        }
    }

    private func balance(_ place: Place) async throws -> String {
        try await place.run("SELECT balance::text FROM {schema}.account")[0][0]
    }

    private struct Interrupted: Error {}

    @Test("writes and record are one: repeats replay, and the balance changes once (R14)")
    func once() async throws {
        try await withScene { (scene: Scene, store: PostgresStore, place: Place, table: String) async throws -> Void in
            for attempt in 0..<3 {
                let result = try await withdraw(30, key: "w-1", scene, store, table)
                #expect(result.value == 70)
                if attempt > 0 { guard case .replayed = result else { return _ = Issue.record("it ran again") } }
            }
            #expect(try await balance(place) == "70")
        }
    }

    @Test("64 callers with one key withdraw once (H15)")
    func race() async throws {
        try await withScene { (scene: Scene, store: PostgresStore, place: Place, table: String) async throws -> Void in
            let values = try await withThrowingTaskGroup(of: Int64.self) { group in
                for _ in 0..<64 { group.addTask { try await withdraw(30, key: "w-1", scene, store, table).value } }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(values == Array(repeating: 70, count: 64))
            #expect(try await balance(place) == "70")
        }
    }

    @Test("a permanent failure undoes the writes and is replayed, even when it would succeed now")
    func permanentFailure() async throws {
        try await withScene { (scene: Scene, store: PostgresStore, place: Place, table: String) async throws -> Void in
            await #expect(throws: PermanentFailure.self) { _ = try await withdraw(500, key: "w-1", scene, store, table) }
            try await place.run("UPDATE {schema}.account SET balance = 1000")
            let again = await #expect(throws: PermanentFailure.self) { _ = try await withdraw(500, key: "w-1", scene, store, table) }
            #expect(again?.message == "the balance is 100")
            #expect(try await balance(place) == "1000")
        }
    }

    @Test("any other error undoes the writes and leaves the key free")
    func transientFailure() async throws {
        try await withScene { (scene: Scene, store: PostgresStore, place: Place, table: String) async throws -> Void in
            await #expect(throws: Interrupted.self) {
                _ = try await scene.perform("w-1", payload: Int64(30), inTransactionOf: store) { transaction -> Int64 in
                    try transaction.execute("UPDATE \(table) SET balance = balance - 30")
                    throw Interrupted()
                }
            }
            #expect(try await balance(place) == "100")
            #expect(try await withdraw(30, key: "w-1", scene, store, table).value == 70)
        }
    }

    @Test("a statement that fails loses the whole transaction, whether or not the body minds", arguments: [false, true])
    func failedStatement(isSwallowed: Bool) async throws {
        try await withScene { (_: Scene, store: PostgresStore, place: Place, table: String) async throws -> Void in
            let error = await #expect(throws: PostgresError.self) {
                _ = try await store.perform(request(key("a"))) { transaction, _ in
                    try transaction.execute("UPDATE \(table) SET balance = 50")
                    do {
                        try transaction.execute("UPDATE \(table) SET balance = -1")
                    } catch {
                        if !isSwallowed { throw error }
                    }
                    return .commit(outcome("done"))
                }
            }
            #expect(error?.sqlState == (isSwallowed ? "25P02" : "23514"))
            #expect(try await store.record(of: key("a")) == nil)
            #expect(try await balance(place) == "100")
            _ = try await store.granted(request(key("a")))
        }
    }

    @Test(
        "what would end the transaction, or stay behind in the connection, is refused",
        arguments: [
            "COMMIT", "rollback", " ; -- well\n /* a /* nested */ comment */ Commit", "END", "ABORT", "BEGIN", "START TRANSACTION", "SAVEPOINT a",
            "RELEASE a", "PREPARE TRANSACTION 'a'", "SET search_path = x", "SET SESSION jit = off", "RESET ALL", "DISCARD ALL", "LISTEN a",
            "DEALLOCATE ALL", "COPY x FROM STDIN", "SELECT 1; COMMIT",
        ])
    func refused(sql: String) async throws {
        try await withScene { (_: Scene, store: PostgresStore, place: Place, table: String) async throws -> Void in
            await #expect(throws: PostgresError.self) {
                _ = try await store.perform(request(key("a"))) { transaction, _ in
                    try transaction.execute("UPDATE \(table) SET balance = 50")
                    try transaction.execute(sql)
                    return .commit(outcome("done"))
                }
            }
            #expect(try await balance(place) == "100")
            #expect(try await store.record(of: key("a")) == nil)
        }
    }

    @Test("values of every kind go in and come out as they were")
    func values() async throws {
        try await withScene { (_: Scene, store: PostgresStore, _: Place, _: String) async throws -> Void in
            let values: [PostgresValue] = [
                .null, true, false, .integer(.min), 7, .double(0.1), .double(-.infinity), "", "ü'\"\\", .bytes([]), .bytes([0, 255, 10]),
            ]
            let types = ["text", "bool", "bool", "bigint", "int", "float8", "float8", "text", "text", "bytea", "bytea"]
            let columns = types.enumerated().map { "$\($0 + 1)::\($1) AS c\($0)" }.joined(separator: ", ")
            let result = try await store.perform(request(key("a"))) { transaction, _ in
                try transaction.execute("SET LOCAL lock_timeout = '1s'")
                let rows = try transaction.query("SELECT \(columns)", values)
                #expect(rows.count == 1)
                #expect(rows[0].values == values)
                #expect(rows[0]["c4"] == 7)
                return .commit(outcome("done"))
            }
            guard case .performed = result else { return _ = Issue.record("\(result)") }
        }
    }

    @Test("a transaction kept for later is of no use")
    func afterwards() async throws {
        try await withScene { (_: Scene, store: PostgresStore, _: Place, table: String) async throws -> Void in
            nonisolated(unsafe) var kept: PostgresTransaction?
            _ = try await store.perform(request(key("a"))) { transaction, _ in
                kept = transaction
                return .commit(outcome("done"))
            }
            #expect(throws: PostgresError.self) { try kept?.execute("UPDATE \(table) SET balance = 0") }
        }
    }

    // MARK: Statements that need no answer in between

    @Test("statements that wait together share a transaction, and each has its own result: done, replayed, undone")
    func statements() async throws {
        try await withScene { (_: Scene, store: PostgresStore, place: Place, table: String) async throws -> Void in
            let add = PostgresStatement("UPDATE \(table) SET balance = balance + $1 WHERE name = 'a'", 1, rows: 1)
            _ = try await store.perform(request(key("known")), writing: [add], recording: outcome("known"))
            let results = await withTaskGroup(of: (Int, Result<AtomicResult, any Error>).self) { group in
                for number in 0..<90 {
                    group.addTask {
                        let statements: [PostgresStatement] =
                            switch number % 9 {
                            case 7: [add, PostgresStatement("UPDATE \(table) SET balance = balance WHERE name = 'nobody'", rows: 1)]
                            case 8: [add, PostgresStatement("UPDATE \(table) SET balance = -1")]
                            default: [add]
                            }
                        let id = key(number % 9 == 6 ? "known" : number % 9 == 5 ? "same \(number / 9)" : number % 9 == 4 ? "same \(number / 9)" : "\(number)")
                        do {
                            return (number, .success(try await store.perform(request(id), writing: statements, recording: outcome("\(number)"))))
                        } catch { return (number, .failure(error)) }
                    }
                }
                return await group.reduce(into: []) { $0.append($1) }
            }
            var performed = 0
            for (number, result) in results {
                switch (number % 9, result) {
                case (0...3, .success(.performed(let recorded, let grant))):
                    #expect(recorded == outcome("\(number)"))
                    #expect(grant.kind == .first)
                    performed += 1
                case (4, .success(.performed)), (5, .success(.performed)): performed += 1
                case (4, .success(.notRun(.completed))), (5, .success(.notRun(.completed))): break
                case (6, .success(.notRun(.completed(let record)))): #expect(record.outcome == outcome("known"))
                case (7, .failure(let error)): #expect(error is UnexpectedRows, "\(error)")
                case (8, .failure(let error)): #expect((error as? PostgresError)?.sqlState == "23514", "\(error)")
                default: Issue.record("\(number) was \(result)")
                }
            }
            #expect(performed == 50)
            #expect(try await balance(place) == "\(100 + 1 + performed)")
            #expect(try await store.record(of: key("7")) == nil)
        }
    }
}
#endif
