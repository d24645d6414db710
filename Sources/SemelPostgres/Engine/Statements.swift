#if Postgres
import Semel

/// The SQL of the store that names no segment, for one schema.
struct Statements: Sendable {
    typealias Statement = Connection.Statement

    /// The records of all segments: for what is rare, and need not be quick.
    let all: TableStatements
    /// Holds the segments as they are until the transaction ends.
    let share: Statement
    /// What the map of the segments is called now.
    let version: Statement
    let countLive: Statement
    let now = Statement(name: "semel_now", sql: "SELECT \(Statements.microseconds)")

    /// The server's time. Not `now()`, which stands still in a transaction.
    static let microseconds = "(date_part('epoch', clock_timestamp()) * 1000000)::bigint"
    static let columns = "id, epoch, due, response, key, owner, state, head, outcome"
    /// A retention's column in microseconds.
    static func duration(_ column: String) -> String {
        "(CASE WHEN \(column) >= 0 THEN \(column)::bigint * 1000000 ELSE -\(column)::bigint END)"
    }
    /// When a completed record's key is forgotten.
    static let forgotten = "due - CASE WHEN outcome IS NULL THEN 0 ELSE \(duration("response")) - \(duration("key")) END"
    /// The scope, from the beginning of a head.
    static let scope = "substring(head from 3 for get_byte(head, 0) * 256 + get_byte(head, 1))"
    static let scopeHash = "hashtext(encode(\(scope), 'base64'))"
    static let isLive = "(state & 7) <> 5"

    init(_ target: Target) {
        let schema = target.quotedSchema
        all = TableStatements(schema: schema, table: "record", name: "all")
        share = Statement(name: "semel_share", sql: "SELECT pg_advisory_xact_lock_shared(\(target.mapLock))")
        version = Statement(name: "semel_version", sql: "SELECT version FROM \(schema).segment_map")
        countLive = Statement(
            name: "semel_count_live",
            sql: """
                SELECT count(*) FROM \(schema).record
                WHERE \(Self.isLive) AND \(Self.scopeHash) = hashtext(encode($1::bytea, 'base64')) AND \(Self.scope) = $1::bytea
                """)
    }
}

/// The SQL on the records of one table: a segment, or all of them. Each statement takes arrays and serves a whole batch.
struct TableStatements: Sendable {
    typealias Statement = Connection.Statement

    let insert: Statement
    let insertProbing: Statement
    let insertCompleted: Statement
    let restamp: Statement
    let complete: Statement
    let renew: Statement
    let release: Statement
    let read: Statement
    let lock: Statement
    let put: Statement
    let delete: Statement

    /// - Parameter name: what sets the statements apart from those on another table, in one connection.
    init(schema: String, table: String, name suffix: String) {
        let records = "\(schema).record"
        let table = "\(schema).\(table)"
        func statement(_ name: String, _ sql: String) -> Statement { Statement(name: "semel_\(name)_\(suffix)", sql: sql) }
        let now = Statements.microseconds
        let exactly = Row.exactMask
        let mask = Row.stateMask
        let claimed = Row.pattern(.claimed)
        let isCurrent = "(SELECT version FROM \(schema).segment_map) = $3::bigint"

        // $1 the incarnation's bits, $2 the least epoch, $3 the map under which this table takes new keys: under another one
        // nothing is inserted. The time is read row by row, after any wait of the row before.
        let insertion = """
            INSERT INTO \(table) (id, epoch, due, response, key, owner, state, head)
            SELECT s.id, greatest($1::bigint | s.now, $2::bigint), s.now + s.lease, s.response, s.key, s.owner, s.state, s.head
            FROM (SELECT u.*, \(now) AS now FROM
            """
        let arrays = "$4::uuid[], $5::bigint[], $6::int[], $7::int[], $8::uuid[], $9::smallint[], $10::bytea[]"
        let answer = "ON CONFLICT DO NOTHING RETURNING id, epoch, due, \(now)"
        insert = statement(
            "insert",
            """
            \(insertion) unnest(\(arrays)) AS u (id, lease, response, key, owner, state, head)) s
            WHERE \(isCurrent) \(answer)
            """)
        // Those that a sealed segment may hold are looked for there, in the same view as they are inserted in. A scalar
        // subquery, for the server must never read a whole segment instead.
        insertProbing = statement(
            "insert_probing",
            """
            \(insertion) unnest(\(arrays), $11::bool[]) AS u (id, lease, response, key, owner, state, head, probe)) s
            WHERE \(isCurrent) AND (NOT s.probe OR (SELECT true FROM \(records) r WHERE r.id = s.id LIMIT 1) IS NULL) \(answer)
            """)
        // Claimed and completed at once. A key that is there is an error, which undoes all that shares the transaction.
        insertCompleted = statement(
            "insert_completed",
            """
            INSERT INTO \(table) (id, epoch, due, response, key, owner, state, head, outcome)
            SELECT s.id, greatest($1::bigint | s.now, $2::bigint), s.now + \(Statements.duration("s.response")), s.response, s.key, s.owner,
                s.state, s.head, s.outcome
            FROM (SELECT u.*, \(now) AS now FROM
                unnest($4::uuid[], $5::int[], $6::int[], $7::uuid[], $8::smallint[], $9::bytea[], $10::bytea[])
                AS u (id, response, key, owner, state, head, outcome)) s
            WHERE \(isCurrent)
            RETURNING id, epoch, due
            """)
        restamp = statement(
            "restamp",
            """
            UPDATE \(table) r SET epoch = greatest($1::bigint | \(now), r.epoch + 1)
            FROM unnest($2::uuid[], $3::bigint[], $4::uuid[]) AS u (id, epoch, owner)
            WHERE r.id = u.id AND r.epoch = u.epoch AND r.owner = u.owner AND (r.state & \(exactly)) & 7 = 1
            RETURNING r.id, r.epoch
            """)
        complete = statement(
            "complete",
            """
            UPDATE \(table) r SET state = (r.state & ~7) | 5, response = coalesce(u.response, r.response), key = coalesce(u.key, r.key),
                due = u.now + \(Statements.duration("coalesce(u.response, r.response)")), outcome = u.outcome
            FROM (SELECT a.*, \(now) AS now FROM
                unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::int[], $5::int[], $6::bytea[])
                AS a (id, epoch, owner, response, key, outcome)) u
            WHERE r.id = u.id AND r.epoch = u.epoch AND r.owner = u.owner AND (r.state & \(exactly)) = \(claimed)
            RETURNING r.id
            """)
        // A lapsed claim that nobody may take over has become uncertain: that is for the record machine.
        renew = statement(
            "renew",
            """
            UPDATE \(table) r SET due = greatest(r.due, u.now + u.lease)
            FROM (SELECT a.*, \(now) AS now FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::bigint[]) AS a (id, epoch, owner, lease)) u
            WHERE r.id = u.id AND r.epoch = u.epoch AND r.owner = u.owner AND (r.state & \(mask)) = \(claimed)
                AND (r.due > u.now OR (r.state >> 3 & 3) <> \(LapseRule.uncertain.rawValue))
            RETURNING r.id
            """)
        release = statement(
            "release",
            """
            DELETE FROM \(table) r USING unnest($1::uuid[], $2::bigint[], $3::uuid[]) AS u (id, epoch, owner)
            WHERE r.id = u.id AND r.epoch = u.epoch AND r.owner = u.owner
                AND (r.state & \(mask)) IN (\(claimed), \(Row.pattern(.verifying)), \(Row.pattern(.uncertain)))
            RETURNING r.id
            """)
        read = statement("read", "SELECT \(Statements.columns) FROM \(table) WHERE id = ANY ($1::uuid[])")
        // Locked in the order of their ids, as every batch does, so that no two wait for each other.
        lock = statement("lock", "SELECT \(Statements.columns) FROM \(table) WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE")
        put = statement(
            "put",
            """
            UPDATE \(table) r SET epoch = u.epoch, due = u.due, response = u.response, key = u.key, owner = u.owner, state = u.state,
                head = u.head, outcome = u.outcome
            FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::int[], $5::int[], $6::uuid[], $7::smallint[], $8::bytea[], $9::bytea[])
                AS u (id, epoch, due, response, key, owner, state, head, outcome)
            WHERE r.id = u.id
            """)
        delete = statement("delete", "DELETE FROM \(table) WHERE id = ANY ($1::uuid[])")
    }
}

extension Connection.Command {
    /// A statement on rows that are put in an array for each column.
    static func put(_ statement: Connection.Statement, _ rows: [Row]) -> Self {
        var parameters = Parameters()
        parameters.addArray(.uuid, rows) { $0.write($1.id) }
        parameters.addArray(.integer, rows) { $0.write($1.epoch) }
        parameters.addArray(.integer, rows) { $0.write($1.due) }
        parameters.addArray(.shortInteger, rows) { $0.write($1.response) }
        parameters.addArray(.shortInteger, rows) { $0.write($1.key) }
        parameters.addArray(.uuid, rows) { $0.write($1.owner) }
        parameters.addArray(.smallInteger, rows) { $0.write($1.state) }
        parameters.addArray(.bytes, rows) { $0.write($1.head) }
        parameters.addArray(.bytes, rows) { $0.write($1.outcome) }
        return .prepared(statement, parameters)
    }

    /// A statement on keys alone.
    static func keys(_ statement: Connection.Statement, _ ids: [OperationReference]) -> Self {
        var parameters = Parameters()
        parameters.addArray(.uuid, ids) { $0.write($1) }
        return .prepared(statement, parameters)
    }
}
#endif
