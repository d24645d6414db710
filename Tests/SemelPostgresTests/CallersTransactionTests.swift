#if Postgres
import Semel
@testable import SemelPostgres
import Testing

/// Another driver's connection, as an application has one: everything goes as text, and it begins and ends its transactions
/// by itself.
actor AnotherDriver: CallersTransaction {
    private let connection: Connection

    init(_ place: Place) throws {
        let target = try Target(url: place.url, schema: "semel")
        connection = try Connection(to: target, within: .seconds(60), uptime: Semel.Environment.live.uptime, name: "another driver")
    }

    func run(_ sql: String, _ parameters: [PostgresValue]) async throws -> [[PostgresValue]] {
        let statement = connection.statement(forCaller: sql)
        let rows = try connection.run([.callers(statement, parameters.map(\.parameter))], within: .seconds(120))[0].get()
        return (0..<rows.count).map { row in
            (0..<rows.columnCount).map { rows.isNull(row, $0) ? .null : PostgresValue(rows.text(row, $0), type: rows.type($0)) }
        }
    }

    func balance() async throws -> Int64? { try await run("SELECT balance FROM account", []).first?.first?.integer }
}

@Suite("A record in a transaction that the caller's own driver owns")
struct CallersTransactionTests {
    private func withDriver(_ body: (PostgresStore, AnotherDriver) async throws -> Void) async throws {
        let place = try await Place()
        let store = try await place.open()
        let driver = try AnotherDriver(place)
        _ = try await driver.run("CREATE TEMPORARY TABLE account (balance bigint NOT NULL)", [])
        _ = try await driver.run("INSERT INTO account VALUES (100)", [])
        try await body(store, driver)
        await store.close()
        try await place.drop()
    }

    private func withdraw(_ id: OperationID, _ store: PostgresStore, _ driver: AnotherDriver, end: String = "COMMIT") async throws -> CallersClaim {
        _ = try await driver.run("BEGIN", [])
        let claim = try await store.claim(request(id), in: driver)
        if case .granted(let open) = claim {
            _ = try await driver.run("UPDATE account SET balance = balance - $1", [30])
            try await open.complete(outcome("withdrawn"), in: driver)
        }
        _ = try await driver.run(end, [])
        if case .granted(let open) = claim, end == "COMMIT" { open.committed() }
        return claim
    }

    @Test("writes and record are one: committed once, replayed after, by either side")
    func once() async throws {
        try await withDriver { (store: PostgresStore, driver: AnotherDriver) async throws -> Void in
            let observation = store.observe(key("a"))
            guard case .granted(let open) = try await withdraw(key("a"), store, driver) else { throw Unexpected(description: "not granted") }
            #expect(open.grant.kind == .first)
            await observation.signalled()
            guard case .notRun(.completed(let record)) = try await withdraw(key("a"), store, driver) else { throw Unexpected(description: "it ran again") }
            #expect(record.outcome == outcome("withdrawn"))
            #expect(record.token == open.grant.token)
            #expect(try await driver.balance() == 70)
            guard case .completed(let replayed) = try await store.claim(request(key("a"))) else { throw Unexpected(description: "not replayed") }
            #expect(replayed == record)
        }
    }

    @Test("a roll-back undoes both, and the key is free")
    func rollback() async throws {
        try await withDriver { (store: PostgresStore, driver: AnotherDriver) async throws -> Void in
            _ = try await withdraw(key("a"), store, driver, end: "ROLLBACK")
            #expect(try await driver.balance() == 100)
            #expect(try await store.record(of: key("a")) == nil)
            guard case .granted = try await withdraw(key("a"), store, driver) else { throw Unexpected(description: "not granted") }
            #expect(try await driver.balance() == 70)
        }
    }

    @Test("what others hold is not run; what has expired runs again; a claim committed without completion is a claim")
    func others() async throws {
        try await withDriver { (store: PostgresStore, driver: AnotherDriver) async throws -> Void in
            _ = try await store.granted(request(key("held")))
            guard case .notRun(.inProgress) = try await withdraw(key("held"), store, driver) else { throw Unexpected(description: "it ran") }

            var brief = request(key("expired"))
            brief.retention = Retention(response: .milliseconds(1), key: .milliseconds(1))
            let grant = try await store.granted(brief)
            _ = try await store.apply(.complete(outcome("old")), to: brief.id, token: grant.token)
            try await Task.sleep(for: .milliseconds(20))
            guard case .granted(let open) = try await withdraw(key("expired"), store, driver) else { throw Unexpected(description: "not granted") }
            #expect(open.grant.token.epoch > grant.token.epoch)

            _ = try await driver.run("BEGIN", [])
            guard case .granted(let left) = try await store.claim(request(key("left")), in: driver) else { throw Unexpected(description: "not granted") }
            _ = try await driver.run("COMMIT", [])
            #expect(try await store.record(of: key("left"))?.token == left.grant.token)
            #expect(try await store.apply(.complete(outcome("late")), to: key("left"), token: left.grant.token) == .applied)
        }
    }

    @Test("completing in another transaction than that of the claim is refused")
    func elsewhere() async throws {
        try await withDriver { (store: PostgresStore, driver: AnotherDriver) async throws -> Void in
            _ = try await driver.run("BEGIN", [])
            guard case .granted(let open) = try await store.claim(request(key("a")), in: driver) else { throw Unexpected(description: "not granted") }
            _ = try await driver.run("ROLLBACK", [])
            _ = try await driver.run("BEGIN", [])
            await #expect(throws: StoreError.self) { try await open.complete(outcome("x"), in: driver) }
            _ = try await driver.run("ROLLBACK", [])
        }
    }
}
#endif
