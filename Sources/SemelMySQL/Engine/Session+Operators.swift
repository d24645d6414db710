#if MySQL
import Semel

extension Session {
    /// Locks one key and reads what stands under it.
    private func locked(_ row: RowID) throws -> (row: Row?, stored: Stored) {
        try readClock()
        let found = try lock([row])[row]
        try refreshClock()
        let stored = Stored(found)
        if case .unreadable(let why) = stored { throw damaged(row.reference, why) }
        return (found, stored)
    }

    func verify(_ id: OperationID, _ row: RowID, owner: Owner, lease: Duration) throws -> Grant? {
        try persist { maybeDone in
            let (found, stored) = try locked(row)
            // Its own verification, whose answer was lost.
            if maybeDone, let record = stored.record, record.state == .verifying, record.owner == owner {
                try startOver()
                return Grant(
                    kind: .verify, token: record.token, leaseRemaining: record.leaseUntil - now.lease, attempt: record.attempt,
                    previousChange: record.changedAt, createdAt: record.createdAt, grantedAt: now.retention, policy: record.policy,
                    traceID: record.traceID)
            }
            let (grant, change) = RecordMachine.verify(
                stored.record, owner: owner, lease: lease, at: now, nextEpoch: { nextEpoch(after: max($0, stored.epoch)) })
            try finish(id, row, change, found, stored)
            return grant
        }
    }

    func resolve(
        _ id: OperationID, _ row: RowID, as resolution: Resolution, by act: OperatorAct, expecting epoch: Epoch?
    ) throws -> TransitionResult {
        try decide(id, row, act, resolution.action) { stored in
            RecordMachine.resolve(
                resolution, on: stored.record, expecting: epoch, at: now, nextEpoch: { nextEpoch(after: max($0, stored.epoch)) })
        }
    }

    func forget(_ id: OperationID, _ row: RowID, by act: OperatorAct, expecting epoch: Epoch?) throws -> TransitionResult {
        try decide(id, row, act, "forget") { stored in RecordMachine.forget(stored.record, expecting: epoch, at: now) }
    }

    private func decide(
        _ id: OperationID, _ row: RowID, _ act: OperatorAct, _ action: String,
        _ decision: (Stored) -> (TransitionResult, RecordMachine.Change)
    ) throws -> TransitionResult {
        // What a COMMIT without an answer was to make durable.
        var sent: AuditEntry?
        return try persist { maybeDone in
            let (found, stored) = try locked(row)
            if maybeDone, let sent, try audit(after: sent.sequence - 1, limit: 1).first == sent {
                try startOver()
                return .applied
            }
            let (result, change) = decision(stored)
            guard result == .applied, let before = stored.record else {
                try startOver()
                return result
            }
            sent = try append(act, action, on: row.reference, before: before, change)
            try finish(id, row, change, found, stored)
            return result
        }
    }

    private func finish(_ id: OperationID, _ row: RowID, _ change: RecordMachine.Change, _ found: Row?, _ stored: Stored) throws {
        guard let next = self.row(row, id, change, before: stored), next != found else { return try startOver() }
        if found == nil { try insert([next]) } else { try overwrite([next]) }
        try commit()
        shared.observations.signal(id)
    }

    // MARK: Audit

    private func append(
        _ act: OperatorAct, _ action: String, on operation: OperationReference, before: Record, _ change: RecordMachine.Change
    ) throws -> AuditEntry {
        try lock([Tables.auditLock])
        let last = try connection.rows("SELECT sequence, hash FROM semel_audit ORDER BY sequence DESC LIMIT 1").first
        let entry = AuditEntry(
            sequence: (last?[0].integer ?? 0) + 1, time: now.retention, act: act, action: action, operation: operation,
            scene: try policy(before.policy)?.scene ?? "", detail: change.auditDetail(before: before),
            following: last?[1].bytes ?? AuditEntry.genesisHash)
        var parameters = Parameters()
        parameters.append(entry.sequence)
        parameters.append(entry.time.microseconds)
        for text in [entry.actor, entry.reason, entry.action, entry.operation.description, entry.scene, entry.detail] {
            parameters.append(Array(text.utf8))
        }
        parameters.append(entry.previousHash)
        parameters.append(entry.hash)
        try connection.statement(
            "INSERT INTO semel_audit (sequence, time, actor, reason, action, operation, scene, detail, previous, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        ).execute(parameters)
        return entry
    }

    func audit(after sequence: Int64, limit: Int) throws -> [AuditEntry] {
        var parameters = Parameters()
        parameters.append(sequence)
        parameters.append(Int64(max(0, limit)))
        return try connection.statement(
            "SELECT sequence, time, actor, reason, action, operation, scene, detail, previous, hash FROM semel_audit WHERE sequence > ? ORDER BY sequence LIMIT ?"
        ).query(parameters).map { row in
            func text(_ column: Int) -> String { String(decoding: row[column].bytes ?? [], as: UTF8.self) }
            guard let sequence = row[0].integer, let time = row[1].integer, let operation = OperationReference(text(5)),
                let previous = row[8].bytes, let hash = row[9].bytes
            else { throw StoreError(.damaged, "\(shared.target.description): an audit entry cannot be read: \(row)") }
            return AuditEntry(
                sequence: sequence, time: Timestamp(microseconds: time), act: OperatorAct(actor: text(2), reason: text(3)), action: text(4),
                operation: operation, scene: text(6), detail: text(7), previousHash: previous, storedHash: hash)
        }
    }

    // MARK: Finding and listing

    /// Something that only reads.
    func reading<Value>(_ body: () throws -> Value) throws -> Value {
        try persist { _ in
            try readClock()
            let value = try body()
            try startOver()
            return value
        }
    }

    func operation(_ reference: OperationReference) throws -> StoredOperation? {
        try reading {
            let (first, last) = RowID.range(of: reference)
            var parameters = Parameters()
            parameters.append(first.bytes)
            parameters.append(last.bytes)
            for found in try connection.statement("SELECT \(Tables.columns) FROM semel_record WHERE id BETWEEN ? AND ? ORDER BY id").query(parameters) {
                let row = try Row(found)
                guard !row.isFree else { continue }
                do {
                    let (id, record) = try row.decode()
                    return try stored(id, record)
                } catch let failure as Row.Failure {
                    throw damaged(reference, failure.description)
                }
            }
            return nil
        }
    }

    private func stored(_ id: OperationID, _ record: Record) throws -> StoredOperation? {
        guard let record = RecordMachine.settled(record, at: now) else { return nil }
        return StoredOperation(id: id, scene: try policy(record.policy)?.scene ?? "", record: record)
    }

    /// Where a page ended: everything up to this change was looked at.
    struct ListPosition {
        var time: Int64 = .min
        var row = RowID.range(of: OperationReference(high: 0, low: 0)).first

        init() {}

        init?(_ cursor: String) {
            let parts = cursor.split(separator: ".", omittingEmptySubsequences: false)
            guard parts.count == 2, let time = Int64(parts[0]), let digest = Digest256(hexadecimal: String(parts[1])),
                let row = RowID(digest.bytes)
            else { return nil }
            self.time = time
            self.row = row
        }

        init(time: Int64, row: RowID) {
            self.time = time
            self.row = row
        }

        var cursor: String { "\(time).\(Digest256(bytes: row.bytes)?.description ?? "")" }

        static func < (left: ListPosition, right: ListPosition) -> Bool { (left.time, left.row) < (right.time, right.row) }
    }

    /// A part of a page: looks at no more than `rows` operations of either kind.
    ///
    /// - Returns: what was found; where to go on, `nil` at the end.
    func list(_ query: OperationQuery, from start: ListPosition, limit: Int, rows: Int) throws -> (found: [StoredOperation], next: ListPosition?, now: Timestamp) {
        try reading {
            var candidates: [(position: ListPosition, row: Row)] = []
            /// Up to where everything is among the candidates.
            var horizon: ListPosition?
            func add(_ part: [(position: ListPosition, row: Row)]) {
                candidates += part
                if part.count == rows, let last = part.last?.position, horizon.map({ last < $0 }) ?? true { horizon = last }
            }
            if query.states.map({ !$0.isDisjoint(with: [.claimed, .verifying, .streaming, .uncertain]) }) ?? true {
                add(try live(in: query.scope, from: start, rows: rows))
            }
            if query.states?.contains(.completed) ?? true { add(try completed(from: start, rows: rows)) }
            candidates.sort { $0.position < $1.position }

            var found: [StoredOperation] = []
            for (position, row) in candidates {
                if let horizon, horizon < position { break }
                do {
                    let (id, record) = try row.decode()
                    if let operation = try stored(id, record), query.matches(operation, at: now.retention) { found.append(operation) }
                } catch is Row.Failure {
                    // It stops its own key, where it is asked for; a listing goes on.
                }
                if found.count == limit {
                    return (found, position < (candidates.last?.position ?? position) || horizon != nil ? position : nil, now.retention)
                }
            }
            return (found, horizon, now.retention)
        }
    }

    /// When what stands there now came to be so: a claim or a stream that lapsed did so at the end of its lease.
    private static let settledChange = "IF(state = 1 AND rule = 3 AND lease <= ? OR state = 3 AND lease <= ?, lease, changed)"

    private func live(in scope: Scope?, from start: ListPosition, rows: Int) throws -> [(position: ListPosition, row: Row)] {
        var parameters = Parameters()
        for _ in 0..<2 { parameters.append(now.lease.microseconds) }
        if let scope { parameters.append(RowID(scope).bytes) }
        parameters.append(start.time)
        parameters.append(start.time)
        parameters.append(start.row.bytes)
        parameters.append(Int64(rows))
        let found = try connection.statement(
            """
            SELECT * FROM (SELECT \(Tables.columns), \(Self.settledChange) AS since FROM semel_record WHERE \(scope == nil ? "live IS NOT NULL" : "live = ?")) AS operation
            WHERE since > ? OR since = ? AND id > ? ORDER BY since, id LIMIT ?
            """
        ).query(parameters)
        return try found.map {
            let row = try Row($0)
            return (ListPosition(time: $0[Tables.columnCount].integer ?? row.changed, row: row.id), row)
        }
    }

    private func completed(from start: ListPosition, rows: Int) throws -> [(position: ListPosition, row: Row)] {
        var parameters = Parameters()
        parameters.append(start.time)
        parameters.append(start.time)
        parameters.append(start.row.bytes)
        parameters.append(Int64(rows))
        let found = try connection.statement(
            """
            SELECT \(Tables.columns) FROM semel_record FORCE INDEX (semel_record_live)
            WHERE live IS NULL AND changed >= ? AND (changed > ? OR id > ?) AND state = 5 ORDER BY changed, id LIMIT ?
            """
        ).query(parameters)
        return try found.map {
            let row = try Row($0)
            return (ListPosition(time: row.changed, row: row.id), row)
        }
    }

    // MARK: Purging

    /// One portion: removes outcomes whose retention has ended, then keys, then the last traces of forgotten ones.
    /// - Returns: what was removed; `nil` when nothing was due.
    func purge(upTo limit: Int) throws -> PurgeReport? {
        try persist { _ in
            try readClock()
            var parameters = Parameters()
            parameters.append(now.retention.microseconds)
            parameters.append(Int64(min(limit, 4 * Tables.largest)))
            let due = try connection.statement("SELECT id FROM semel_record FORCE INDEX (semel_record_due) WHERE due <= ? ORDER BY due LIMIT ?")
                .query(parameters).compactMap { RowID($0[0].bytes) }
            guard !due.isEmpty else {
                try startOver()
                return nil
            }
            // Whoever is at work on one now has it, and it is due another time.
            let rows = try read(due.sorted(), Tables.lockIfFree)
            var report = PurgeReport(outcomes: 0, keys: 0)
            var removed: [RowID] = []
            var overwritten: [Row] = []
            for var row in rows.values {
                guard let at = row.due, at <= now.retention.microseconds, row.live == nil else { continue }
                switch Stored(row) {
                case .absent:
                    if row.token.epoch < forgettableEpoch { removed.append(row.id) } else { overwritten.append(.free(row.id, after: row.token, at: now.retention)) }
                case .unreadable:
                    // What cannot be read is not forgotten, and not looked at all the time.
                    row.due = now.retention.microseconds + Duration.seconds(3600).microseconds
                    overwritten.append(row)
                case .record(let record):
                    if let settled = RecordMachine.settled(record, at: now) {
                        if record.outcome != nil, settled.outcome == nil { report.outcomes += 1 }
                        if settled.outcome == nil { row.outcome = nil }
                        row.due = (settled.outcome == nil ? settled.keyUntil : settled.responseUntil).microseconds
                        overwritten.append(row)
                    } else {
                        report.keys += 1
                        if row.token.epoch < forgettableEpoch { removed.append(row.id) } else { overwritten.append(.free(row.id, after: row.token, at: now.retention)) }
                    }
                }
            }
            try overwrite(overwritten.sorted { $0.id < $1.id })
            var removedCount = 0
            removed.sort()
            for start in stride(from: 0, to: removed.count, by: Tables.largest) {
                let portion = removed[start..<min(start + Tables.largest, removed.count)]
                let size = Tables.size(for: portion.count)
                var parameters = Parameters(reservingCapacity: 32 * size)
                for number in 0..<size { parameters.append(portion[min(start + number, portion.endIndex - 1)].bytes) }
                removedCount += try connection.statement(Tables.delete[size]!).execute(parameters)
            }
            guard removedCount == removed.count else { throw Conflict() }
            // What was forgotten must not come back by a clock that is set back.
            try noteTime()
            try commit()
            // Everything that is due is being worked on: come back later.
            return removed.isEmpty && overwritten.isEmpty ? nil : report
        }
    }

    // MARK: Waiting

    /// What tells one state of a key from another, for those of these keys that have a row.
    func look(at ids: [RowID]) throws -> [RowID: Stamp] {
        try persist { _ in
            var stamps: [RowID: Stamp] = [:]
            try rows(ids, Tables.look) { row in
                guard let id = RowID(row[0].bytes) else { return }
                stamps[id] = Stamp(state: row[1].integer ?? 0, epoch: row[2].natural ?? 0, changed: row[3].integer ?? 0, lease: row[4].integer ?? 0)
            }
            try startOver()
            return stamps
        }
    }

    struct Stamp: Hashable, Sendable {
        let state: Int64
        let epoch: UInt64
        let changed: Int64
        let lease: Int64
    }
}
#endif
