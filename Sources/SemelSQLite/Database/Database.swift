import CSQLite

/// One SQLite connection and the few calls the store makes of it. Used by one thread.
final class Database {
    let handle: OpaquePointer
    /// How many frames the write-ahead log held after the last commit.
    private let walFrames: UnsafeMutablePointer<CInt>

    /// - Parameter vfs: the name of a registered SQLite file system; `nil` for the machine's own.
    init(path: String, vfs: String?) throws(SQLiteError) {
        var opened: OpaquePointer?
        let flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE
        let code = sqlite3_open_v2(path, &opened, flags, vfs)
        guard code == SQLITE_OK, let opened else {
            let error = SQLiteError(code: code, message: opened.map { String(cString: sqlite3_errmsg($0)) } ?? "out of memory")
            sqlite3_close_v2(opened)
            throw error
        }
        handle = opened
        walFrames = .allocate(capacity: 1)
        walFrames.initialize(to: 0)
        observeCommits(of: handle, into: walFrames)
    }

    deinit {
        sqlite3_close_v2(handle)
        walFrames.deallocate()
    }

    /// Whether the file at the path is not the one that is open any more: it was removed, or another one was put there.
    var hasMoved: Bool {
        var moved: CInt = 0
        return sqlite3_file_control(handle, "main", SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK && moved != 0
    }

    /// Runs one or more statements that return nothing of interest.
    func execute(_ sql: String) throws(SQLiteError) {
        try check(sqlite3_exec(handle, sql, nil, nil, nil))
    }

    /// Takes exactly one statement: what SQLite would leave aside in silence, a second one or what follows U+0000, is refused.
    func prepare(_ sql: String, isPersistent: Bool = true) throws(SQLiteError) -> Statement {
        guard !sql.utf8.contains(0) else { throw SQLiteError(code: SQLITE_MISUSE, message: "the statement contains U+0000") }
        var pointer: OpaquePointer?
        var isAlone = true
        let code = sql.withCString { start in
            var rest: UnsafePointer<CChar>?
            let code = sqlite3_prepare_v3(
                handle, start, -1, isPersistent ? UInt32(SQLITE_PREPARE_PERSISTENT) : 0, &pointer, &rest)
            if code == SQLITE_OK {
                // Of semicolons, space and comments SQLite makes no statement, and no error.
                var second: OpaquePointer?
                isAlone = sqlite3_prepare_v3(handle, rest, -1, 0, &second, nil) == SQLITE_OK && second == nil
                sqlite3_finalize(second)
            }
            return code
        }
        try check(code)
        guard let pointer else { throw SQLiteError(code: SQLITE_MISUSE, message: "there is no statement in \"\(sql)\"") }
        let statement = Statement(pointer, of: self)
        guard isAlone else { throw SQLiteError(code: SQLITE_MISUSE, message: "one statement at a time; there is more in \"\(sql)\"") }
        return statement
    }

    /// The first column of the first row, as text.
    func text(_ sql: String) throws(SQLiteError) -> String? {
        let statement = try prepare(sql, isPersistent: false)
        return try statement.step() ? statement.text(0) : nil
    }

    func integer(_ sql: String) throws(SQLiteError) -> Int64? {
        let statement = try prepare(sql, isPersistent: false)
        return try statement.step() && !statement.isNull(0) ? statement.integer(0) : nil
    }

    /// Whether a transaction is open; SQLite ends one by itself on some errors.
    var isInTransaction: Bool { sqlite3_get_autocommit(handle) == 0 }

    /// Rows changed, inserted or deleted since the connection was opened.
    var totalChanges: Int64 { sqlite3_total_changes64(handle) }

    var framesInLog: Int { Int(walFrames.pointee) }

    /// Copies what the write-ahead log holds into the database file, so that the log starts anew.
    ///
    /// Done here and not by SQLite's automatic checkpoint, which drops errors: one in writing or syncing the file must stop
    /// the store (H16).
    func checkpoint(_ mode: CInt = SQLITE_CHECKPOINT_PASSIVE) throws(SQLiteError) {
        try check(sqlite3_wal_checkpoint_v2(handle, nil, mode, nil, nil))
        walFrames.pointee = 0
    }

    func check(_ code: CInt) throws(SQLiteError) {
        guard code == SQLITE_OK else { throw error(code) }
    }

    func error(_ code: CInt) -> SQLiteError {
        SQLiteError(code: code, message: String(cString: sqlite3_errmsg(handle)))
    }
}

/// Takes the place of SQLite's automatic checkpoint.
private func observeCommits(of handle: OpaquePointer, into frames: UnsafeMutablePointer<CInt>) {
    _ = sqlite3_wal_hook(
        handle,
        { context, _, _, count in
            context?.assumingMemoryBound(to: CInt.self).pointee = count
            return SQLITE_OK
        }, frames)
}
