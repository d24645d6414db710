import Semel

extension Engine {
    func resolve(
        _ id: OperationID, as resolution: Resolution, by act: OperatorAct, expecting epoch: Epoch?
    ) throws -> TransitionResult {
        let stored = try readable(id)
        let (result, change) = RecordMachine.resolve(
            resolution, on: stored.record, expecting: epoch, at: now, nextEpoch: nextEpoch(after:))
        return try finish(id, stored, result, change, act, resolution.action)
    }

    func forget(_ id: OperationID, by act: OperatorAct, expecting epoch: Epoch?) throws -> TransitionResult {
        let stored = try readable(id)
        let (result, change) = RecordMachine.forget(stored.record, expecting: epoch, at: now)
        return try finish(id, stored, result, change, act, "forget")
    }

    private func finish(
        _ id: OperationID, _ stored: Stored, _ result: TransitionResult, _ change: RecordMachine.Change, _ act: OperatorAct,
        _ action: String
    ) throws -> TransitionResult {
        guard result == .applied, let before = stored.record else { return result }
        try audit(act, action, on: id, before: before, change)
        try write(change, to: id, reference: nil, stored)
        return result
    }

    func audit(after sequence: Int64, limit: Int) throws -> [AuditEntry] {
        let read = try database.prepare("SELECT * FROM semel_audit WHERE sequence > ?1 ORDER BY sequence LIMIT ?2", isPersistent: false)
        try read.bind(sequence, at: 1)
        try read.bind(Int64(max(0, limit)), at: 2)
        var entries: [AuditEntry] = []
        while try read.step() {
            guard let operation = OperationReference(read.text(5)) else {
                throw StoreError(.damaged, "\(place.path): audit entry \(read.integer(0)) names no operation")
            }
            entries.append(
                AuditEntry(
                    sequence: read.integer(0), time: Timestamp(microseconds: read.integer(1)),
                    act: OperatorAct(actor: read.text(2), reason: read.text(3)), action: read.text(4), operation: operation,
                    scene: read.text(6), detail: read.text(7), previousHash: read.bytes(8), storedHash: read.bytes(9)))
        }
        return entries
    }

    func operation(_ reference: OperationReference) throws -> StoredOperation? {
        if let (id, entry) = live.first(where: { $0.value.reference == reference }) {
            return stored(id, entry.record)
        }
        if let (_, why) = unreadable.first(where: { OperationReference($0.key) == reference }) {
            throw damaged(reference, why)
        }
        for row in try index.rows(under: reference.high) {
            guard let bytes = try bytes(ofRow: row) else { continue }
            switch decode(bytes) {
            case .success(let (id, record)):
                if OperationReference(id) == reference { return stored(id, record) }
            case .failure(let failure):
                throw damaged(reference, failure.description)
            }
        }
        return nil
    }

    private func stored(_ id: OperationID, _ record: Record) -> StoredOperation? {
        RecordMachine.settled(record, at: now).map { StoredOperation(id: id, scene: scene($0.policy), record: $0) }
    }

    // MARK: Listing

    /// Where a page ended: everything up to this time and row was looked at. Finished rows are numbered in the order of
    /// their time, so both kinds of operation are told in one order.
    struct ListPosition {
        var time: Timestamp = .distantPast
        var reference = OperationReference(high: 0, low: 0)
        var row: Int64 = 0

        init() {}

        init?(_ cursor: String) {
            let parts = cursor.split(separator: ".", omittingEmptySubsequences: false)
            guard parts.count == 3, let time = Int64(parts[0]), let reference = OperationReference(parts[1]), let row = Int64(parts[2])
            else { return nil }
            self.time = Timestamp(microseconds: time)
            self.reference = reference
            self.row = row
        }

        var cursor: String { "\(time.microseconds).\(reference).\(row)" }
    }

    /// A part of a page: looks at no more than `rows` finished operations.
    ///
    /// - Parameter onUnreadable: told of each finished record that cannot be read; a listing for people leaves them out.
    /// - Returns: what was found; where to go on, `nil` at the end.
    func list(
        _ query: OperationQuery, from start: ListPosition, limit: Int, rows: Int,
        onUnreadable: (RecordCodec.Failure, [UInt8]) throws -> Void = { _, _ in }
    ) throws -> ([StoredOperation], ListPosition?) {
        // Claims wait while this thread looks, so it compares what is at hand, and builds only what the page needs.
        var candidates: [(time: Timestamp, reference: OperationReference, operation: StoredOperation)] = []
        if query.states.map({ !$0.isDisjoint(with: [.claimed, .verifying, .streaming, .uncertain]) }) ?? true {
            settleLive()
            for (id, entry) in live where query.states?.contains(entry.record.state) ?? true {
                guard (entry.record.changedAt, entry.reference) > (start.time, start.reference) else { continue }
                let operation = StoredOperation(id: id, scene: scene(entry.record.policy), record: entry.record)
                if query.matches(operation, at: now.retention) { candidates.append((entry.record.changedAt, entry.reference, operation)) }
            }
            candidates.sort { ($0.time, $0.reference) < ($1.time, $1.reference) }
        }
        var livePart = candidates[...]
        var found: [StoredOperation] = []
        var position = start

        func takeLive(upTo time: Timestamp) {
            while found.count < limit, let next = livePart.first, next.time <= time {
                livePart = livePart.dropFirst()
                found.append(next.operation)
                (position.time, position.reference) = (next.time, next.reference)
            }
        }

        if query.states?.contains(.completed) ?? true {
            let read = try database.prepare(
                """
                SELECT id, record FROM semel_completed WHERE id > ?1
                UNION ALL SELECT id, record FROM semel_tombstone WHERE id > ?1 ORDER BY id LIMIT ?2
                """, isPersistent: false)
            try read.bind(start.row, at: 1)
            try read.bind(Int64(rows), at: 2)
            var looked = 0
            while found.count < limit, try read.step() {
                looked += 1
                let bytes = read.bytes(1)
                switch decode(bytes) {
                case .success(let (id, record)):
                    takeLive(upTo: record.changedAt)
                    guard found.count < limit else { return (found, position) }
                    if let operation = stored(id, record), query.matches(operation, at: now.retention) { found.append(operation) }
                case .failure(let failure):
                    try onUnreadable(failure, bytes)
                }
                position.row = read.integer(0)
            }
            if looked == rows || found.count == limit { return (found, position) }
        }
        takeLive(upTo: .distantFuture)
        return (found, livePart.isEmpty ? nil : position)
    }
}
