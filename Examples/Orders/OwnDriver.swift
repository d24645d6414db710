import CSQLite
import Semel

// The same orders with a database library of your own: Semel writes its record in a transaction that *you* open and commit.
//
// All that Semel needs is a type with three members. This one stands on the C API of SQLite, as a stand-in for whatever
// your service uses already: PostgresNIO, MySQLNIO, GRDB …

/// Your connection, as it was before you heard of Semel.
final class Connection {
    private let handle: OpaquePointer

    init(path: String) throws {
        var opened: OpaquePointer?
        let code = sqlite3_open_v2(path, &opened, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nil)
        guard code == SQLITE_OK, let opened else { throw DriverError(code: code, message: "cannot open \(path)") }
        handle = opened
    }

    deinit { sqlite3_close_v2(handle) }

    /// Runs one statement with its values bound, and returns its rows and how many rows it changed.
    @discardableResult
    func run(_ sql: String, _ values: [SQLValue] = []) throws -> (rows: [[SQLValue]], changed: Int) {
        var prepared: OpaquePointer?
        try check(sqlite3_prepare_v2(handle, sql, -1, &prepared, nil))
        defer { sqlite3_finalize(prepared) }
        for (index, value) in values.enumerated() { try bind(value, at: CInt(index + 1), of: prepared) }
        let before = sqlite3_total_changes64(handle)
        var rows: [[SQLValue]] = []
        while true {
            switch sqlite3_step(prepared) {
            case SQLITE_ROW: rows.append((0..<sqlite3_column_count(prepared)).map { column($0, of: prepared) })
            case SQLITE_DONE: return (rows, Int(sqlite3_total_changes64(handle) - before))
            case let code: throw DriverError(code: code, message: String(cString: sqlite3_errmsg(handle)))
            }
        }
    }

    func transaction<Value>(_ body: () async throws -> Value) async throws -> Value {
        try run("BEGIN IMMEDIATE")
        do {
            let value = try await body()
            try run("COMMIT")
            return value
        } catch {
            // The first error is the one to tell; a rollback that fails leaves a transaction that is rolled back at closing.
            _ = try? run("ROLLBACK")
            throw error
        }
    }

    private func check(_ code: CInt) throws {
        guard code == SQLITE_OK else { throw DriverError(code: code, message: String(cString: sqlite3_errmsg(handle))) }
    }

    private func bind(_ value: SQLValue, at index: CInt, of statement: OpaquePointer?) throws {
        let copied = unsafeBitCast(-1, to: sqlite3_destructor_type.self)
        switch value {
        case .null: try check(sqlite3_bind_null(statement, index))
        case .boolean(let value): try check(sqlite3_bind_int64(statement, index, value ? 1 : 0))
        case .integer(let value): try check(sqlite3_bind_int64(statement, index, value))
        case .real(let value): try check(sqlite3_bind_double(statement, index, value))
        case .text(let value): try check(sqlite3_bind_text(statement, index, value, CInt(value.utf8.count), copied))
        case .blob(let value):
            // An empty array has no address, which SQLite would take for NULL.
            try check(
                value.isEmpty
                    ? sqlite3_bind_zeroblob(statement, index, 0) : sqlite3_bind_blob64(statement, index, value, UInt64(value.count), copied)
            )
        }
    }

    private func column(_ index: CInt, of statement: OpaquePointer?) -> SQLValue {
        let count = Int(sqlite3_column_bytes(statement, index))
        switch sqlite3_column_type(statement, index) {
        case SQLITE_INTEGER: return .integer(sqlite3_column_int64(statement, index))
        case SQLITE_FLOAT: return .real(sqlite3_column_double(statement, index))
        case SQLITE_TEXT:
            return .text(String(decoding: UnsafeBufferPointer(start: sqlite3_column_text(statement, index), count: count), as: UTF8.self))
        case SQLITE_BLOB: return .blob(Array(UnsafeRawBufferPointer(start: sqlite3_column_blob(statement, index), count: count)))
        default: return .null
        }
    }
}

struct DriverError: Error {
    var code: CInt
    var message: String
}

/// The adapter: this is all there is to it.
extension Connection: CallerTransaction {
    var dialect: SQLDialect { .sqlite }
    nonisolated(nonsending) func execute(_ statement: SQLStatement) async throws -> Int {
        try run(statement.text, statement.values).changed
    }
    nonisolated(nonsending) func query(_ statement: SQLStatement) async throws -> [[SQLValue]] {
        try run(statement.text, statement.values).rows
    }
}

/// Orders and optimistic locking on a connection of one's own.
func ordersOnOwnDriver(path: String) async throws {
    let connection = try Connection(path: path)
    let records = CallerRecords(.sqlite)
    if try connection.run("SELECT 1 FROM sqlite_master WHERE name = 'stock'").rows.isEmpty {
        for statement in records.schema { try connection.run(statement.text) }
        try connection.run("CREATE TABLE stock (article TEXT PRIMARY KEY, available INTEGER NOT NULL, version INTEGER NOT NULL)")
        try connection.run("INSERT INTO stock VALUES ('lamp', 10, 1)")
    }
    let stock = try VersionedTable("stock", key: ["article"], version: .number("version"))

    for (key, order) in [
        ("order-1", Order(article: "lamp", count: 3)), ("order-2", Order(article: "lamp", count: 9)),
        ("order-1", Order(article: "lamp", count: 3)),
    ] {
        let result = try await connection.transaction {
            try await records.once(key, scene: "order", payload: order, inTransaction: connection) {
                let row = try await stock.read(["available"], key: [.text(order.article)], in: .sqlite).run(in: connection)
                guard let row, let available = row.values[0].integer, available >= order.count else {
                    throw PermanentFailure(code: "sold-out", message: "fewer than \(order.count) of \(order.article)")
                }
                let left = available - Int64(order.count)
                _ = try await stock.change(["available": .integer(left)], key: [.text(order.article)], from: row.version, in: .sqlite)
                    .run(in: connection).get()
                return left
            }
        }
        switch result {
        case .performed(let left, _): print("\(key): ordered, \(left) left")
        case .replayed(let left, _): print("\(key): ordered before, \(left) were left")
        case .failed(let failure, let isReplay): print("\(key): \(failure)\(isReplay ? " (as before)" : "")")
        }
    }
}
