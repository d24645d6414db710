#if Postgres
import Semel

/// The SQL of the store, for one schema. Each statement takes arrays and serves a whole batch.
struct Statements: Sendable {
    typealias Statement = Connection.Statement

    let insert: Statement
    let insertCompleted: Statement
    let restamp: Statement
    let complete: Statement
    let renew: Statement
    let release: Statement
    let read: Statement
    let lock: Statement
    let put: Statement
    let delete: Statement
    let countLive: Statement
    let now = Statement(name: "semel_now", sql: "SELECT \(Statements.microseconds)")

    /// The server's time. Not `now()`, which stands still in a transaction.
    static let microseconds = "(date_part('epoch', clock_timestamp()) * 1000000)::bigint"
    static let columns = "id, epoch, due, response, key, owner, state, head, outcome"
    /// A retention's column in microseconds.
    static func duration(_ column: String) -> String {
        "(CASE WHEN \(column) >= 0 THEN \(column)::bigint * 1000000 ELSE -\(column)::bigint END)"
    }
    /// The scope, from the beginning of a head.
    static let scope = "substring(head from 3 for get_byte(head, 0) * 256 + get_byte(head, 1))"
    static let scopeHash = "hashtext(encode(\(scope), 'base64'))"
    static let isLive = "(state & 7) <> 5"

    init(schema: String) {
        let table = "\(schema).record"
        func statement(_ name: String, _ sql: String) -> Statement { Statement(name: "semel_\(name)", sql: sql) }
        let now = Self.microseconds
        let exactly = Row.exactMask
        let mask = Row.stateMask
        let claimed = Row.pattern(.claimed)

        // $1 the incarnation's bits, $2 the least epoch. The time is read row by row, after any wait of the row before.
        insert = statement(
            "insert",
            """
            INSERT INTO \(table) (id, epoch, due, response, key, owner, state, head)
            SELECT s.id, greatest($1::bigint | s.now, $2::bigint), s.now + s.lease, s.response, s.key, s.owner, s.state, s.head
            FROM (SELECT u.*, \(now) AS now FROM
                unnest($3::uuid[], $4::bigint[], $5::int[], $6::int[], $7::uuid[], $8::smallint[], $9::bytea[])
                AS u (id, lease, response, key, owner, state, head)) s
            ON CONFLICT DO NOTHING
            RETURNING id, epoch, due, \(now)
            """)
        // Claimed and completed at once. A key that is there is an error, which undoes all that shares the transaction.
        insertCompleted = statement(
            "insert_completed",
            """
            INSERT INTO \(table) (id, epoch, due, response, key, owner, state, head, outcome)
            SELECT s.id, greatest($1::bigint | s.now, $2::bigint), s.now + \(Self.duration("s.response")), s.response, s.key, s.owner, s.state,
                s.head, s.outcome
            FROM (SELECT u.*, \(now) AS now FROM
                unnest($3::uuid[], $4::int[], $5::int[], $6::uuid[], $7::smallint[], $8::bytea[], $9::bytea[])
                AS u (id, response, key, owner, state, head, outcome)) s
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
                due = u.now + \(Self.duration("coalesce(u.response, r.response)")), outcome = u.outcome
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
        read = statement("read", "SELECT \(Self.columns) FROM \(table) WHERE id = ANY ($1::uuid[])")
        // Locked in the order of their ids, as every batch does, so that no two wait for each other.
        lock = statement("lock", "SELECT \(Self.columns) FROM \(table) WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE")
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
        countLive = statement(
            "count_live",
            """
            SELECT count(*) FROM \(table)
            WHERE \(Self.isLive) AND \(Self.scopeHash) = hashtext(encode($1::bytea, 'base64')) AND \(Self.scope) = $1::bytea
            """)
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
