import CSQLite

/// One connection to an SQLite database. It belongs to one thread.
final class Connection {
    private let handle: OpaquePointer
    /// Compiled statements by their text: compiling costs more than running these.
    private var statements: [String: OpaquePointer] = [:]
    private var isOpen = true

    /// Opens or creates the database, with a write-ahead log that is synced at every commit.
    init(path: String) throws {
        var handle: OpaquePointer?
        let flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX
        let code = sqlite3_open_v2(path, &handle, flags, nil)
        guard code == SQLITE_OK, let handle else {
            let message = handle.map { String(cString: sqlite3_errmsg($0)) } ?? String(cString: sqlite3_errstr(code))
            sqlite3_close_v2(handle)
            throw DatabaseError(code: code, message: "cannot open \(path): \(message)")
        }
        self.handle = handle
        sqlite3_busy_timeout(handle, 5_000)
        guard try rows("PRAGMA journal_mode = WAL", read: { $0.text(0) }) == ["wal"] else {
            throw DatabaseError(code: SQLITE_ERROR, message: "\(path) cannot have a write-ahead log; put it on a local disk")
        }
        try run("PRAGMA synchronous = FULL")
    }

    deinit { close() }

    /// Closes the database, which folds the write-ahead log into its file. Nothing may be asked of the connection afterwards.
    func close() {
        guard isOpen else { return }
        isOpen = false
        for statement in statements.values { sqlite3_finalize(statement) }
        statements = [:]
        sqlite3_close_v2(handle)
    }

    /// Runs a statement whose rows are of no interest.
    func run(_ sql: String, _ values: Value...) throws {
        _ = try rows(sql, values) { _ in }
    }

    /// Runs a statement and reads each of its rows.
    func rows<Element>(_ sql: String, _ values: Value..., read: (Row) throws -> Element) throws -> [Element] {
        try rows(sql, values, read: read)
    }

    private func rows<Element>(_ sql: String, _ values: [Value], read: (Row) throws -> Element) throws -> [Element] {
        let statement = try compiled(sql)
        defer {
            sqlite3_reset(statement)
            sqlite3_clear_bindings(statement)
        }
        for (index, value) in values.enumerated() {
            try check(value.bind(to: statement, at: Int32(index + 1)))
        }
        var elements: [Element] = []
        while true {
            switch sqlite3_step(statement) {
            case SQLITE_ROW: elements.append(try read(Row(statement: statement)))
            case SQLITE_DONE: return elements
            case let code: try check(code)
            }
        }
    }

    private func compiled(_ sql: String) throws -> OpaquePointer {
        if let statement = statements[sql] { return statement }
        var statement: OpaquePointer?
        try check(sqlite3_prepare_v3(handle, sql, -1, UInt32(SQLITE_PREPARE_PERSISTENT), &statement, nil))
        guard let statement else { throw DatabaseError(code: SQLITE_MISUSE, message: "no statement in: \(sql)") }
        statements[sql] = statement
        return statement
    }

    private func check(_ code: Int32) throws {
        guard code == SQLITE_OK else { throw DatabaseError(code: code, message: String(cString: sqlite3_errmsg(handle))) }
    }
}

struct DatabaseError: Error, CustomStringConvertible {
    let code: Int32
    let message: String

    var description: String { "SQLite \(code): \(message)" }
}

/// A value of a column.
enum Value: Sendable {
    case null
    case integer(Int64)
    case text(String)

    static func text(optional text: String?) -> Value { text.map(Value.text) ?? .null }

    fileprivate func bind(to statement: OpaquePointer, at index: Int32) -> Int32 {
        switch self {
        case .null: sqlite3_bind_null(statement, index)
        case .integer(let number): sqlite3_bind_int64(statement, index, number)
        case .text(let text): sqlite3_bind_text(statement, index, text, -1, transient)
        }
    }
}

/// SQLITE_TRANSIENT, a macro that Swift does not import: SQLite copies what is bound.
private var transient: sqlite3_destructor_type { unsafeBitCast(-1, to: sqlite3_destructor_type.self) }

/// The current row of a statement that runs.
struct Row {
    fileprivate let statement: OpaquePointer

    func integer(_ column: Int32) -> Int64 { sqlite3_column_int64(statement, column) }

    func text(_ column: Int32) -> String { sqlite3_column_text(statement, column).map { String(cString: $0) } ?? "" }
}
