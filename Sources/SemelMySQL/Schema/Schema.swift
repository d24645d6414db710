#if MySQL
import Semel

/// How the tables come to be, and how older ones become newer.
///
/// MySQL commits each of these statements by itself, so every step must bear being run again after it stopped half-way.
enum Schema {
    static let version: Int64 = 1
    /// Server-wide, so the name of the database is part of it.
    private static let lockName = "CONCAT('semel.migration.', LEFT(SHA2(DATABASE(), 256), 32))"

    private static let steps: [[String]] = [
        [
            """
            CREATE TABLE IF NOT EXISTS semel_record (
                id BINARY(32) NOT NULL PRIMARY KEY, state TINYINT UNSIGNED NOT NULL, rule TINYINT UNSIGNED NOT NULL,
                epoch BIGINT UNSIGNED NOT NULL, owner BINARY(16) NOT NULL, lease BIGINT NOT NULL, changed BIGINT NOT NULL,
                response BIGINT NOT NULL, retain BIGINT NOT NULL, live BINARY(32) NULL, due BIGINT NULL,
                head MEDIUMBLOB NOT NULL, outcome LONGBLOB NULL,
                KEY semel_record_live (live, changed), KEY semel_record_due (due)
            ) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET binary
            """,
            """
            CREATE TABLE IF NOT EXISTS semel_policy (
                hash BINARY(16) NOT NULL PRIMARY KEY, scene MEDIUMBLOB NOT NULL, text LONGBLOB NOT NULL
            ) ENGINE = InnoDB DEFAULT CHARACTER SET binary
            """,
            """
            CREATE TABLE IF NOT EXISTS semel_audit (
                sequence BIGINT NOT NULL PRIMARY KEY, time BIGINT NOT NULL, actor MEDIUMBLOB NOT NULL, reason MEDIUMBLOB NOT NULL,
                action MEDIUMBLOB NOT NULL, operation VARBINARY(64) NOT NULL, scene MEDIUMBLOB NOT NULL, detail MEDIUMBLOB NOT NULL,
                previous BINARY(32) NOT NULL, hash BINARY(32) NOT NULL
            ) ENGINE = InnoDB DEFAULT CHARACTER SET binary
            """,
            "CREATE TABLE IF NOT EXISTS semel_lock (id SMALLINT UNSIGNED NOT NULL PRIMARY KEY) ENGINE = InnoDB",
            """
            INSERT IGNORE INTO semel_lock (id) VALUES \((0...Tables.scopeLocks).map { "(\($0))" }.joined(separator: ", "))
            """,
            """
            CREATE TABLE IF NOT EXISTS semel_migration (number INT NOT NULL PRIMARY KEY, digest BINARY(32) NOT NULL)
            ENGINE = InnoDB DEFAULT CHARACTER SET binary
            """,
        ]
    ]

    private static let state = """
        CREATE TABLE IF NOT EXISTS semel_state (
            id TINYINT UNSIGNED NOT NULL PRIMARY KEY, version INT NOT NULL, incarnation INT NOT NULL, seen BIGINT NOT NULL
        ) ENGINE = InnoDB
        """

    /// The version of the tables; `nil` when there are none.
    static func find(_ connection: Connection) throws(MySQLError) -> Int64? {
        do {
            return try connection.rows("SELECT version FROM semel_state WHERE id = 1").first?[0].integer
        } catch  where error.isMissingTable {
            return nil
        }
    }

    /// Fails unless the tables are of this program's version.
    static func require(_ connection: Connection, at place: String) throws {
        try check(try find(connection), at: place)
    }

    static func check(_ found: Int64?, at place: String) throws(StoreError) {
        switch found {
        case nil:
            throw StoreError(
                .missingSchema,
                "\(place): the store's tables are not there. Remedy: run `semel store migrate` with a user that may create tables")
        case let found? where found > version: throw newer(found, place)
        case let found? where found < version:
            throw StoreError(
                .missingSchema,
                "\(place): the store's tables have version \(found), and this program needs \(version). Remedy: run `semel store migrate`")
        default: break
        }
    }

    static func newer(_ found: Int64, _ place: String) -> StoreError {
        StoreError(
            .newerSchema,
            "\(place): the store's tables have version \(found), and this program knows up to \(version). Remedy: run the newer program, or restore a backup made by this one"
        )
    }

    /// Brings the tables to this program's version, and then runs the caller's scripts that have not run here yet. One
    /// process at a time does.
    /// - Returns: the version that was found; 0 for none.
    @discardableResult
    static func migrate(_ connection: Connection, with scripts: [[String]], at place: String) throws -> Int64 {
        if try find(connection) == version, try pending(connection, scripts, place).isEmpty { return version }
        guard try connection.rows("SELECT GET_LOCK(\(lockName), 30)").first?[0].integer == 1 else {
            throw StoreError(
                .unavailable,
                "\(place): another process has been changing the tables for 30 seconds. Remedy: wait for it, or see what it hangs on")
        }
        // Whatever is thrown, closing the connection gives the lock back.
        let found = try find(connection) ?? 0
        guard found <= version else { throw newer(found, place) }
        for step in steps[Int(found)...] { for statement in step { try connection.execute(statement) } }
        if found < version {
            try connection.execute(state)
            // The highest time seen begins with the server's.
            try connection.execute(
                """
                INSERT INTO semel_state (id, version, incarnation, seen)
                VALUES (1, \(version), 0, \(Tables.time))
                ON DUPLICATE KEY UPDATE version = \(version)
                """)
            try connection.execute("COMMIT")
        }
        for (number, script) in try pending(connection, scripts, place) {
            do {
                for statement in script { try connection.execute(statement) }
            } catch {
                throw StoreError(.misconfigured, "\(place): migration \(number) failed: \(error)", underlying: error)
            }
            var parameters = Parameters()
            parameters.append(Int64(number))
            parameters.append(digest(script))
            try connection.statement("INSERT INTO semel_migration (number, digest) VALUES (?, ?)").execute(parameters)
            try connection.execute("COMMIT")
        }
        try connection.execute("DO RELEASE_LOCK(\(lockName))")
        return found
    }

    private static func pending(_ connection: Connection, _ scripts: [[String]], _ place: String) throws -> [(Int, [String])] {
        // Whoever brings none has nothing to say about those of others.
        guard !scripts.isEmpty else { return [] }
        let done = try connection.rows("SELECT number, digest FROM semel_migration ORDER BY number")
        guard done.count <= scripts.count else {
            throw StoreError(
                .newerSchema,
                "\(place): the database has had \(done.count) migrations, and this program knows \(scripts.count). Remedy: run the newer program"
            )
        }
        for (row, script) in zip(done, scripts) where row[1].bytes != digest(script) {
            throw StoreError(
                .misconfigured,
                "\(place): migration \(row[0].integer ?? 0) is not the one that ran on this database. Remedy: leave those that ran as they are, and append a new one"
            )
        }
        return Array(zip(1..., scripts).dropFirst(done.count))
    }

    private static func digest(_ script: [String]) -> [UInt8] {
        var parts = LengthPrefixed(purpose: "semel.mysql.migration.1")
        for statement in script { parts.append(statement) }
        return Digest256(hashing: parts).bytes
    }
}
#endif
