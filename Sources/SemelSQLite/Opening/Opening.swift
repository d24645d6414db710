import CSQLite
#if canImport(Glibc)
import Glibc
#endif
import Semel

/// Opens a database as the store needs it, or says why not. Fails closed: whatever is missing, damaged or unexpected is
/// reported, and nothing is begun anew without a person's decision.
struct Opening {
    let place: Place
    let configuration: SQLiteStore.Configuration
    let clock: any StoreClock
    let environment: Environment
    let observations: ObservationRegistry

    func open() throws -> Engine {
        try place.check()
        try refuseMissingDatabase()
        do {
            return try openDatabase()
        } catch let error as SQLiteError {
            switch error.primaryCode {
            // An error in a statement of ours means that the tables are not as we made them.
            case SQLITE_CORRUPT, SQLITE_NOTADB, SQLITE_ERROR: return try recover(from: error)
            case SQLITE_BUSY, SQLITE_LOCKED:
                throw StoreError(
                    .inUse, "\(place.path) is open in another process; a database belongs to one process at a time: stop that one, or use another file",
                    underlying: error)
            case SQLITE_FULL:
                throw StoreError(.full, "\(place.path) cannot be opened because the disk is full; free some space", underlying: error)
            case SQLITE_CANTOPEN, SQLITE_READONLY, SQLITE_PERM, SQLITE_AUTH:
                throw StoreError(.misconfigured, "\(place.path) cannot be opened for writing: \(error); check the rights on it and its folder", underlying: error)
            default:
                throw StoreError(.unavailable, "\(place.path) cannot be opened: \(error); check the disk", underlying: error)
            }
        } catch let error as StoreError {
            throw StoreError(error.code, error.message.hasPrefix(place.path) ? error.message : "\(place.path): \(error.message)", underlying: error.underlying)
        }
    }

    private func refuseMissingDatabase() throws(StoreError) {
        guard !place.exists, place.hasWitness, configuration.recovery != .startNew else { return }
        throw StoreError(
            .damaged,
            "\(place.path) is missing, and \(place.witness) says that there was one. Restore a backup to this path and start with recovery: acceptRestored; or, if every key may run again, start once with recovery: startNew (semel serve --recovery …)")
    }

    /// A damaged database is set aside, and the store stays closed until somebody decides.
    private func recover(from error: SQLiteError) throws -> Engine {
        // Perhaps a mistyped path, and a file of somebody else's.
        guard place.hasWitness else {
            throw StoreError(
                error.primaryCode == SQLITE_NOTADB ? .misconfigured : .damaged,
                "\(place.path) cannot be used (\(error.message)), and no \(place.witness) says that a store ever used it, so it was left as it is. Check the path; if the file was this store's, move it away and restore a backup",
                underlying: error)
        }
        let aside = try place.setAside()
        guard configuration.recovery == .startNew else {
            throw StoreError(
                .damaged,
                "\(place.path) is damaged (\(error.message)) and was set aside as \(aside). Restore a backup to this path and start with recovery: acceptRestored; or, if every key may run again, start once with recovery: startNew (semel serve --recovery …)",
                underlying: error)
        }
        return try openDatabase()
    }

    private func openDatabase() throws -> Engine {
        let isNew = place.size == 0
        // SQLite takes a few bytes for an empty file, and would write over them.
        if !isNew, place.size < 512 { throw SQLiteError(code: SQLITE_NOTADB, message: "it has \(place.size) bytes") }
        let database = try Database(path: place.path, vfs: configuration.fileSystem)
        try configure(database)
        // The lock is ours from here on. What the process before kept back is given up first, in case the disk is full.
        unlink(place.reserve)
        if !isNew { try checkIntegrity(of: database) }

        try database.execute("BEGIN IMMEDIATE")
        do {
            let state = try settle(try Schema.prepare(database), hasRecords: try Schema.hasRecords(database))
            try Schema.write(state, to: database)
            try Schema.migrate(database, with: configuration.migrations)
            try database.execute("DELETE FROM semel_piece WHERE id >= (SELECT (ifnull(max(id), 0) + 1) << \(SealedKeys.prefixBits) FROM semel_segment)")
            try database.execute("COMMIT")
            try syncFolder()
            let engine = try Engine(
                database, at: place, state: state, configuration: configuration, clock: clock,
                failpoints: environment.failpoints, observations: observations)
            Witness(file: state.file, incarnation: state.incarnation, seen: state.seen, epoch: state.epoch).write(place.witness, isDurable: true)
            try syncFolder()
            return engine
        } catch {
            if database.isInTransaction { try? database.execute("ROLLBACK") }
            throw error
        }
    }

    /// Every setting is read back: one that was not taken would break a promise in silence.
    private func configure(_ database: Database) throws {
        try database.execute("PRAGMA page_size = 8192")
        try demand("locking_mode", "EXCLUSIVE", reads: "exclusive", of: database)
        // The first access takes the lock; a journal mode that cannot be had is answered with the present one.
        try demand("journal_mode", "WAL", reads: "wal", of: database)
        try demand("synchronous", "FULL", reads: "2", of: database)
        try demand("cell_size_check", "ON", reads: "1", of: database)
        try database.execute("PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY")
        try database.execute("BEGIN IMMEDIATE; COMMIT")
    }

    private func demand(_ name: String, _ value: String, reads expected: String, of database: Database) throws {
        let answer = try database.text("PRAGMA \(name) = \(value)")
        let actual = try database.text("PRAGMA \(name)") ?? answer
        guard actual?.lowercased() == expected else {
            throw StoreError(
                .misconfigured, "SQLite would not set \(name) to \(value), it is \(actual ?? "unknown"): the file system or the library cannot keep the store's promise")
        }
    }

    private func checkIntegrity(of database: Database) throws {
        // SQLite reads what is missing of the last page as zeros. After the log is in the file, no page may be cut short.
        try database.checkpoint(SQLITE_CHECKPOINT_TRUNCATE)
        let pageSize = try database.integer("PRAGMA page_size") ?? 0
        guard pageSize > 0, place.size % pageSize == 0 else {
            throw SQLiteError(code: SQLITE_CORRUPT, message: "its \(place.size) bytes are no whole number of pages of \(pageSize)")
        }
        let answer = try database.text("PRAGMA quick_check(1)") ?? ""
        guard answer == "ok" else { throw SQLiteError(code: SQLITE_CORRUPT, message: "the integrity check says: \(answer)") }
    }

    /// Compares what the file says about itself with what this place remembers.
    private func settle(_ found: Schema.State?, hasRecords: Bool) throws -> Schema.State {
        let witness = Witness.read(place.witness)
        guard var state = found else {
            var file: [UInt8] = []
            while file.count < 16 { withUnsafeBytes(of: environment.random()) { file += $0 } }
            guard place.hasWitness else {
                return Schema.State(file: file, incarnation: Incarnation(rawValue: 0), seen: clock.now().retention, epoch: .zero)
            }
            // Begun anew by decision: whatever the lost one knew, later epochs are higher than any it gave.
            try decide(.startNew, "is empty, and \(place.witness) says that there was a database with records; a database that was copied while it was open, or after a crash, needs its log \(place.path)-wal too")
            return Schema.State(
                file: file, incarnation: try next(witness?.incarnation ?? Incarnation(rawValue: 0)),
                seen: max(clock.now().retention, witness?.seen ?? .distantPast), epoch: witness?.epoch ?? .zero)
        }
        if let witness, witness.file != state.file || witness.seen > state.seen || witness.epoch > state.epoch {
            try decide(
                .acceptRestored,
                witness.file == state.file
                    ? "is older than what \(place.witness) remembers: it seems to be restored from a backup, and keys finished since then would run again"
                    : "is another database than the one \(place.witness) remembers")
        } else if clock.now().retention - state.seen > Self.longestAbsence {
            try decide(
                .acceptRestored,
                "was last in use on \(day(state.seen)), and the clock shows \(day(clock.now().retention)): either the clock is wrong, which would let every key expire; set it and start again. Or the store was closed for as long, or restored from a backup with its witness",
                .misconfigured)
        } else if witness == nil, hasRecords {
            try decide(
                .acceptRestored,
                "has records, and \(place.witness), which remembers how far it had come, \(place.hasWitness ? "cannot be read" : "is missing"): it seems to be a copy or to be restored from a backup, and keys finished since then would run again")
        } else {
            return state
        }
        state.incarnation = try next(max(state.incarnation, witness?.incarnation ?? state.incarnation))
        state.seen = max(state.seen, witness?.seen ?? state.seen)
        return state
    }

    /// A store that seems to have been closed for longer is opened only by decision: a clock that is set wrong once would
    /// let keys expire for good.
    private static let longestAbsence = Duration.seconds(30 * 24 * 3600)

    private func day(_ time: Timestamp) -> String {
        var seconds = Int(time.microseconds / 1_000_000)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        return "\(parts.tm_year + 1900)-\(parts.tm_mon + 1)-\(parts.tm_mday)"
    }

    private func decide(
        _ recovery: SQLiteStore.Configuration.Recovery, _ finding: String, _ code: StoreError.Code = .damaged
    ) throws {
        guard configuration.recovery == recovery else {
            throw StoreError(code, "\(place.path) \(finding). If that is as it should be, start once with recovery: \(recovery) (semel serve --recovery \(recovery))")
        }
    }

    private func next(_ incarnation: Incarnation) throws -> Incarnation {
        guard incarnation.rawValue < Incarnation.limit else {
            throw StoreError(.misconfigured, "\(place.path): the incarnation is at its limit of \(Incarnation.limit)")
        }
        return Incarnation(rawValue: incarnation.rawValue + 1)
    }

    /// A new file's name must survive a power cut too.
    private func syncFolder() throws {
        let descriptor = Glibc.open(place.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw SQLiteError(code: SQLITE_IOERR, message: "the folder cannot be synced") }
    }
}
