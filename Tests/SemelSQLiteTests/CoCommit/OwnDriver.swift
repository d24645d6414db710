import CSQLite
import Semel
@testable import SemelSQLite

/// A driver that is not the store's: a connection of its own to a database of the caller's.
final class OwnDriver: CallerTransaction, BlockingCallerTransaction {
    let database: Database
    let dialect = SQLDialect.sqlite
    /// Called before each statement; a test may throw here, or let somebody else in.
    var beforeStatement: (SQLStatement) throws -> Void = { _ in }

    init(path: String) throws {
        database = try Database(path: path, vfs: nil)
        try database.execute("PRAGMA journal_mode = WAL; PRAGMA busy_timeout = 20000")
    }

    func execute(_ statement: SQLStatement) throws -> Int {
        try beforeStatement(statement)
        let before = database.totalChanges
        _ = try rows(of: statement)
        return Int(database.totalChanges - before)
    }

    func query(_ statement: SQLStatement) throws -> [[SQLValue]] {
        try beforeStatement(statement)
        return try rows(of: statement)
    }

    private func rows(of statement: SQLStatement) throws -> [[SQLValue]] {
        let prepared = try database.prepare(statement.text, isPersistent: false)
        guard prepared.parameterCount == statement.values.count else {
            throw SQLiteError(code: SQLITE_RANGE, message: "\(statement.text) has \(prepared.parameterCount) parameters")
        }
        for (index, value) in statement.values.enumerated() {
            switch value {
            case .null: try prepared.bindNull(at: index + 1)
            case .boolean(let value): try prepared.bind(Int64(value ? 1 : 0), at: index + 1)
            case .integer(let value): try prepared.bind(value, at: index + 1)
            case .real(let value): try prepared.bind(value, at: index + 1)
            case .text(let value): try prepared.bind(value, at: index + 1)
            case .blob(let value): try prepared.bind(value, at: index + 1)
            }
        }
        var rows: [[SQLValue]] = []
        while try prepared.step() {
            rows.append(
                (0..<prepared.columnCount).map { column in
                    switch prepared.type(column) {
                    case SQLITE_INTEGER: .integer(prepared.integer(column))
                    case SQLITE_FLOAT: .real(prepared.double(column))
                    case SQLITE_TEXT: .text(prepared.text(column))
                    case SQLITE_BLOB: .blob(prepared.bytes(column))
                    default: .null
                    }
                })
        }
        return rows
    }

    func run(_ sql: String, _ values: SQLValue...) throws -> Int { try execute(SQLStatement(text: sql, values: values)) }
    func integer(_ sql: String) throws -> Int64? { try query(SQLStatement(text: sql)).first?.first?.integer }

    /// What every driver has in some form.
    func transaction<Value>(_ body: (OwnDriver) async throws -> Value) async throws -> Value {
        try database.execute("BEGIN IMMEDIATE")
        do {
            let value = try await body(self)
            try database.execute("COMMIT")
            return value
        } catch {
            if database.isInTransaction { try database.execute("ROLLBACK") }
            throw error
        }
    }
}
