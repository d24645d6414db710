import CSQLite
import Semel
@testable import SemelSQLite
import Testing

@Suite("What a caller's own statements can do to the store")
struct CallersStatementsTests {
    private let folder = TemporaryFolder()
    private static let migrations = [
        """
        CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT);
        CREATE TRIGGER no_dragons BEFORE INSERT ON item WHEN NEW.name = 'dragon' BEGIN SELECT RAISE(ROLLBACK, 'here be none'); END
        """
    ]

    private func open() async throws -> SQLiteStore {
        try await SQLiteStore(path: folder.database, configuration: .init(reserve: 1 << 20, migrations: Self.migrations))
    }

    private func names(_ store: SQLiteStore) async throws -> [String?] {
        try await store.read { try $0.query("SELECT name FROM item ORDER BY id").map { $0[0].text } }
    }

    @Test(
        "a second statement is refused and nothing of either runs",
        arguments: [
            "INSERT INTO item (name) VALUES ('a'); INSERT INTO item (name) VALUES ('b')",
            "INSERT INTO item (name) VALUES ('a');; /* and */ GARBAGE", "INSERT INTO item (name) VALUES ('a');\0 SELECT 1",
        ])
    func secondStatement(sql: String) async throws {
        let store = try await open()
        await #expect(throws: SQLiteError.self) {
            _ = try await store.perform(request(key("a"))) { transaction, _ in
                try transaction.execute(sql)
                return .commit(outcome(""))
            }
        }
        #expect(try await names(store).isEmpty)
        await store.close()
    }

    @Test(
        "semicolons, space and comments around one statement are fine",
        arguments: ["INSERT INTO item (name) VALUES ('a') ; ;\n ", "; /* first */ INSERT INTO item (name) VALUES ('a'); -- done", "INSERT INTO item (name) VALUES ('a')/* open"])
    func oneStatement(sql: String) async throws {
        let store = try await open()
        _ = try await store.perform(request(key("a"))) { transaction, _ in
            let count = try transaction.execute(sql)
            #expect(count == 1)
            return .commit(outcome(""))
        }
        #expect(try await names(store) == ["a"])
        await store.close()
    }

    @Test("text keeps what follows U+0000, also in the audit log", arguments: ["a\0b", "\0", "", "é\0"])
    func zeroInText(text: String) async throws {
        let store = try await open()
        _ = try await store.perform(request(key("a"))) { transaction, _ in
            try transaction.execute("INSERT INTO item (name) VALUES (?1)", .text(text))
            return .commit(outcome(""))
        }
        #expect(try await names(store) == [text])
        let count = try await store.read { try $0.query("SELECT length(CAST(name AS BLOB)) FROM item")[0][0].integer }
        #expect(count == Int64(text.utf8.count))
        #expect(try await store.forget(key("a"), by: OperatorAct(actor: "ada", reason: text)) == .applied)
        #expect(try await store.audit(after: 0, limit: 1).first?.reason == text)
        await store.close()
    }

    @Test(
        "a statement that rolls everything back fails its own caller, and the store goes on", arguments: [false, true],
        ["INSERT OR ROLLBACK INTO item VALUES (1, 'again')", "INSERT INTO item VALUES (2, 'dragon')"])
    func rollback(isSwallowed: Bool, sql: String) async throws {
        let store = try await open()
        _ = try await store.perform(request(key("first"))) { transaction, _ in
            try transaction.execute("INSERT INTO item VALUES (1, 'first')")
            return .commit(outcome(""))
        }
        let error = await #expect(throws: SQLiteError.self) {
            _ = try await store.perform(request(key("second"))) { transaction, _ in
                do {
                    try transaction.execute(sql)
                } catch {
                    if !isSwallowed { throw error }
                }
                return .commit(outcome("done"))
            }
        }
        #expect(error?.primaryCode == SQLITE_CONSTRAINT)
        #expect(try await store.record(of: key("second")) == nil)
        #expect(try await names(store) == ["first"])
        _ = try await store.granted(request(key("second")))
        await store.close()
    }

    @Test(
        "a statement that would end the transaction, change the connection or touch the store's tables is refused, and the rest stays one",
        arguments: [
            "COMMIT", "END TRANSACTION", "ROLLBACK", "BEGIN", "BEGIN IMMEDIATE", "SAVEPOINT mine", "RELEASE semel_body", "ROLLBACK TO semel_body",
            "PRAGMA synchronous = OFF", "PRAGMA journal_mode = DELETE", "PRAGMA writable_schema = ON", "PRAGMA recursive_triggers = ON",
            "ATTACH DATABASE ':memory:' AS other", "DETACH DATABASE main", "VACUUM", "VACUUM INTO '/tmp/semel-copy.db'",
            "DELETE FROM semel_live", "UPDATE Semel_Live SET record = x'00'", "INSERT INTO semel_completed VALUES (1, x'00')",
            "WITH x AS (SELECT 1) DELETE FROM semel_state", "UPDATE semel_audit SET actor = 'mallory'", "DROP TABLE semel_policy",
            "DROP TRIGGER semel_audit_is_not_changed", "ALTER TABLE semel_live RENAME TO live", "CREATE INDEX mine ON semel_live (record)",
            "CREATE TRIGGER mine AFTER INSERT ON semel_live BEGIN SELECT 1; END", "CREATE TABLE semel_mine (id INTEGER)",
        ], [false, true])
    func refused(sql: String, isSwallowed: Bool) async throws {
        let store = try await open()
        try await store.finish(key("before"))
        let act = { () async throws -> AtomicResult in
            try await store.perform(request(key("a"))) { transaction, _ in
                try transaction.execute("INSERT INTO item (name) VALUES ('mine')")
                do {
                    try transaction.execute(sql)
                    Issue.record("\(sql) was not refused")
                } catch {
                    if !isSwallowed { throw error }
                }
                try transaction.execute("INSERT INTO item (name) VALUES ('more')")
                return .commit(outcome("done"))
            }
        }
        if isSwallowed {
            guard case .performed = try await act() else { return _ = Issue.record("it did not run") }
            #expect(try await names(store) == ["mine", "more"])
            #expect(try await store.record(of: key("a"))?.outcome == outcome("done"))
        } else {
            await #expect(throws: SQLiteError.self) { _ = try await act() }
            #expect(try await names(store).isEmpty)
            #expect(try await store.record(of: key("a")) == nil)
        }
        #expect(await store.health().isReady)
        await store.close()
        // What was answered is in the file, and the file is whole.
        let again = try await open()
        #expect(try await again.record(of: key("before"))?.outcome == outcome("done"))
        #expect(try await names(again) == (isSwallowed ? ["mine", "more"] : []))
        #expect(try await again.read { try $0.query("SELECT count(*) FROM semel_policy")[0][0].integer } == 1)
        await again.close()
    }

    @Test("a caller's trigger cannot reach the store's tables either")
    func trigger() async throws {
        let store = try await open()
        try await store.finish(key("before"))
        _ = try await store.perform(request(key("a"))) { transaction, _ in
            try transaction.execute("CREATE TRIGGER wipe AFTER INSERT ON item BEGIN DELETE FROM semel_completed; END")
            return .commit(outcome(""))
        }
        await #expect(throws: SQLiteError.self) {
            _ = try await store.perform(request(key("b"))) { transaction, _ in
                try transaction.execute("INSERT INTO item (name) VALUES ('x')")
                return .commit(outcome(""))
            }
        }
        #expect(try await store.record(of: key("before"))?.outcome == outcome("done"))
        await store.close()
    }

    @Test("where only reading is allowed, nothing is written")
    func readingOnly() async throws {
        let store = try await open()
        for sql in ["INSERT INTO item (name) VALUES ('a')", "COMMIT", "PRAGMA query_only = ON", "CREATE TABLE mine (id INTEGER)"] {
            await #expect(throws: SQLiteError.self, "\(sql)") { _ = try await store.read { try $0.query(sql) } }
        }
        #expect(try await names(store).isEmpty)
        await store.close()
    }

    // MARK: In one transaction with others

    private final class Probe: Job, @unchecked Sendable {
        let body: (Engine) throws -> Void
        var runs = 0
        var error: StoreError?

        init(_ body: @escaping (Engine) throws -> Void) { self.body = body }

        override func run(_ engine: Engine) throws {
            runs += 1
            error = nil
            try body(engine)
        }

        override func fail(_ error: StoreError) { self.error = error }
    }

    private func engine() throws -> Engine {
        try Opening(
            place: Place(path: folder.database), configuration: .init(reserve: 1 << 20, migrations: Self.migrations),
            clock: SystemStoreClock(), environment: .live, observations: ObservationRegistry()
        ).open()
    }

    private func claiming(_ id: OperationID, then error: (any Error)? = nil) -> Probe {
        Probe { engine in
            _ = try engine.claim([request(id)], [OperationReference(id)])
            if let error { throw error }
        }
    }

    @Test("of jobs that share a transaction only those fail that SQLite refused; the others take effect, once")
    func culprits() throws {
        let engine = try engine()
        let tooBig = claiming(key("too-big"), then: SQLiteError(code: SQLITE_TOOBIG, message: "too big"))
        let rollingBack = Probe { engine in
            let result = try engine.perform(request(key("rolling-back"))) { transaction, _ in
                try transaction.execute("INSERT INTO item VALUES (1, 'dragon')")
                return .commit(outcome(""))
            }
            guard case .failure(let error) = result, error is SQLiteError else { return _ = Issue.record("it was \(result)") }
        }
        let others = [claiming(key("a")), claiming(key("b")), claiming(key("c"))]
        engine.run([others[0], tooBig, others[1], rollingBack, others[2]])

        #expect(tooBig.error?.code == .refused)
        #expect(tooBig.error?.isTransient == false)
        #expect(others.allSatisfy { $0.error == nil })
        #expect([tooBig.runs, rollingBack.runs] == [1, 1])
        #expect(engine.stopped == nil)
        #expect(Set(engine.live.keys) == [key("a"), key("b"), key("c")])
        #expect(engine.liveCount(Scope("tenant")) == 3)
        #expect(try engine.database.integer("SELECT count(*) FROM semel_live") == 3)
        engine.close()
    }

    @Test("errors of the disk still stop the store (H16)", arguments: [SQLITE_IOERR | 4 << 8, SQLITE_CORRUPT, SQLITE_NOTADB])
    func graveErrors(code: Int32) throws {
        let engine = try engine()
        let other = claiming(key("a"))
        engine.run([other, claiming(key("b"), then: SQLiteError(code: code, message: "broken"))])
        let isDamage = code & 0xFF != SQLITE_IOERR
        #expect(other.error?.code == (isDamage ? .damaged : .indeterminate))
        let later = claiming(key("a"))
        engine.run([later])
        #expect(later.runs == 0)
        #expect(later.error?.code == (isDamage ? .damaged : .stopped))
        #expect(later.error?.isTransient == false)
        engine.close()
    }
}
