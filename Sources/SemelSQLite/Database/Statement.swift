import CSQLite

/// A prepared statement. Every use binds all parameters; `run` and the last `step` leave it ready for the next.
final class Statement {
    private let pointer: OpaquePointer
    private unowned let database: Database

    init(_ pointer: OpaquePointer, of database: Database) {
        self.pointer = pointer
        self.database = database
    }

    deinit { sqlite3_finalize(pointer) }

    func bind(_ value: Int64, at index: Int) throws(SQLiteError) {
        try database.check(sqlite3_bind_int64(pointer, CInt(index), value))
    }

    func bind(_ value: Double, at index: Int) throws(SQLiteError) {
        try database.check(sqlite3_bind_double(pointer, CInt(index), value))
    }

    func bind(_ value: String, at index: Int) throws(SQLiteError) {
        // With its length, or SQLite takes the text to end at U+0000.
        let count = UInt64(value.utf8.count)
        try database.check(
            value.withCString { sqlite3_bind_text64(pointer, CInt(index), $0, count, Self.copied, UInt8(SQLITE_UTF8)) })
    }

    func bindNull(at index: Int) throws(SQLiteError) {
        try database.check(sqlite3_bind_null(pointer, CInt(index)))
    }

    func bind(_ value: [UInt8], at index: Int) throws(SQLiteError) {
        // An empty array has no address, which SQLite would take for NULL.
        let code = value.isEmpty
            ? sqlite3_bind_zeroblob(pointer, CInt(index), 0)
            : sqlite3_bind_blob64(pointer, CInt(index), value, UInt64(value.count), Self.copied)
        try database.check(code)
    }

    /// Steps to the next row; `false` at the end, when the statement is reset.
    func step() throws(SQLiteError) -> Bool {
        switch sqlite3_step(pointer) {
        case SQLITE_ROW: return true
        case SQLITE_DONE:
            sqlite3_reset(pointer)
            return false
        case let code:
            let error = database.error(code)
            sqlite3_reset(pointer)
            throw error
        }
    }

    func reset() { sqlite3_reset(pointer) }

    func run() throws(SQLiteError) {
        while try step() {}
    }

    /// Runs with a row number and a value.
    func run(_ row: Int64, _ value: [UInt8]) throws(SQLiteError) {
        try bind(row, at: 1)
        try bind(value, at: 2)
        try run()
    }

    func run(_ row: Int64) throws(SQLiteError) {
        try bind(row, at: 1)
        try run()
    }

    func isNull(_ column: Int) -> Bool { sqlite3_column_type(pointer, CInt(column)) == SQLITE_NULL }
    func type(_ column: Int) -> CInt { sqlite3_column_type(pointer, CInt(column)) }
    func integer(_ column: Int) -> Int64 { sqlite3_column_int64(pointer, CInt(column)) }
    func double(_ column: Int) -> Double { sqlite3_column_double(pointer, CInt(column)) }

    func text(_ column: Int) -> String {
        guard let start = sqlite3_column_text(pointer, CInt(column)) else { return "" }
        let count = Int(sqlite3_column_bytes(pointer, CInt(column)))
        return String(decoding: UnsafeBufferPointer(start: start, count: count), as: UTF8.self)
    }

    func bytes(_ column: Int) -> [UInt8] {
        guard let start = sqlite3_column_blob(pointer, CInt(column)) else { return [] }
        return Array(UnsafeRawBufferPointer(start: start, count: Int(sqlite3_column_bytes(pointer, CInt(column)))))
    }

    /// Lends a value's bytes, until the next step.
    func withBytes<Result>(_ column: Int, _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        let start = sqlite3_column_blob(pointer, CInt(column))
        return body(UnsafeRawBufferPointer(start: start, count: start == nil ? 0 : Int(sqlite3_column_bytes(pointer, CInt(column)))))
    }

    var columnCount: Int { Int(sqlite3_column_count(pointer)) }
    func name(_ column: Int) -> String { sqlite3_column_name(pointer, CInt(column)).map { String(cString: $0) } ?? "" }
    var parameterCount: Int { Int(sqlite3_bind_parameter_count(pointer)) }
    var isReadOnly: Bool { sqlite3_stmt_readonly(pointer) != 0 }

    /// SQLITE_TRANSIENT: SQLite copies the value before the call returns.
    private static let copied = unsafeBitCast(-1, to: sqlite3_destructor_type.self)
}
