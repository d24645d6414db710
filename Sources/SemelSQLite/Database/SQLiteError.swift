import CSQLite

/// What SQLite answered instead of doing what it was asked.
public struct SQLiteError: Error, Hashable, CustomStringConvertible {
    /// SQLite's extended result code.
    public let code: Int32
    public let message: String

    package init(code: Int32, message: String) {
        self.code = code
        self.message = message
    }

    /// The code without its detail.
    public var primaryCode: Int32 { code & 0xFF }

    public var description: String { "SQLite error \(code): \(message)" }

    var isDamage: Bool { primaryCode == SQLITE_CORRUPT || primaryCode == SQLITE_NOTADB }
    /// A journal that cannot be opened or grown on a full disk shows as an I/O error, depending on the file system.
    var isFull: Bool { primaryCode == SQLITE_FULL }
    /// What is on the disk can no longer be trusted. Every other error is the statement's own.
    var isGrave: Bool { primaryCode == SQLITE_IOERR || isDamage }
    var isBusy: Bool { primaryCode == SQLITE_BUSY || primaryCode == SQLITE_LOCKED }
}
