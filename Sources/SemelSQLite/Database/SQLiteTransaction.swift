import CSQLite
import Semel

/// The transaction that a body of ``SQLiteStore/perform(_:_:)`` shares with the record of its operation.
///
/// It takes statements with bound parameters. Statements that would end the transaction, attach another file, change a
/// setting of the connection, or change the store's own tables (`semel_…`) or their form are refused; reading these is not,
/// but what is in them is no interface. Not valid outside of the body.
public final class SQLiteTransaction {
    private let database: Database
    private let isReadOnly: Bool
    private var isOver = false
    private(set) var hasWritten = false
    /// An error after which the whole transaction is lost, whatever the body makes of it.
    private(set) var fatalError: SQLiteError?

    init(_ database: Database, isReadOnly: Bool) {
        self.database = database
        self.isReadOnly = isReadOnly
    }

    func end() { isOver = true }

    /// Runs one statement, and returns how many rows it changed, inserted or deleted.
    /// - Throws: ``SQLiteError``; a failed statement has changed nothing, and the transaction goes on unless the error is
    ///   thrown on.
    @discardableResult
    public func execute(_ sql: String, _ parameters: SQLiteValue...) throws(SQLiteError) -> Int {
        try execute(sql, parameters)
    }

    @discardableResult
    public func execute(_ sql: String, _ parameters: [SQLiteValue]) throws(SQLiteError) -> Int {
        let before = database.totalChanges
        _ = try rows(sql, parameters)
        return Int(database.totalChanges - before)
    }

    /// Runs one statement and returns its rows.
    public func query(_ sql: String, _ parameters: SQLiteValue...) throws(SQLiteError) -> [SQLiteRow] {
        try rows(sql, parameters)
    }

    public func query(_ sql: String, _ parameters: [SQLiteValue]) throws(SQLiteError) -> [SQLiteRow] {
        try rows(sql, parameters)
    }

    private func rows(_ sql: String, _ parameters: [SQLiteValue]) throws(SQLiteError) -> [SQLiteRow] {
        guard !isOver else { throw SQLiteError(code: SQLITE_MISUSE, message: "the transaction is over") }
        if let fatalError { throw fatalError }
        do throws(SQLiteError) {
            let statement = try database.prepareForCaller(sql)
            guard statement.parameterCount == parameters.count else {
                throw SQLiteError(
                    code: SQLITE_RANGE, message: "the statement has \(statement.parameterCount) parameters, \(parameters.count) were given")
            }
            if !statement.isReadOnly {
                guard !isReadOnly else { throw SQLiteError(code: SQLITE_READONLY, message: "only reading is allowed here") }
                hasWritten = true
            }
            for (index, value) in parameters.enumerated() { try statement.bind(value, at: index + 1) }
            var rows: [SQLiteRow] = []
            let names = (0..<statement.columnCount).map { statement.name($0) }
            while try statement.step() {
                rows.append(SQLiteRow(names: names, values: (0..<names.count).map { statement.value($0) }))
            }
            return rows
        } catch {
            if !database.isInTransaction || error.isFull || error.isGrave { fatalError = error }
            throw error
        }
    }
}

/// A value of a parameter or a column.
public enum SQLiteValue: Hashable, Sendable, ExpressibleByIntegerLiteral, ExpressibleByStringLiteral, ExpressibleByFloatLiteral,
    ExpressibleByNilLiteral
{
    case null
    case integer(Int64)
    case real(Double)
    case text(String)
    case blob([UInt8])

    public init(integerLiteral value: Int64) { self = .integer(value) }
    public init(floatLiteral value: Double) { self = .real(value) }
    public init(stringLiteral value: String) { self = .text(value) }
    public init(nilLiteral: ()) { self = .null }
}

public struct SQLiteRow: Hashable, Sendable {
    public let names: [String]
    public let values: [SQLiteValue]

    /// The value in a column, by its place from 0.
    public subscript(column: Int) -> SQLiteValue { values[column] }

    /// The value in the first column of that name; `null` when there is none.
    public subscript(name: String) -> SQLiteValue { names.firstIndex(of: name).map { values[$0] } ?? .null }
}

extension SQLiteValue {
    public var integer: Int64? { if case .integer(let value) = self { value } else { nil } }
    public var text: String? { if case .text(let value) = self { value } else { nil } }
}

extension Statement {
    fileprivate func bind(_ value: SQLiteValue, at index: Int) throws(SQLiteError) {
        switch value {
        case .null: try bindNull(at: index)
        case .integer(let value): try bind(value, at: index)
        case .real(let value): try bind(value, at: index)
        case .text(let value): try bind(value, at: index)
        case .blob(let value): try bind(value, at: index)
        }
    }

    fileprivate func value(_ column: Int) -> SQLiteValue {
        switch type(column) {
        case SQLITE_INTEGER: .integer(integer(column))
        case SQLITE_FLOAT: .real(double(column))
        case SQLITE_TEXT: .text(text(column))
        case SQLITE_BLOB: .blob(bytes(column))
        default: .null
        }
    }
}

extension Database {
    /// Prepares a statement that is not ours, under an authorizer.
    fileprivate func prepareForCaller(_ sql: String) throws(SQLiteError) -> Statement {
        sqlite3_set_authorizer(handle, authorizeCaller, nil)
        defer { sqlite3_set_authorizer(handle, nil, nil) }
        return try prepare(sql, isPersistent: false)
    }
}

/// What the caller's statements may do: anything with the caller's own tables.
private func authorizeCaller(
    _: UnsafeMutableRawPointer?, action: CInt, first: UnsafePointer<CChar>?, second: UnsafePointer<CChar>?,
    _: UnsafePointer<CChar>?, _: UnsafePointer<CChar>?
) -> CInt {
    switch action {
    case SQLITE_TRANSACTION, SQLITE_SAVEPOINT, SQLITE_ATTACH, SQLITE_DETACH, SQLITE_PRAGMA: return SQLITE_DENY
    case SQLITE_READ, SQLITE_SELECT, SQLITE_FUNCTION, SQLITE_RECURSIVE: return SQLITE_OK
    default:
        let names = [first, second].compactMap { $0.map { String(cString: $0).lowercased() } }
        return names.contains { $0.hasPrefix("semel_") } ? SQLITE_DENY : SQLITE_OK
    }
}
