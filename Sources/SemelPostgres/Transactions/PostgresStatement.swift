#if Postgres
/// A statement of the caller's with its values, for ``PostgresStore/perform(_:writing:recording:)``.
public struct PostgresStatement: Hashable, Sendable {
    public var sql: String
    public var parameters: [PostgresValue]
    /// How many rows it must change, insert or delete; `nil` for any number.
    public var rows: Int?

    /// - Parameter rows: with `1`, an UPDATE whose condition has a version, a state or an amount in it either finds its row as
    ///   expected or undoes everything.
    public init(_ sql: String, _ parameters: PostgresValue..., rows: Int? = nil) {
        self.sql = sql
        self.parameters = parameters
        self.rows = rows
    }
}

/// A statement found another number of rows than it must: somebody was faster, or the state does not allow it. Everything
/// was undone and nothing was recorded: the key is free.
public struct UnexpectedRows: Error, Hashable, Sendable, CustomStringConvertible {
    public let statement: PostgresStatement
    public let affected: Int

    public var description: String { "\(affected) rows and not \(statement.rows ?? 0) were affected by: \(statement.sql)" }
}
#endif
