#if Postgres
import Semel

/// The transaction that a body of ``PostgresStore/perform(_:_:)`` shares with the record of its operation.
///
/// It takes statements with bound parameters (`$1`, `$2` …). Statements that would end the transaction, or change what
/// outlives it in the connection, are refused. After a statement that failed the transaction can only be given up: every
/// later one fails too. Not valid outside of the body.
public final class PostgresTransaction {
    private let session: Session
    private let connection: Connection
    private var isOver = false
    /// The connection went while a statement was under way: the transaction is lost, whatever the body makes of it.
    private(set) var lost: Connection.Lost?
    private(set) var hasFailed = false

    init(_ session: Session, _ connection: Connection) {
        self.session = session
        self.connection = connection
    }

    func end() { isOver = true }

    /// Runs one statement, and returns how many rows it changed, inserted or deleted.
    /// - Throws: ``PostgresError``, or a `StoreError` when the connection was lost.
    @discardableResult
    public func execute(_ sql: String, _ parameters: PostgresValue...) throws -> Int { try rows(sql, parameters).affected }

    @discardableResult
    public func execute(_ sql: String, _ parameters: [PostgresValue]) throws -> Int { try rows(sql, parameters).affected }

    /// Runs one statement and returns its rows.
    public func query(_ sql: String, _ parameters: PostgresValue...) throws -> [PostgresRow] { try query(sql, parameters) }

    public func query(_ sql: String, _ parameters: [PostgresValue]) throws -> [PostgresRow] {
        let rows = try rows(sql, parameters)
        let names = (0..<rows.columnCount).map { rows.name($0) }
        return (0..<rows.count).map { row in
            PostgresRow(
                names: names,
                values: (0..<names.count).map { column in
                    rows.isNull(row, column) ? .null : PostgresValue(rows.text(row, column), type: rows.type(column))
                })
        }
    }

    private func rows(_ sql: String, _ parameters: [PostgresValue]) throws -> Rows {
        guard !isOver else { throw PostgresError(sqlState: "25000", message: "the transaction is over") }
        if let lost { throw session.shared.error(lost) }
        try Self.check(sql)
        let texts = try Self.texts(parameters)
        do {
            let reply = try connection.run([.callers(connection.statement(forCaller: sql), texts)], within: session.answerLimit)[0]
            return try reply.get()
        } catch let lost as Connection.Lost {
            self.lost = lost
            throw session.shared.error(lost)
        } catch {
            hasFailed = true
            throw error
        }
    }

    static func texts(_ parameters: [PostgresValue]) throws(PostgresError) -> [String?] {
        let texts = parameters.map(\.parameter)
        guard texts.allSatisfy({ $0?.utf8.contains(0) != true }) else {
            throw PostgresError(sqlState: "22021", message: "a text contains U+0000, which PostgreSQL cannot hold; pass bytes")
        }
        return texts
    }

    /// Statements that would end the transaction, or stay behind in the connection that others share.
    private static let refused: Set<String> = [
        "ABORT", "BEGIN", "CHECKPOINT", "CLOSE", "COMMIT", "COPY", "DEALLOCATE", "DISCARD", "END", "LISTEN", "LOAD", "PREPARE", "RELEASE",
        "RESET", "ROLLBACK", "SAVEPOINT", "SET", "START", "UNLISTEN",
    ]

    static func check(_ sql: String) throws(PostgresError) {
        guard !sql.utf8.contains(0) else { throw PostgresError(sqlState: "42601", message: "the statement contains U+0000") }
        let word = firstWord(sql).uppercased()
        guard refused.contains(word) else { return }
        // Settings for this transaction alone are the caller's business.
        let rest = sql.uppercased().split { !($0.isLetter || $0 == "_") }
        if word == "SET", let place = rest.firstIndex(of: "SET"), rest.dropFirst(place + 1).first == "LOCAL" { return }
        throw PostgresError(sqlState: "0A000", message: "\(word) is refused here: the transaction belongs to the store")
    }

    /// The first word after space, semicolons and comments.
    private static func firstWord(_ sql: String) -> Substring {
        var rest = sql[...]
        while let first = rest.first {
            if first.isWhitespace || first == ";" {
                rest.removeFirst()
            } else if rest.hasPrefix("--") {
                rest = rest.drop { !$0.isNewline }
            } else if rest.hasPrefix("/*") {
                var depth = 0
                repeat {
                    if rest.hasPrefix("/*") {
                        depth += 1
                        rest = rest.dropFirst(2)
                    } else if rest.hasPrefix("*/") {
                        depth -= 1
                        rest = rest.dropFirst(2)
                    } else {
                        rest = rest.dropFirst()
                    }
                } while depth > 0 && !rest.isEmpty
            } else {
                break
            }
        }
        return rest.prefix { $0.isLetter || $0 == "_" }
    }
}
#endif
