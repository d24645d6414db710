/// A transaction that the caller's own driver has open, so that Semel can put its record beside the caller's writes.
///
/// Conform a type of yours over whatever the driver gives: it runs one statement with its values bound, and tells how many
/// rows it changed. Semel never begins, commits or rolls back; it only sets savepoints of its own.
///
/// What the helpers rely on:
/// - Values are bound, never written into the text.
/// - ``execute(_:)`` counts the rows that were really changed, inserted or deleted. In MySQL that is the default; a
///   connection with `CLIENT_FOUND_ROWS` counts those that were found, and makes an ignored insert look like a real one.
/// - A statement that fails throws, and what was done before it in the transaction stands, as far as the engine lets it.
public protocol CallerTransaction {
    var dialect: SQLDialect { get }

    /// Runs a statement and returns how many rows it changed.
    nonisolated(nonsending) func execute(_ statement: SQLStatement) async throws -> Int
    /// Runs a statement and returns its rows, each with its columns in order.
    nonisolated(nonsending) func query(_ statement: SQLStatement) async throws -> [[SQLValue]]
}

/// The same for a driver whose calls block: GRDB, the C API, or the transaction that an embedded store lends.
public protocol BlockingCallerTransaction {
    var dialect: SQLDialect { get }

    func execute(_ statement: SQLStatement) throws -> Int
    func query(_ statement: SQLStatement) throws -> [[SQLValue]]
}

/// What to ask a database, and what to make of its answers: the rule itself, without a driver. It runs in any transaction,
/// blocking or not.
public indirect enum SQLDialogue<Value> {
    case execute(SQLStatement, (Int) throws -> SQLDialogue)
    case query(SQLStatement, ([[SQLValue]]) throws -> SQLDialogue)
    case done(Value)

    /// Holds the dialogue.
    public nonisolated(nonsending) func run(in transaction: some CallerTransaction) async throws -> Value {
        var step = self
        while true {
            switch step {
            case .execute(let statement, let next): step = try next(try await transaction.execute(statement))
            case .query(let statement, let next): step = try next(try await transaction.query(statement))
            case .done(let value): return value
            }
        }
    }

    /// Holds the dialogue.
    public func run(in transaction: some BlockingCallerTransaction) throws -> Value {
        var step = self
        while true {
            switch step {
            case .execute(let statement, let next): step = try next(try transaction.execute(statement))
            case .query(let statement, let next): step = try next(try transaction.query(statement))
            case .done(let value): return value
            }
        }
    }
}

/// A database did not do what a helper rests on.
public struct SQLHelperError: Error, Hashable, CustomStringConvertible {
    public let description: String

    init(_ description: String) { self.description = description }
}
