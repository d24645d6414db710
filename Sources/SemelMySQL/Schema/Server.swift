#if MySQL
import Semel

/// What the server is and what it keeps, looked at whenever a connection is made.
struct Server: Hashable, Sendable {
    var isMariaDB: Bool
    var version: String
    var durability: StoreCapabilities.Durability
    /// The largest statement it takes, in bytes.
    var largestPacket: Int
    /// Whether its transactions have global ids.
    var hasBinaryLog: Bool

    var name: String { "\(isMariaDB ? "MariaDB" : "MySQL") \(version)" }

    /// What it cannot be used with, in the order of its weight.
    private(set) var problems: [Problem] = []

    struct Problem: Hashable, Sendable {
        let code: StoreError.Code
        let message: String

        var error: StoreError { StoreError(code, message) }
    }

    /// Sets what every connection of ours needs, and reads what the server says about itself.
    /// - Throws: ``StoreError`` for a server that cannot be used, each with its remedy.
    init(_ connection: Connection, at place: String) throws {
        try self.init(lookingAt: connection, at: place)
        if let problem = problems.first { throw problem.error }
    }

    /// The same, for a server that is only looked at.
    init(lookingAt connection: Connection, at place: String) throws {
        isMariaDB = connection.isMariaDB
        let isOld = connection.version < (isMariaDB ? 100_600 : 80_019)
        if isOld {
            let version = "\(connection.version / 10_000).\(connection.version / 100 % 100).\(connection.version % 100)"
            problems.append(
                Problem(
                    code: .serverTooOld,
                    message: "\(place): \(isMariaDB ? "MariaDB" : "MySQL") \(version) is too old. Remedy: MariaDB 10.6 or MySQL 8.0.19 is needed, or later"))
        } else {
            for setting in Self.session(isMariaDB: isMariaDB) { try connection.execute(setting) }
        }
        let row = try connection.rows(
            """
            SELECT VERSION(), @@innodb_flush_log_at_trx_commit, @@sync_binlog, @@log_bin, @@read_only, @@max_allowed_packet, @@binlog_format,
                @@innodb_read_only
            """)[0]
        version = row[0].text ?? ""
        hasBinaryLog = row[3].integer == 1
        largestPacket = Int(row[5].natural ?? 1 << 20)
        if row[4].integer != 0 || row[7].integer != 0 {
            problems.append(
                Problem(
                    code: .readOnly,
                    message: "\(place): the server is read-only: it is a replica, or was made so. Remedy: name the primary in the store's URL, or SET GLOBAL read_only = 0"))
        }
        if hasBinaryLog, row[6].text == "STATEMENT" {
            problems.append(
                Problem(
                    code: .misconfigured,
                    message: "\(place): the server's binlog_format is STATEMENT, under which InnoDB refuses READ COMMITTED. Remedy: set it to ROW or MIXED"))
        }
        durability =
            if row[1].integer != 1 {
                .forgetful("innodb_flush_log_at_trx_commit is \(row[1].integer ?? -1): a crash loses the last second; set it to 1")
            } else if hasBinaryLog, row[2].natural != 1 {
                .forgetful(
                    "sync_binlog is \(row[2].natural ?? 0): a crash of the machine loses what the binary log had not synced, for InnoDB recovers by it; set it to 1")
            } else {
                .durable
            }
    }

    /// Row locks without gap locks; times in UTC; no silent truncation; no waiting without end, for locks or for us.
    private static func session(isMariaDB: Bool) -> [String] {
        let seconds = Tables.readingTime.components.seconds
        var settings = [
            "SET autocommit = 0, sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO', time_zone = '+00:00', innodb_lock_wait_timeout = \(lockPatience), wait_timeout = \(seconds)",
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        ]
        if isMariaDB {
            settings.append("SET idle_transaction_timeout = \(seconds), max_statement_time = \(seconds), session_track_system_variables = 'last_gtid'")
        } else {
            settings.append("SET session_track_gtids = OWN_GTID")
        }
        return settings
    }

    /// How many seconds a statement waits for a row that somebody else holds.
    static let lockPatience = 2
}
#endif
