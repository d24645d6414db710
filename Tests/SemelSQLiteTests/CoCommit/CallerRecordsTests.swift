import Foundation
import Semel
@testable import SemelSQLite
import Testing

@Suite("The record in a transaction of the caller's own driver")
struct CallerRecordsTests {
    private let folder = TemporaryFolder()
    private let records = CallerRecords(.sqlite)

    private func open(creating: Bool = true) throws -> OwnDriver {
        let driver = try OwnDriver(path: folder.database)
        if creating {
            for statement in records.schema { _ = try driver.execute(statement) }
            _ = try driver.run("CREATE TABLE account (name TEXT PRIMARY KEY, balance INTEGER NOT NULL)")
            _ = try driver.run("INSERT INTO account VALUES ('a', 100)")
        }
        return driver
    }

    private struct Interrupted: Error {}

    private func withdraw(
        _ amount: Int64, key: String, _ driver: OwnDriver, retention: Retention = .standard, then: () throws -> Void = {}
    ) async throws -> CallerRecords.Result<Int64> {
        try await driver.transaction { transaction in
            try await records.once(
                key, in: Scope("tenant"), scene: "withdraw", payload: amount, retention: retention, inTransaction: transaction
            ) {
                guard let balance = try transaction.integer("SELECT balance FROM account"), balance >= amount else {
                    _ = try transaction.run("UPDATE account SET balance = -1")
                    throw PermanentFailure(code: "no-funds", message: "too little")
                }
                _ = try transaction.run("UPDATE account SET balance = balance - ?1", .integer(amount))
                try then()
                return balance - amount
            }
        }
    }

    @Test("is one with the caller's writes: a repeat replays, and they happen once (R14)")
    func once() async throws {
        let driver = try open()
        guard case .performed(70, let receipt) = try await withdraw(30, key: "k", driver) else { return _ = Issue.record("it runs") }
        #expect(receipt.guarantee == .atomic && receipt.epoch > .zero)
        for _ in 0..<3 {
            guard case .replayed(70, let again) = try await withdraw(30, key: "k", driver) else {
                return _ = Issue.record("it is replayed")
            }
            #expect(again == receipt)
        }
        #expect(try driver.integer("SELECT balance FROM account") == 70)
    }

    @Test("is undone with the caller's writes, and the key is free")
    func rolledBack() async throws {
        let driver = try open()
        await #expect(throws: Interrupted.self) { _ = try await withdraw(30, key: "k", driver) { throw Interrupted() } }
        #expect(try driver.integer("SELECT balance FROM account") == 100)
        #expect(try driver.integer("SELECT count(*) FROM semel_atomic") == 0)
        guard case .performed(70, _) = try await withdraw(30, key: "k", driver) else { return _ = Issue.record("it runs") }
    }

    @Test("keeps a permanent failure without the writes before it, and replays it")
    func permanentFailure() async throws {
        let driver = try open()
        guard case .failed(let failure, isReplay: false) = try await withdraw(500, key: "k", driver) else {
            return _ = Issue.record("it fails")
        }
        #expect(failure.code == "no-funds")
        #expect(try driver.integer("SELECT balance FROM account") == 100)
        _ = try driver.run("UPDATE account SET balance = 1000")
        guard case .failed(failure, isReplay: true) = try await withdraw(500, key: "k", driver) else {
            return _ = Issue.record("it is replayed")
        }
    }

    @Test("refuses the key for another payload (H25), and after its outcome has expired (H22)")
    func refuses() async throws {
        let driver = try open()
        let retention = Retention(response: .milliseconds(1), key: .seconds(1000))
        _ = try await withdraw(30, key: "k", driver, retention: retention)
        let mismatch = await #expect(throws: OperationError.self) { _ = try await withdraw(31, key: "k", driver) }
        #expect(mismatch?.code == .refused(.mismatch))
        try await Task.sleep(for: .milliseconds(20))
        let expired = await #expect(throws: OperationError.self) { _ = try await withdraw(30, key: "k", driver) }
        #expect(expired?.code == .refused(.expired))
        #expect(try driver.integer("SELECT balance FROM account") == 70)
    }

    @Test("lets a key run again when its retention has ended, with a higher epoch, purged or not")
    func runsAgain() async throws {
        let driver = try open()
        let brief = Retention(response: .milliseconds(1), key: .milliseconds(1))
        var last = Epoch.zero
        for round in 0..<3 {
            guard case .performed(_, let receipt) = try await withdraw(10, key: "k", driver, retention: brief) else {
                return _ = Issue.record("it runs")
            }
            #expect(receipt.epoch > last)
            last = receipt.epoch
            try await Task.sleep(for: .milliseconds(20))
            if round == 1 { #expect(try await records.purge(limit: 10).run(in: driver) == 1) }
        }
        #expect(try driver.integer("SELECT balance FROM account") == 70)
    }

    @Test("is granted to one of many connections at once (H15)")
    func race() async throws {
        let first = try open()
        let values = try await withThrowingTaskGroup(of: (Int64, Bool).self) { group in
            for _ in 0..<8 {
                group.addTask {
                    let driver = try open(creating: false)
                    switch try await withdraw(30, key: "k", driver) {
                    case .performed(let value, _): return (value, true)
                    case .replayed(let value, _): return (value, false)
                    case .failed(let failure, _): throw failure
                    }
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(values.count { $0.1 } == 1 && values.allSatisfy { $0.0 == 70 })
        #expect(try first.integer("SELECT balance FROM account") == 70)
    }

    @Test("leaves a key uncertain that was committed without an outcome, and fails closed on a damaged one (H18)")
    func incomplete() async throws {
        let driver = try open()
        let open = request(key("open"))
        guard case .granted = try await records.claim(open).run(in: driver) else { return _ = Issue.record("it is granted") }
        var other = open
        other.owner = Owner(high: 9, low: 9)
        guard case .uncertain = try await records.claim(other).run(in: driver) else { return _ = Issue.record("it is uncertain") }

        _ = try await withdraw(30, key: "k", driver)
        _ = try driver.run("UPDATE semel_atomic SET outcome = X'010203' WHERE outcome IS NOT NULL")
        let damaged = await #expect(throws: StoreError.self) { _ = try await withdraw(30, key: "k", driver) }
        #expect(damaged?.code == .damaged)
    }

    @Test("can be completed only in the transaction that claimed it")
    func completesItsOwn() throws {
        let driver = try open()
        let mine = request(key("k"))
        guard case .granted(let grant) = try records.claim(mine).run(in: driver) else { return _ = Issue.record("it is granted") }
        var forged = grant
        forged.token = FencingToken(epoch: grant.token.epoch, owner: Owner(high: 0, low: 0))
        #expect(throws: SQLHelperError.self) { try records.complete(mine, forged, with: outcome("x")).run(in: driver) }
        try records.complete(mine, grant, with: outcome("x")).run(in: driver)
        guard case .completed(let record) = try records.claim(request(key("k"), 7)).run(in: driver) else {
            return _ = Issue.record("it is completed")
        }
        #expect(record.outcome == outcome("x") && record.retention == .standard)
    }
}
