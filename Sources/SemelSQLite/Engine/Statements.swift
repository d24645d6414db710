import Semel

/// The engine's prepared statements.
struct Statements {
    let insertLive, updateLive, deleteLive: Statement
    let insertCompleted, readCompleted, deleteCompleted, lastCompleted: Statement
    let insertTombstone, readTombstone, deleteTombstone: Statement
    private let insertAuditEntry: Statement

    init(_ database: Database) throws(SQLiteError) {
        insertLive = try database.prepare("INSERT INTO semel_live (id, record) VALUES (?1, ?2)")
        updateLive = try database.prepare("UPDATE semel_live SET record = ?2 WHERE id = ?1")
        deleteLive = try database.prepare("DELETE FROM semel_live WHERE id = ?1")
        insertCompleted = try database.prepare("INSERT INTO semel_completed (id, record) VALUES (?1, ?2)")
        readCompleted = try database.prepare("SELECT record FROM semel_completed WHERE id = ?1")
        deleteCompleted = try database.prepare("DELETE FROM semel_completed WHERE id = ?1")
        lastCompleted = try database.prepare("SELECT record FROM semel_completed ORDER BY id DESC LIMIT 1")
        insertTombstone = try database.prepare("INSERT INTO semel_tombstone (id, record) VALUES (?1, ?2)")
        readTombstone = try database.prepare("SELECT record FROM semel_tombstone WHERE id = ?1")
        deleteTombstone = try database.prepare("DELETE FROM semel_tombstone WHERE id = ?1")
        insertAuditEntry = try database.prepare("INSERT INTO semel_audit VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")
    }

    func insertAudit(_ entry: AuditEntry) throws(SQLiteError) {
        try insertAuditEntry.bind(entry.sequence, at: 1)
        try insertAuditEntry.bind(entry.time.microseconds, at: 2)
        for (index, text) in [entry.actor, entry.reason, entry.action, entry.operation.description, entry.scene, entry.detail].enumerated() {
            try insertAuditEntry.bind(text, at: 3 + index)
        }
        try insertAuditEntry.bind(entry.previousHash, at: 9)
        try insertAuditEntry.bind(entry.hash, at: 10)
        try insertAuditEntry.run()
    }
}

extension Statement {
    /// What `read` makes of the first row, for a row number as the only parameter.
    func first<Value>(_ row: Int64, _ read: (Statement) -> Value) throws(SQLiteError) -> Value? {
        try bind(row, at: 1)
        return try first(read)
    }

    func first<Value>(_ read: (Statement) -> Value) throws(SQLiteError) -> Value? {
        guard try step() else { return nil }
        defer { reset() }
        return read(self)
    }
}
