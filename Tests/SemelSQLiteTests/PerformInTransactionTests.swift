import Foundation
import Semel
import SemelSQLite
import Testing

@Suite("Performing an operation in the embedded database's own transaction")
struct PerformInTransactionTests {
    private func withScene(_ body: (Scene, SQLiteStore) async throws -> Void) async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("semel-atomic-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let store = try await SQLiteStore(
            path: folder.appendingPathComponent("semel.db").path,
            configuration: .init(reserve: 1 << 20, migrations: ["CREATE TABLE account (name TEXT PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0)); INSERT INTO account VALUES ('a', 100)"]))
        let scene = try Operations(store: store).scene(Policy(scene: "withdraw", effect: .localTransaction, minimum: .atomic))
        #expect(scene.guarantee == .atomic)
        try await body(scene, store)
        await store.close()
        try FileManager.default.removeItem(at: folder)
    }

    private func withdraw(_ amount: Int64, key: String, _ scene: Scene, _ store: SQLiteStore) async throws -> Performance<Int64> {
        try await scene.perform(key, payload: amount, inTransactionOf: store) { transaction in
            let balance = try transaction.query("SELECT balance FROM account WHERE name = ?1", "a")[0][0].integer!
            guard balance >= amount else { throw PermanentFailure(code: "no-funds", message: "the balance is \(balance)") }
            _ = try transaction.execute("UPDATE account SET balance = balance - ?1 WHERE name = 'a'", .integer(amount))
            return balance - amount
        }
    }

    private struct Interrupted: Error {}

    private func balance(_ store: SQLiteStore) async throws -> Int64? {
        try await store.read { try $0.query("SELECT balance FROM account")[0][0].integer }
    }

    @Test("writes and record are one: repeats replay, and the balance changes once (R14)")
    func once() async throws {
        try await withScene { scene, store in
            for attempt in 0..<3 {
                let result = try await withdraw(30, key: "w-1", scene, store)
                #expect(result.value == 70)
                if attempt > 0 { guard case .replayed = result else { return _ = Issue.record("it ran again") } }
            }
            #expect(try await balance(store) == 70)
        }
    }

    @Test("a store that is only counted is the same store")
    func metered() async throws {
        try await withScene { _, store in
            let metered = MeteredStore(store, metrics: SemelMetrics(), uptime: Environment.live.uptime)
            let scene = try Operations(store: metered).scene(Policy(scene: "withdraw", effect: .localTransaction, minimum: .atomic))
            #expect(try await withdraw(30, key: "w-1", scene, store).value == 70)
            #expect(try await balance(store) == 70)
        }
    }

    @Test("64 callers with one key withdraw once (H15)")
    func race() async throws {
        try await withScene { scene, store in
            let values = try await withThrowingTaskGroup(of: Int64.self) { group in
                for _ in 0..<64 { group.addTask { try await withdraw(30, key: "w-1", scene, store).value } }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(values == Array(repeating: 70, count: 64))
            #expect(try await balance(store) == 70)
        }
    }

    @Test("a permanent failure undoes the writes and is replayed, even when it would succeed now")
    func permanentFailure() async throws {
        try await withScene { scene, store in
            await #expect(throws: PermanentFailure.self) { _ = try await withdraw(500, key: "w-1", scene, store) }
            _ = try await scene.perform("deposit", payload: 1, inTransactionOf: store) { try $0.execute("UPDATE account SET balance = 1000") }
            let again = await #expect(throws: PermanentFailure.self) { _ = try await withdraw(500, key: "w-1", scene, store) }
            #expect(again?.message == "the balance is 100")
            #expect(try await balance(store) == 1000)
        }
    }

    @Test("any other error undoes the writes and leaves the key free")
    func transientFailure() async throws {
        try await withScene { (scene: Scene, store: SQLiteStore) async throws -> Void in
            await #expect(throws: Interrupted.self) {
                _ = try await scene.perform("w-1", payload: Int64(30), inTransactionOf: store) { transaction -> Int64 in
                    _ = try transaction.execute("UPDATE account SET balance = balance - 30")
                    throw Interrupted()
                }
            }
            #expect(try await balance(store) == 100)
            #expect(try await withdraw(30, key: "w-1", scene, store).value == 70)
        }
    }
}
