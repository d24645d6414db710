#if MySQL
public import Semel

/// The transaction that a body of ``MySQLStore/perform(_:_:)`` shares with the record of its operation: READ COMMITTED, times
/// in UTC, strict mode.
///
/// It takes SELECT, INSERT, UPDATE, DELETE and REPLACE with bound parameters (`?`). Whatever could end the transaction is
/// refused, and so is what names the store's own tables (`semel_…`). Not seen: a view or a trigger of the caller's that
/// touches them, and tables of an engine without transactions, whose writes nobody can undo. Not valid outside of the body.
///
/// A deadlock, a lost connection or a lock that nobody lets go undoes the whole transaction, and the body runs again from
/// its beginning. So does one that says nothing to the server for a minute.
public final class MySQLTransaction {
    private let connection: Connection
    private let isReadOnly: Bool
    private var isOver = false
    /// An error after which the whole transaction is lost, whatever the body makes of it.
    private(set) var fatalError: MySQLError?

    init(_ connection: Connection, isReadOnly: Bool) {
        self.connection = connection
        self.isReadOnly = isReadOnly
    }

    func end() { isOver = true }

    /// Runs one statement, and returns how many rows it inserted, deleted, or met with its condition: an UPDATE that finds
    /// its row counts it, also where the row already was so.
    /// - Throws: ``MySQLError``; a failed statement has changed nothing, and the transaction goes on unless the error is
    ///   thrown on.
    @discardableResult
    public func execute(_ sql: String, _ parameters: MySQLValue...) throws(MySQLError) -> Int {
        try execute(sql, parameters)
    }

    @discardableResult
    public func execute(_ sql: String, _ parameters: [MySQLValue]) throws(MySQLError) -> Int {
        try run(sql, parameters).count
    }

    /// Runs one statement and returns its rows.
    public func query(_ sql: String, _ parameters: MySQLValue...) throws(MySQLError) -> [MySQLRow] {
        try query(sql, parameters)
    }

    public func query(_ sql: String, _ parameters: [MySQLValue]) throws(MySQLError) -> [MySQLRow] {
        try run(sql, parameters).rows
    }

    private func run(_ sql: String, _ parameters: [MySQLValue]) throws(MySQLError) -> (count: Int, rows: [MySQLRow]) {
        guard !isOver else { throw MySQLError(code: 2014, message: "the transaction is over") }
        if let fatalError { throw fatalError }
        if let refusal = CallersText.refusal(of: sql) { throw MySQLError(code: 1295, message: "the statement is refused: \(refusal)") }
        do throws(MySQLError) {
            let statement = try connection.callersStatement(sql)
            guard statement.parameterCount == parameters.count else {
                throw MySQLError(
                    code: 1210, message: "the statement has \(statement.parameterCount) parameters, \(parameters.count) were given")
            }
            var rows: [MySQLRow] = []
            let count = try statement.run(Parameters(parameters)) { rows.append($0) }
            guard isReadOnly || connection.isInTransaction else {
                throw MySQLError(code: 1305, message: "the statement ended the transaction")
            }
            return (count, rows)
        } catch {
            if error.isConnectionLost || error.isDeadlock || error.isLockTimeout || error.isReadOnly || !isReadOnly && !connection.isInTransaction {
                fatalError = error
            }
            throw error
        }
    }
}

/// What came of ``MySQLStore/performPositioned(_:_:)``.
public struct PositionedResult: Hashable, Sendable {
    public var result: AtomicResult
    /// The global transaction id of the commit, as the server writes it (`0-1-42` on MariaDB), for a replica to be waited
    /// for, or a position to be kept beside the result. `nil` when nothing was committed, when the server keeps no binary
    /// log, or when the answer to the COMMIT was lost and the result was found out afterwards.
    public var position: String?

    init(result: AtomicResult, position: String? = nil) {
        self.result = result
        self.position = position
    }
}
#endif
