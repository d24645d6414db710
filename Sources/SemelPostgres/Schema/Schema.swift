#if Postgres
import Semel

/// The store's tables, and how older ones become newer: numbered steps, each run once, all that are missing in one
/// transaction under a lock that other programs respect.
enum Schema {
    static let version = 2

    /// - Parameter partitions: how many parts the first version's table had when it was made.
    private static func steps(in schema: String, partitions: Int) -> [[String]] {
        [
            // 1: one table for all records.
            [
                "CREATE SCHEMA IF NOT EXISTS \(schema)",
                """
                CREATE TABLE \(schema).meta (
                    one boolean PRIMARY KEY DEFAULT true CHECK (one), version int NOT NULL, incarnation int NOT NULL, seen bigint NOT NULL)
                """,
                "INSERT INTO \(schema).meta (version, incarnation, seen) VALUES (0, 0, 0)",
                "CREATE TABLE \(schema).policy (number int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, hash uuid NOT NULL UNIQUE, scene bytea NOT NULL, text bytea NOT NULL)",
                // Byte strings where a caller's text might hold U+0000, which PostgreSQL's text cannot.
                // The columns stand in the order that needs no padding.
                """
                CREATE TABLE \(schema).record (
                    epoch bigint NOT NULL, due bigint NOT NULL, response int NOT NULL, key int NOT NULL, id uuid NOT NULL PRIMARY KEY,
                    owner uuid NOT NULL, state smallint NOT NULL, head bytea NOT NULL, outcome bytea
                )\(partitions > 1 ? " PARTITION BY HASH (id)" : "")
                """,
            ]
                + (partitions > 1
                    ? (0..<partitions).map {
                        "CREATE TABLE \(schema).record_\($0) PARTITION OF \(schema).record FOR VALUES WITH (MODULUS \(partitions), REMAINDER \($0))"
                    } : [])
                + (partitions > 1 ? (0..<partitions).map { "\(schema).record_\($0)" } : ["\(schema).record"]).map {
                    // What a claim leaves behind when it completes is room for the next ones, if it is swept soon.
                    """
                    ALTER TABLE \($0) SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000,
                        autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_vacuum_cost_delay = 0)
                    """
                }
                + [
                    "CREATE INDEX record_live ON \(schema).record ((\(Statements.scopeHash))) WHERE \(Statements.isLive)",
                    "CREATE INDEX record_due ON \(schema).record USING brin (due) WITH (pages_per_range = 32, autosummarize = on)",
                    """
                    CREATE TABLE \(schema).audit (
                        sequence bigint PRIMARY KEY, time bigint NOT NULL, actor bytea NOT NULL, reason bytea NOT NULL, action text NOT NULL,
                        operation uuid NOT NULL, scene bytea NOT NULL, detail text NOT NULL, previous bytea NOT NULL, hash bytea NOT NULL)
                    """,
                    """
                    CREATE FUNCTION \(schema).refuse_change() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$
                    """,
                    """
                    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON \(schema).audit
                    FOR EACH STATEMENT EXECUTE FUNCTION \(schema).refuse_change()
                    """,
                ],
            // 2: segments. What is there becomes sealed ones; `record` is what all of them have in common, without rows.
            [
                "CREATE TABLE \(schema).segment_map (one boolean PRIMARY KEY DEFAULT true CHECK (one), version bigint NOT NULL)",
                """
                CREATE TABLE \(schema).segment (
                    number int PRIMARY KEY, began bigint NOT NULL, sealed bigint, mark bigint, until bigint,
                    is_settled boolean NOT NULL DEFAULT false, keys bigint NOT NULL DEFAULT 0, filter bytea)
                """,
                """
                DO $$
                DECLARE part regclass; number int := 0; parts regclass[]; has_rows boolean;
                BEGIN
                    SELECT coalesce(array_agg(inhrelid::regclass ORDER BY inhrelid), '{}') INTO parts
                        FROM pg_inherits WHERE inhparent = '\(schema).record'::regclass;
                    FOREACH part IN ARRAY parts LOOP EXECUTE format('ALTER TABLE \(schema).record DETACH PARTITION %s', part); END LOOP;
                    IF cardinality(parts) = 0 THEN
                        ALTER TABLE \(schema).record RENAME TO record_0;
                        parts := ARRAY['\(schema).record_0'::regclass];
                    ELSE
                        DROP TABLE \(schema).record;
                    END IF;
                    CREATE TABLE \(schema).record (
                        epoch bigint NOT NULL, due bigint NOT NULL, response int NOT NULL, key int NOT NULL, id uuid NOT NULL,
                        owner uuid NOT NULL, state smallint NOT NULL, head bytea NOT NULL, outcome bytea, CHECK (false) NO INHERIT);
                    FOREACH part IN ARRAY parts LOOP
                        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', part) INTO has_rows;
                        IF has_rows THEN
                            number := number + 1;
                            EXECUTE format('ALTER TABLE %s INHERIT \(schema).record', part);
                            EXECUTE format('ALTER TABLE %s RENAME TO segment_%s', part, number);
                            INSERT INTO \(schema).segment (number, began, sealed, mark)
                                VALUES (number, 0, \(Statements.microseconds), (random() * 9e18)::bigint);
                        ELSE
                            EXECUTE format('DROP TABLE %s', part);
                        END IF;
                    END LOOP;
                    INSERT INTO \(schema).segment (number, began) VALUES (number + 1, \(Statements.microseconds));
                    INSERT INTO \(schema).segment_map (version) VALUES ((random() * 9e18)::bigint);
                END $$
                """,
                // Its number is only known there.
                "DO $$ BEGIN EXECUTE replace($sql$ \(segment("NUMBER", in: schema).joined(separator: "; ")) $sql$, 'NUMBER', (SELECT max(number)::text FROM \(schema).segment)); END $$",
            ],
        ]
    }

    /// The table of a segment that is to be the current one.
    static func segment(_ number: some CustomStringConvertible, in schema: String) -> [String] {
        let name = "segment_\(number)"
        return [
            // What a claim leaves behind when it completes is room for the next ones, if it is swept soon.
            """
            CREATE TABLE \(schema).\(name) (PRIMARY KEY (id)) INHERITS (\(schema).record) WITH (autovacuum_vacuum_scale_factor = 0.05,
                autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_vacuum_cost_delay = 0)
            """,
            "CREATE INDEX \(name)_live ON \(schema).\(name) ((\(Statements.scopeHash))) WHERE \(Statements.isLive)",
            "CREATE INDEX \(name)_due ON \(schema).\(name) USING brin (due) WITH (pages_per_range = 32, autosummarize = on)",
        ]
    }

    /// The version that the tables have; `nil` when there are none.
    static func found(on connection: Connection, in target: Target, within time: Duration) throws -> Int? {
        var name = Parameters()
        name.add(target.schema)
        let exists = try connection.run(
            [.text("SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = $1::text AND tablename = 'meta')", name)], within: time)[0].get()
        guard exists.flag(0, 0) else { return nil }
        let rows = try connection.run([.text("SELECT version FROM \(target.quotedSchema).meta")], within: time)[0].get()
        return rows.count == 0 ? nil : Int(rows.integer(0, 0, as: Int32.self))
    }

    static func check(_ found: Int?, at target: Target) throws(StoreError) {
        guard let found, found > 0 else {
            throw StoreError(
                .missingSchema, "\(target.place): the schema \"\(target.schema)\" has no tables of Semel: run `semel store migrate` with this URL")
        }
        guard found <= version else {
            throw StoreError(
                .newerSchema,
                "\(target.place): the schema \"\(target.schema)\" has version \(found), and this program knows up to \(version): run the newer program, or restore a backup made by this one")
        }
        guard found == version else {
            throw StoreError(
                .missingSchema, "\(target.place): the schema \"\(target.schema)\" has version \(found), and this program needs \(version): run `semel store migrate` with this URL")
        }
    }

    /// Brings the tables to this program's version.
    /// - Returns: the version found, 0 for none.
    @discardableResult
    static func migrate(
        _ connection: Connection, at target: Target, to version: Int = Schema.version, partitions: Int = 1, within time: Duration
    ) throws -> Int {
        let lock = "SELECT pg_advisory_xact_lock(\(target.lockNumber))"
        for reply in try connection.run([.text("BEGIN"), .text(lock)], within: time) { _ = try reply.get() }
        do {
            let found = try found(on: connection, in: target, within: time) ?? 0
            if found > version { try check(found, at: target) }
            let missing = steps(in: target.quotedSchema, partitions: partitions)[..<version].dropFirst(found)
            for step in missing {
                // One at a time: a statement is prepared against what the one before it made.
                for sql in step { _ = try connection.run([.text(sql)], within: time)[0].get() }
            }
            if !missing.isEmpty {
                _ = try connection.run([.text("UPDATE \(target.quotedSchema).meta SET version = \(version)")], within: time)[0].get()
            }
            _ = try connection.run([.text("COMMIT")], within: time)[0].get()
            return found
        } catch let lost as Connection.Lost {
            throw lost
        } catch {
            _ = try connection.run([.text("ROLLBACK")], within: time)
            throw error
        }
    }
}
#endif
