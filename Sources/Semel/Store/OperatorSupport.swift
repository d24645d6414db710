package import SemelCore

// Shared by the stores that keep the audit log themselves.

extension Resolution {
    package var action: String {
        switch self {
        case .applied: "resolve-applied"
        case .notApplied: "resolve-not-applied"
        }
    }
}

extension RecordMachine.Change {
    /// What an operator's act did to a record, for the audit log: states and epochs, never key or outcome.
    package func auditDetail(before: Record) -> String {
        let old = "\(before.state) epoch \(before.epoch)"
        return switch self {
        case .keep: old
        case .put(let record): "\(old) -> \(record.state) epoch \(record.epoch)"
        case .remove: "\(old) -> absent"
        }
    }
}

extension OperationQuery {
    package func matches(_ operation: StoredOperation, at now: Timestamp) -> Bool {
        let record = operation.record
        return (states?.contains(record.state) ?? true)
            && (scene.map { $0 == operation.scene } ?? true)
            && (scope.map { $0 == operation.id.scope } ?? true)
            && (key.map { $0 == operation.id.key } ?? true)
            && (unchangedFor.map { now - record.changedAt >= $0 } ?? true)
    }
}
