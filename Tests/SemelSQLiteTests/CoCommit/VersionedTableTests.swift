import Semel
@testable import SemelSQLite
import SemelTesting
import Testing

@Suite("Optimistic locking and other writes on the caller's tables")
struct VersionedTableTests {
    private let folder = TemporaryFolder()
    private static let transitions: [String: Set<String>] = [
        "CREATED": ["PAID"], "PAID": ["SHIPPED", "REFUNDED"], "SHIPPED": ["COMPLETED", "REFUNDED"], "COMPLETED": ["REFUNDED"],
    ]

    private func open() throws -> OwnDriver {
        let driver = try OwnDriver(path: folder.database)
        _ = try driver.run(
            "CREATE TABLE IF NOT EXISTS orders (shop TEXT, id INTEGER, version INTEGER, changed INTEGER, state TEXT, total INTEGER, \"odd \"\"name\" TEXT, PRIMARY KEY (shop, id))"
        )
        _ = try driver.run("INSERT OR IGNORE INTO orders VALUES ('s', 1, 1, 1000, 'CREATED', 10, NULL)")
        return driver
    }

    private func table(_ version: VersionedTable.Version = .number("version")) throws -> VersionedTable {
        try VersionedTable("orders", key: ["shop", "id"], version: version, states: .init(column: "state", transitions: Self.transitions))
    }

    private let key: [SQLValue] = ["s", 1]

    @Test("changes a row that has the version that was read, once, and says what else it found")
    func versions() throws {
        let (driver, orders) = (try open(), try table())
        let row = try #require(try orders.read(["total"], key: key, in: .sqlite).run(in: driver))
        #expect(row.values == [10] && row.state == "CREATED")
        guard
            case .changed(let second) = try orders.change(["total": 20, "odd \"name": "x"], key: key, from: row.version, in: .sqlite).run(
                in: driver)
        else { return _ = Issue.record("it is changed") }
        #expect(second != row.version)
        guard case .conflict(let now) = try orders.change(["total": 30], key: key, from: row.version, in: .sqlite).run(in: driver)
        else { return _ = Issue.record("the version is old") }
        #expect(now.version == second)
        #expect(try orders.change(["total": 30], key: ["s", 9], from: second, in: .sqlite).run(in: driver) == .missing)
        #expect(try driver.integer("SELECT total FROM orders") == 20)
    }

    @Test("makes a later version of a time each time, also many in one tick of the clock and after a clock that was ahead")
    func times() throws {
        let (driver, orders) = (try open(), try table(.time("changed")))
        var version = try #require(try orders.read([], key: key, in: .sqlite).run(in: driver)).version
        var last: Int64 = 0
        for round in 0..<200 {
            guard
                case .changed(let next) = try orders.change(["total": .integer(Int64(round))], key: key, from: version, in: .sqlite).run(
                    in: driver)
            else { return _ = Issue.record("it is changed") }
            #expect(next.value.integer! > last)
            last = next.value.integer!
            version = next
        }
        #expect(last > 1_600_000_000_000_000, "it is a time")
        _ = try driver.run("UPDATE orders SET changed = 9000000000000000")
        let ahead = try #require(try orders.read([], key: key, in: .sqlite).run(in: driver)).version
        #expect(
            try orders.change(["total": 1], key: key, from: ahead, in: .sqlite).run(in: driver)
                == .changed(RowVersion(value: 9_000_000_000_000_001)))
    }

    @Test("checks the allowed change of state in the same statement")
    func states() throws {
        let (driver, orders) = (try open(), try table())
        var version = try #require(try orders.read([], key: key, in: .sqlite).run(in: driver)).version
        #expect(try orders.move(to: "SHIPPED", key: key, from: version, in: .sqlite).run(in: driver) == .forbidden(from: "CREATED"))
        #expect(try orders.move(to: "CREATED", key: key, from: version, in: .sqlite).run(in: driver) == .forbidden(from: "CREATED"))
        for state in ["PAID", "SHIPPED", "COMPLETED", "REFUNDED"] {
            // Somebody else may write between any two statements of ours, and still nothing comes between check and write.
            driver.beforeStatement = { #expect(!$0.text.hasPrefix("UPDATE") || $0.text.contains("IN (")) }
            version = try orders.move(to: state, key: key, from: version, in: .sqlite).run(in: driver).get()
        }
        #expect(try orders.move(to: "PAID", key: key, from: version, in: .sqlite).run(in: driver) == .forbidden(from: "REFUNDED"))
    }

    @Test("refuses what is not the caller's to change, a key that is not unique, and names that are none")
    func refuses() throws {
        let (driver, orders) = (try open(), try table())
        let version = RowVersion(value: 1)
        for column in ["version", "state", "id"] as [SQLName] {
            #expect(throws: SQLHelperError.self) { try orders.change([column: 1], key: key, from: version, in: .sqlite) }
        }
        #expect(throws: SQLHelperError.self) { try orders.change(["total": 1], key: ["s"], from: version, in: .sqlite) }
        #expect(throws: SQLHelperError.self) { try VersionedTable("orders", key: ["id"], version: .number("id")) }
        _ = try driver.run("INSERT INTO orders VALUES ('s', 2, 1, 1, 'CREATED', 10, NULL)")
        let loose = try VersionedTable("orders", key: ["shop"], version: .number("version"))
        #expect(throws: SQLHelperError.self) { try loose.change(["total": 1], key: ["s"], from: version, in: .sqlite).run(in: driver) }
        for text in ["", String(repeating: "x", count: 64), "a\u{0}b"] {
            #expect(throws: SQLNameError.self) { try SQLName(text) }
        }
    }

    @Test("quotes every name and binds every value, in every dialect")
    func quotes() throws {
        let evil = try SQLName("shop", "x\"; DROP TABLE orders; --`")
        #expect(evil.quoted(in: .sqlite) == "\"shop\".\"x\"\"; DROP TABLE orders; --`\"")
        #expect(evil.quoted(in: .postgres) == evil.quoted(in: .sqlite))
        #expect(evil.quoted(in: .mysql) == "`shop`.`x\"; DROP TABLE orders; --```")
        let driver = try open()
        let name: SQLName = "x\"; DROP TABLE orders; --`"
        _ = try driver.run("CREATE TABLE \(name.quoted(in: .sqlite)) (id INTEGER PRIMARY KEY, note TEXT)")
        let table = try SQLTable(name, key: ["id"])
        let note = SQLValue.text("'); DROP TABLE orders; --")
        #expect(try table.insertUnlessThere(["id": 1, "note": note], in: .sqlite).run(in: driver) == .inserted)
        #expect(try driver.query(SQLStatement(text: "SELECT note FROM \(name.quoted(in: .sqlite))")) == [[note]])
        #expect(try driver.integer("SELECT count(*) FROM orders") == 1)
        for (dialect, placeholder) in [(SQLDialect.sqlite, "?2"), (.postgres, "$2"), (.mysql, "?")] {
            guard case .execute(let statement, _) = try table.insertUnlessThere(["id": 1, "note": note], in: dialect) else {
                return _ = Issue.record("an insert")
            }
            #expect(statement.values == [1, note] && statement.text.contains(placeholder) && !statement.text.contains("'"))
        }
    }

    @Test("inserts unless there is such a row, updates it if there is, and says which; other conflicts are errors")
    func upserts() throws {
        let driver = try open()
        _ = try driver.run("CREATE TABLE person (name TEXT PRIMARY KEY, mail TEXT UNIQUE, age INTEGER CHECK (age > 0))")
        let people = try SQLTable("person", key: ["name"])
        #expect(try people.insertUnlessThere(["name": "a", "mail": "a@x", "age": 1], in: .sqlite).run(in: driver) == .inserted)
        #expect(try people.insertUnlessThere(["name": "a", "mail": "b@x", "age": 2], in: .sqlite).run(in: driver) == .existed)
        #expect(throws: SQLiteError.self) {
            try people.insertUnlessThere(["name": "b", "mail": "a@x", "age": 1], in: .sqlite).run(in: driver)
        }
        #expect(throws: SQLiteError.self) {
            try people.insertUnlessThere(["name": "c", "mail": "c@x", "age": 0], in: .sqlite).run(in: driver)
        }
        #expect(throws: SQLHelperError.self) { try people.insertUnlessThere(["name": nil, "age": 1], in: .sqlite) }

        #expect(try people.upsert(["name": "d", "mail": "d@x", "age": 4], in: .sqlite).run(in: driver) == .inserted)
        #expect(try people.upsert(["name": "d", "mail": "e@x", "age": 5], updating: ["age"], in: .sqlite).run(in: driver) == .updated)
        #expect(try driver.query(SQLStatement(text: "SELECT mail, age FROM person WHERE name = 'd'")) == [["d@x", 5]])
        #expect(try people.upsert(["name": "d", "mail": "e@x", "age": 5], in: .sqlite).run(in: driver) == .updated)
        #expect(throws: SQLHelperError.self) { try people.upsert(["name": "d", "age": 5], updating: ["mail"], in: .sqlite) }

        // The row is removed between the two statements, the first time.
        var removed = false
        driver.beforeStatement = { statement in
            guard statement.text.hasPrefix("UPDATE"), !removed else { return }
            removed = true
            try driver.database.execute("DELETE FROM person WHERE name = 'd'")
        }
        #expect(try people.upsert(["name": "d", "mail": "f@x", "age": 6], in: .sqlite).run(in: driver) == .inserted)
        #expect(removed)
    }

    @Test("loses no update of 8 writers who repeat on conflict, and counts every failure")
    func retries() async throws {
        let orders = try table()
        _ = try open()
        let metrics = CountingFactory()
        let retry = OptimisticRetry(
            "add", schedule: try .init(from: .milliseconds(1), upTo: .milliseconds(50), attempts: 2000, deadline: .seconds(600)),
            metrics: SemelMetrics(factory: metrics))
        let conflicts = Locked(0)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    let driver = try open()
                    for _ in 0..<25 {
                        _ = try await retry.run { attempt in
                            if attempt > 1 { conflicts.withLock { $0 += 1 } }
                            let row = try await orders.read(["total"], key: key, in: .sqlite).run(in: driver)!
                            await Task.yield()
                            return try await orders.change(
                                ["total": .integer(row.values[0].integer! + 1)], key: key, from: row.version, in: .sqlite
                            )
                            .run(in: driver).get()
                        }
                    }
                }
            }
            try await group.waitForAll()
        }
        let driver = try open()
        #expect(try driver.integer("SELECT total FROM orders") == 210)
        #expect(try driver.integer("SELECT version FROM orders") == 201)
        #expect(metrics.count("semel_optimistic_lock_failures_total", ["add", "conflict"]) == conflicts.withLock { $0 })
    }

    @Test("gives up after the attempts it may make, and at once where trying again is of no use")
    func givesUp() async throws {
        let metrics = CountingFactory()
        let retry = OptimisticRetry(
            "pay", schedule: try .init(from: .nanoseconds(1), upTo: .nanoseconds(1), attempts: 3, deadline: nil),
            metrics: SemelMetrics(factory: metrics)
        ) { $0 is Deadlock }
        var attempts = 0
        let exhausted = await #expect(throws: OptimisticLockFailure.self) {
            try await retry.run { _ in
                attempts += 1
                if attempts == 2 { throw Deadlock() }
                throw OptimisticLockFailure(reason: .conflict, message: "again")
            }
        }
        #expect(exhausted?.reason == .exhausted && attempts == 3)
        let forbidden = await #expect(throws: OptimisticLockFailure.self) {
            try await retry.run { _ in try ChangeResult.forbidden(from: "PAID").get() }
        }
        #expect(forbidden?.reason == .forbidden)
        let counts = ["conflict", "database", "exhausted", "forbidden"].map {
            metrics.count("semel_optimistic_lock_failures_total", ["pay", $0])
        }
        #expect(counts == [2, 1, 1, 1])
    }

    private struct Deadlock: Error {}
}

@Suite("Optimistic locking in a transaction of the embedded store")
struct VersionedTableInStoreTests {
    @Test("changes a versioned row together with the record of the operation")
    func together() async throws {
        let folder = TemporaryFolder()
        let store = try await SQLiteStore(
            path: folder.database,
            configuration: .init(
                reserve: 1 << 20,
                migrations: [
                    "CREATE TABLE stock (id INTEGER PRIMARY KEY, available INTEGER, version INTEGER); INSERT INTO stock VALUES (1, 10, 1)"
                ]))
        let stock = try VersionedTable("stock", key: ["id"], version: .number("version"))
        let scene = try Operations(store: store).scene(Policy(scene: "reserve", effect: .localTransaction, minimum: .atomic))
        for _ in 0..<2 {
            let left = try await scene.perform("k", payload: 3, inTransactionOf: store) { transaction in
                let row = try stock.read(["available"], key: [1], in: .sqlite).run(in: transaction)!
                let left = row.values[0].integer! - 3
                _ = try stock.change(["available": .integer(left)], key: [1], from: row.version, in: .sqlite).run(in: transaction).get()
                return left
            }
            #expect(left.value == 7)
        }
        await store.close()
    }
}
