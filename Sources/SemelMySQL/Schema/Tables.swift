#if MySQL
import Semel

/// The store's tables and the statements on them.
///
/// Statements take rows in numbers of certain sizes, so that few need to be prepared; a batch between two sizes repeats
/// its last row, which changes nothing.
enum Tables {
    static let record = "semel_record"
    static let columns = "id, state, rule, epoch, owner, lease, changed, response, retain, live, due, head, outcome"
    static let columnCount = 13

    /// How long a key that was forgotten keeps a row with its last epoch.
    ///
    /// A claim of an absent key draws its epoch from a time that was read before the key is locked. So a key that is
    /// claimed and released in between by somebody else could be given a lower epoch than it had. It cannot: while such
    /// a reading may be in use (``readingTime``), the last epoch is still there, and the claim goes above it.
    static let freeTime = Duration.seconds(600)
    /// How old a time may be that an epoch is drawn from. The server ends a connection that is silent for this long, and
    /// a statement that runs for this long.
    static let readingTime = Duration.seconds(60)

    /// Fixed rows that serve as locks: for the live limit of a scope, and one for the audit log.
    static let scopeLocks = 256
    static let auditLock: Int64 = 256

    // MARK: Sizes

    static let sizes = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128]
    static let largest = 128

    static func size(for count: Int) -> Int { sizes.first { $0 >= count } ?? largest }

    private static func rows(_ size: Int, _ row: String) -> String { Array(repeating: row, count: size).joined(separator: ", ") }

    private static func marks(_ count: Int) -> String { "(" + Array(repeating: "?", count: count).joined(separator: ", ") + ")" }

    private static func bySize(_ sql: (Int) -> String) -> [Int: String] {
        Dictionary(uniqueKeysWithValues: sizes.map { ($0, sql($0)) })
    }

    // MARK: Statements

    /// Inserts those that are absent, and locks those that are there: not one byte of them is changed. `INSERT IGNORE`
    /// would take shared locks on those, over which two of us then wait for each other, and hide other errors.
    static let insert = bySize {
        "INSERT INTO semel_record (\(columns)) VALUES \(rows($0, marks(columnCount))) ON DUPLICATE KEY UPDATE id = \(record).id"
    }

    /// Inserts one, or fails when it is there.
    static let insertNew = "INSERT INTO semel_record (\(columns)) VALUES \(marks(columnCount))"

    /// Writes rows that are there.
    static let overwrite = bySize { size in
        let changes = columns.split(separator: ", ").dropFirst().map { "\($0) = VALUES(\($0))" }.joined(separator: ", ")
        return "INSERT INTO semel_record (\(columns)) VALUES \(rows(size, marks(columnCount))) ON DUPLICATE KEY UPDATE \(changes)"
    }

    /// Completes rows that are claimed under the given epoch and owner, and leaves others as they are.
    ///
    /// As an upsert it needs no plan: each row is found by its primary key, whatever the optimizer believes about the table.
    /// A key that is absent would get a row, of a state that nobody knows: the count of affected rows then tells, and the
    /// transaction is undone. The columns are assigned from left to right, so the state comes last.
    static let complete = bySize { size in
        let holds = "state = 1 AND epoch = VALUES(epoch) AND owner = VALUES(owner)"
        let kept = { (column: String) in "IF(VALUES(\(column)) < 0, \(column), VALUES(\(column)))" }
        let changes = [
            ("lease", "0"), ("live", "NULL"), ("due", "VALUES(changed) + \(kept("response"))"), ("changed", "VALUES(changed)"),
            ("response", kept("response")), ("retain", kept("retain")), ("outcome", "VALUES(outcome)"),
        ].map { "\($0) = IF(\(holds), \($1), \($0))" } + ["state = IF(\(holds), 5, state)"]
        return """
            INSERT INTO semel_record (id, state, rule, epoch, owner, lease, changed, response, retain, head, outcome) VALUES \
            \(rows(size, "(?, 255, 0, ?, ?, 0, ?, ?, ?, '', ?)")) ON DUPLICATE KEY UPDATE \(changes.joined(separator: ", "))
            """
    }

    // The hint keeps the server from reading, and locking, a whole table that it takes for small.
    static let lock = bySize { "SELECT \(columns) FROM semel_record FORCE INDEX (PRIMARY) WHERE id IN \(marks($0)) ORDER BY id FOR UPDATE" }
    static let read = bySize { "SELECT \(columns) FROM semel_record FORCE INDEX (PRIMARY) WHERE id IN \(marks($0))" }
    /// For those who wait: whether anything changed.
    static let look = bySize { "SELECT id, state, epoch, changed, lease FROM semel_record FORCE INDEX (PRIMARY) WHERE id IN \(marks($0))" }
    static let lockIfFree = bySize {
        "SELECT \(columns) FROM semel_record FORCE INDEX (PRIMARY) WHERE id IN \(marks($0)) ORDER BY id FOR UPDATE SKIP LOCKED"
    }
    static let delete = bySize { "DELETE FROM semel_record WHERE id IN \(marks($0))" }

    /// The server's time, the highest that was seen, and under what they stand.
    static let clock = "SELECT \(time), seen, incarnation, version FROM semel_state WHERE id = 1"
    /// Microseconds since 1970. `UNIX_TIMESTAMP` ends in 2038.
    static let time = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(6))"
}
#endif
