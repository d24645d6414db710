#if Postgres
import CPostgres

/// What PostgreSQL answered instead of doing what it was asked.
public struct PostgresError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The five characters of the SQL standard and of PostgreSQL's appendix A; empty when the server gave none.
    public let sqlState: String
    public let message: String
    /// The constraint that was broken, where it was one.
    public let constraint: String?

    package init(sqlState: String, message: String, constraint: String? = nil) {
        self.sqlState = sqlState
        self.message = message
        self.constraint = constraint
    }

    init(_ result: OpaquePointer) {
        func field(_ code: Character) -> String? {
            PQresultErrorField(result, CInt(code.asciiValue!)).map { String(cString: $0) }
        }
        sqlState = field("C") ?? ""
        let detail = field("D").map { " (\($0))" } ?? ""
        message = (field("M") ?? String(cString: PQresultErrorMessage(result))) + detail
        constraint = field("n")
    }

    public var description: String { "PostgreSQL error \(sqlState): \(message)" }

    /// Two transactions that waited for each other; nothing happened, and again it may go well.
    var isConflict: Bool { sqlState == "40P01" || sqlState == "40001" }
    /// The server is going down, coming up, or ended this connection.
    var isShutdown: Bool { ["57P01", "57P02", "57P03", "57P05", "25P03"].contains(sqlState) || sqlState.hasPrefix("08") }
    var isFull: Bool { sqlState == "53100" }
    var isReadOnly: Bool { sqlState == "25006" }
    var isDamage: Bool { sqlState == "XX001" || sqlState == "XX002" }
    var isMissingTable: Bool { ["42P01", "3F000", "42703"].contains(sqlState) }
    /// It took longer than the server lets it.
    var isTimeout: Bool { sqlState == "57014" || sqlState == "55P03" }
    var isOverload: Bool { sqlState.hasPrefix("53") }
    /// Not the server's state: another statement may go well.
    var isOfOneStatement: Bool { !isConflict && !isShutdown && !isOverload && !isReadOnly && !isTimeout && !isMissingTable }
}
#endif
