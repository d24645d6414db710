import CSQLite
import Crypto
import Semel

/// The store's tables, and how older ones become newer.
///
/// The version is kept in a table of ours and not in `user_version`: the file may also hold the caller's tables, and that
/// number is theirs.
enum Schema {
    static let version: Int64 = 1

    private static let steps = [
        """
        CREATE TABLE semel_state (
            id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL, file BLOB NOT NULL,
            incarnation INTEGER NOT NULL, seen INTEGER NOT NULL, epoch INTEGER NOT NULL);
        CREATE TABLE semel_policy (
            id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, scene TEXT NOT NULL, text TEXT NOT NULL);
        CREATE TABLE semel_live (id INTEGER PRIMARY KEY, record BLOB NOT NULL);
        CREATE TABLE semel_completed (id INTEGER PRIMARY KEY, record BLOB NOT NULL);
        CREATE TABLE semel_tombstone (id INTEGER PRIMARY KEY, record BLOB NOT NULL);
        CREATE TABLE semel_segment (
            id INTEGER PRIMARY KEY, base INTEGER NOT NULL, last INTEGER NOT NULL, due INTEGER NOT NULL);
        CREATE TABLE semel_piece (id INTEGER PRIMARY KEY, entries BLOB NOT NULL);
        CREATE TABLE semel_audit (
            sequence INTEGER PRIMARY KEY, time INTEGER NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL,
            action TEXT NOT NULL, operation TEXT NOT NULL, scene TEXT NOT NULL, detail TEXT NOT NULL,
            previous BLOB NOT NULL, hash BLOB NOT NULL);
        CREATE TRIGGER semel_audit_is_not_changed BEFORE UPDATE ON semel_audit
            BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
        CREATE TRIGGER semel_audit_is_not_deleted BEFORE DELETE ON semel_audit
            BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
        CREATE TRIGGER semel_audit_is_not_replaced BEFORE INSERT ON semel_audit
            WHEN EXISTS (SELECT 1 FROM semel_audit WHERE sequence = NEW.sequence)
            BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
        CREATE TABLE semel_migration (number INTEGER PRIMARY KEY, digest BLOB NOT NULL);
        """
    ]

    /// What the file says about itself.
    struct State {
        /// Drawn at random when the file was made; tells it from every other.
        var file: [UInt8]
        var incarnation: Incarnation
        /// The highest retention time that was certainly seen.
        var seen: Timestamp
        /// No epoch above this one was ever given.
        var epoch: Epoch
    }

    /// Whether anything was ever kept here; an operator's decision counts.
    static func hasRecords(_ database: Database) throws -> Bool {
        let tables = ["semel_live", "semel_completed", "semel_tombstone", "semel_segment", "semel_audit"]
        return try database.integer("SELECT " + tables.map { "EXISTS (SELECT 1 FROM \($0))" }.joined(separator: " OR ")) == 1
    }

    /// Brings the tables to this program's version, and reads the state. `nil` for a new file without a state.
    static func prepare(_ database: Database) throws -> State? {
        let exists = try database.integer("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'semel_state'") == 1
        let found = exists ? try database.integer("SELECT version FROM semel_state") ?? 0 : 0
        guard found <= version else {
            throw StoreError(
                .newerSchema,
                "the database has schema version \(found), and this program knows up to \(version): run the newer program, or restore a backup made by this one")
        }
        for step in steps[Int(found)...] { try database.execute(step) }
        if found > 0, found < version { try database.execute("UPDATE semel_state SET version = \(version)") }
        try checkDefinitions(of: database)

        let read = try database.prepare("SELECT file, incarnation, seen, epoch FROM semel_state", isPersistent: false)
        guard try read.step() else { return nil }
        return State(
            file: read.bytes(0), incarnation: Incarnation(rawValue: UInt16(clamping: read.integer(1))),
            seen: Timestamp(microseconds: read.integer(2)), epoch: Epoch(rawValue: UInt64(bitPattern: read.integer(3))))
    }

    /// The definitions must be those that the steps make, to the letter: SQLite's integrity check does not look at them, and
    /// one changed letter can make another column of the same bytes, and so an empty table of a full one (H18).
    private static func checkDefinitions(of database: Database) throws {
        let made = try Database(path: ":memory:", vfs: nil)
        for step in steps { try made.execute(step) }
        let missing = try definitions(of: made).subtracting(definitions(of: database))
        guard missing.isEmpty else {
            throw SQLiteError(code: SQLITE_CORRUPT, message: "the definition of \(missing.sorted()[0].prefix { $0 != "\n" }) is not the one it was made with")
        }
    }

    private static func definitions(of database: Database) throws -> Set<String> {
        let read = try database.prepare(
            "SELECT type || ' ' || name || char(10) || tbl_name || char(10) || ifnull(sql, '') FROM sqlite_master", isPersistent: false)
        var definitions: Set<String> = []
        while try read.step() { definitions.insert(read.text(0)) }
        return definitions
    }

    static func write(_ state: State, to database: Database) throws {
        let write = try database.prepare(
            "INSERT OR REPLACE INTO semel_state (id, version, file, incarnation, seen, epoch) VALUES (1, ?1, ?2, ?3, ?4, ?5)",
            isPersistent: false)
        try write.bind(version, at: 1)
        try write.bind(state.file, at: 2)
        try write.bind(Int64(state.incarnation.rawValue), at: 3)
        try write.bind(state.seen.microseconds, at: 4)
        try write.bind(Int64(bitPattern: state.epoch.rawValue), at: 5)
        try write.run()
    }

    /// Runs the caller's scripts that have not run on this file yet.
    static func migrate(_ database: Database, with scripts: [String]) throws {
        let read = try database.prepare("SELECT number, digest FROM semel_migration ORDER BY number", isPersistent: false)
        var done = 0
        while try read.step() {
            guard done < scripts.count else {
                throw StoreError(
                    .newerSchema,
                    "the database has had more than the \(scripts.count) migrations this program knows: run the newer program")
            }
            guard read.bytes(1) == digest(scripts[done]) else {
                throw StoreError(
                    .misconfigured,
                    "migration \(done + 1) is not the one that ran on this database: leave those that ran as they are, and append a new one")
            }
            done += 1
        }
        let write = try database.prepare("INSERT INTO semel_migration (number, digest) VALUES (?1, ?2)", isPersistent: false)
        for (index, script) in scripts.enumerated().dropFirst(done) {
            do {
                try database.execute(script)
            } catch {
                throw StoreError(.misconfigured, "migration \(index + 1) failed: \(error.message)", underlying: error)
            }
            try write.run(Int64(index + 1), digest(script))
        }
    }

    private static func digest(_ script: String) -> [UInt8] { Array(SHA256.hash(data: Array(script.utf8))) }
}
