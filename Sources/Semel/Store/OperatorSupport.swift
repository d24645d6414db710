public import SemelCore

// For stores that keep the audit log and list operations themselves.

extension Resolution {
    /// The action's name in an ``AuditEntry``.
    public var action: String {
        switch self {
        case .applied: "resolve-applied"
        case .notApplied: "resolve-not-applied"
        }
    }
}

extension RecordMachine.Change {
    /// What an operator's act did to a record, for the audit log: states and epochs, never key or outcome.
    public func auditDetail(before: Record) -> String {
        let old = "\(before.state) epoch \(before.epoch)"
        return switch self {
        case .keep: old
        case .put(let record): "\(old) -> \(record.state) epoch \(record.epoch)"
        case .remove: "\(old) -> absent"
        }
    }
}

extension OperationQuery {
    /// Whether an operation, as it stands now, is one to be listed; says nothing about the page.
    ///
    /// - Parameter now: the store's retention time.
    public func matches(_ operation: StoredOperation, at now: Timestamp) -> Bool {
        let record = operation.record
        return (states?.contains(record.state) ?? true)
            && (scene.map { ExactText($0) == ExactText(operation.scene) } ?? true)
            && (scope.map { $0 == operation.id.scope } ?? true)
            && (key.map { $0 == operation.id.key } ?? true)
            && (unchangedFor.map { now - record.changedAt >= $0 } ?? true)
    }
}
