#if Postgres
import Semel

extension Session {
    // MARK: Reading

    /// A row with what it says, as it stands now; `nil` when the key is absent.
    private func settled(_ row: Row, at now: StoreTime) throws -> StoredOperation? {
        let (id, record) = try decoded(row)
        guard let record = RecordMachine.settled(record, at: now) else { return nil }
        let policy = try shared.policies.policy(record.policy, connection(), within: answerLimit)
        return StoredOperation(id: id, scene: policy?.scene ?? "", record: record)
    }

    private func decoded(_ row: Row) throws -> (OperationID, Record) {
        do {
            return try row.record { try shared.policies.policy($0, connection(), within: answerLimit)?.hash }
        } catch let failure as Row.Failure {
            throw StoreError(.damaged, "\(shared.target.place): the record of \(row.id) cannot be read: \(failure)")
        }
    }

    func operation(_ reference: OperationReference) throws -> StoredOperation? {
        let replies = try run([.keys(shared.statements.all.read, [reference]), .prepared(shared.statements.now, Parameters())])
        guard replies[0].count == 1 else { return nil }
        return try settled(Row(replies[0], 0), at: StoreTime(Timestamp(microseconds: replies[1].integer(0, 0))))
    }

    func serverTime() throws -> Timestamp {
        Timestamp(microseconds: try run([.prepared(shared.statements.now, Parameters())])[0].integer(0, 0))
    }

    // MARK: Acting

    /// What an operator decided, with its audit entry in the same transaction.
    func act(
        _ id: OperationID, _ action: String, by act: OperatorAct,
        _ decide: (Record?, StoreTime) -> (TransitionResult, RecordMachine.Change)
    ) throws -> TransitionResult {
        let reference = OperationReference(id)
        let schema = shared.target.quotedSchema
        let result = try transaction { () throws -> TransitionResult in
            // Twice: a record that moves while the first one waits for it is in the second one's view.
            let lock = Connection.Command.keys(shared.statements.all.lock, [reference])
            let read = try run([.text("BEGIN"), lock, lock, .prepared(shared.statements.now, Parameters())])
            let now = StoreTime(Timestamp(microseconds: read[3].integer(0, 0)))
            var before: Record?
            if read[2].count == 1 {
                let (found, record) = try decoded(Row(read[2], 0))
                before = found == id ? record : nil
            }
            let (result, change) = decide(before, now)
            guard result == .applied, let before else { return result }

            // One at a time, or the chain would fork.
            let last = try run([
                .text("SELECT pg_advisory_xact_lock(\(shared.target.lockNumber &+ 1))"),
                .text("SELECT sequence, hash FROM \(schema).audit ORDER BY sequence DESC LIMIT 1"),
            ])[1]
            let policy = try shared.policies.policy(before.policy, connection(), within: answerLimit)
            let entry = AuditEntry(
                sequence: last.count == 0 ? 1 : last.integer(0, 0, as: Int64.self) + 1, time: now.retention, act: act, action: action,
                operation: reference, scene: policy?.scene ?? "", detail: change.auditDetail(before: before),
                following: last.count == 0 ? AuditEntry.genesisHash : last.bytes(0, 1))
            var parameters = Parameters()
            parameters.add(entry.sequence)
            parameters.add(entry.time.microseconds)
            parameters.add(Array(entry.actor.utf8))
            parameters.add(Array(entry.reason.utf8))
            parameters.add(entry.action)
            parameters.add(entry.operation)
            parameters.add(Array(entry.scene.utf8))
            parameters.add(entry.detail)
            parameters.add(entry.previousHash)
            parameters.add(entry.hash)
            var commands: [Connection.Command] = [
                .text(
                    """
                    INSERT INTO \(schema).audit (sequence, time, actor, reason, action, operation, scene, detail, previous, hash) VALUES
                        ($1::bigint, $2::bigint, $3::bytea, $4::bytea, $5::text, $6::uuid, $7::bytea, $8::text, $9::bytea, $10::bytea)
                    """, parameters)
            ]
            switch change {
            case .keep: break
            case .remove: commands.append(.keys(shared.statements.all.delete, [reference]))
            case .put(let record):
                guard let number = shared.policies.number(of: record.policy) else {
                    throw StoreError(.damaged, "\(shared.target.place): the policy of \(reference) is not kept")
                }
                commands.append(.put(shared.statements.all.put, [Row(id, reference, record, policy: number)]))
            }
            _ = try run(commands + [.text("COMMIT")])
            return result
        }
        if result == .applied { shared.signals.changed([reference]) }
        return result
    }

    func audit(after sequence: Int64, limit: Int) throws -> [AuditEntry] {
        let rows = try run([
            .text(
                """
                SELECT sequence, time, actor, reason, action, operation, scene, detail, previous, hash FROM \(shared.target.quotedSchema).audit
                WHERE sequence > \(sequence) ORDER BY sequence LIMIT \(max(0, limit))
                """)
        ])[0]
        return (0..<rows.count).map { row in
            AuditEntry(
                sequence: rows.integer(row, 0), time: Timestamp(microseconds: rows.integer(row, 1)),
                act: OperatorAct(actor: rows.text(row, 2), reason: rows.text(row, 3)), action: rows.text(row, 4),
                operation: rows.reference(row, 5), scene: rows.text(row, 6), detail: rows.text(row, 7), previousHash: rows.bytes(row, 8),
                storedHash: rows.bytes(row, 9))
        }
    }

    /// Every later epoch is higher than any given before, whatever was lost.
    func raiseIncarnation() throws -> Incarnation {
        let rows = try run([
            .text(
                """
                UPDATE \(shared.target.quotedSchema).meta SET incarnation = incarnation + 1 WHERE incarnation < \(Incarnation.limit)
                RETURNING seen, incarnation
                """)
        ])[0]
        guard rows.count == 1 else {
            throw StoreError(.misconfigured, "\(shared.target.place): the incarnation is at its limit of \(Incarnation.limit); begin with a new schema")
        }
        let incarnation = Incarnation(rawValue: UInt16(clamping: rows.integer(0, 1, as: Int32.self)))
        shared.saw(rows.integer(0, 0), incarnation)
        return incarnation
    }

    // MARK: Listing

    /// Where a page ended: everything up to this change and reference was looked at.
    private struct Position: Comparable {
        var time: Int64 = .min
        var reference = OperationReference(high: 0, low: 0)

        init() {}

        init(_ time: Timestamp, _ reference: OperationReference) {
            self.time = time.microseconds
            self.reference = reference
        }

        init?(_ cursor: String) {
            let parts = cursor.split(separator: ".")
            guard parts.count == 2, let time = Int64(parts[0]), let reference = OperationReference(parts[1]) else { return nil }
            self.time = time
            self.reference = reference
        }

        var cursor: String { "\(time).\(reference)" }

        static func < (left: Position, right: Position) -> Bool {
            (left.time, left.reference.high, left.reference.low) < (right.time, right.reference.high, right.reference.low)
        }
    }

    /// How many finished operations a page looks at, at most.
    private static let looks = (rounds: 20, rows: 500)

    func list(_ query: OperationQuery) throws -> OperationPage {
        let start: Position
        if let cursor = query.cursor {
            guard let position = Position(cursor) else { return OperationPage(operations: [], cursor: nil, now: .distantPast) }
            start = position
        } else {
            start = Position()
        }
        let now = StoreTime(try serverTime())
        var found: [(position: Position, operation: StoredOperation)] = []
        func take(_ rows: Rows) throws {
            for number in 0..<rows.count {
                let row = Row(rows, number)
                // One that cannot be read is told where it is asked for by itself.
                guard let (id, record) = try? decoded(row), let settled = RecordMachine.settled(record, at: now) else { continue }
                let scene = try shared.policies.policy(settled.policy, connection(), within: answerLimit)?.scene ?? ""
                let operation = StoredOperation(id: id, scene: scene, record: settled)
                let position = Position(settled.changedAt, row.id)
                if position > start, query.matches(operation, at: now.retention) { found.append((position, operation)) }
            }
        }
        let table = "\(shared.target.quotedSchema).record"
        if query.states.map({ !$0.isDisjoint(with: [.claimed, .verifying, .streaming, .uncertain]) }) ?? true {
            try take(run([.text("SELECT \(Statements.columns) FROM \(table) WHERE \(Statements.isLive)")])[0])
        }
        // Nothing behind this was looked at.
        var end: Position?
        if query.states?.contains(.completed) ?? true {
            var position = start
            var rounds = 0
            let changed = "due - CASE WHEN outcome IS NULL THEN \(Statements.duration("key")) ELSE \(Statements.duration("response")) END"
            while true {
                var parameters = Parameters()
                parameters.add(position.time)
                parameters.add(position.reference)
                var condition = ""
                if let scope = query.scope {
                    parameters.add(scope.bytes)
                    condition = "AND \(Statements.scope) = $3::bytea"
                }
                let rows = try run([
                    .text(
                        """
                        SELECT \(Statements.columns), \(changed) AS changed FROM \(table)
                        WHERE (state & 7) = 5 \(condition) AND (\(changed), id) > ($1::bigint, $2::uuid)
                        ORDER BY changed, id LIMIT \(Self.looks.rows)
                        """, parameters)
                ])[0]
                try take(rows)
                rounds += 1
                guard rows.count == Self.looks.rows else { break }
                position = Position(Timestamp(microseconds: rows.integer(rows.count - 1, 9)), rows.reference(rows.count - 1, 0))
                if found.count > query.limit || rounds == Self.looks.rounds {
                    end = position
                    break
                }
            }
        }
        found.sort { $0.position < $1.position }
        if let end { found.removeAll { $0.position > end } }
        let page = found.prefix(max(0, query.limit))
        let cursor = page.count < found.count ? page.last?.position ?? start : end
        return OperationPage(operations: page.map(\.operation), cursor: cursor?.cursor, now: now.retention)
    }

    // MARK: Housekeeping

    /// Removes what has outlived its retentions: sealed segments whole, and a part at a time outcomes, and the keys of the
    /// current segment. Rows that somebody holds are left for later.
    /// ``purge(limit:)``, unless another process is at it.
    /// - Returns: whether there is more to do.
    func purgeAlone(limit: Int) throws -> Bool {
        let lock = shared.target.purgeLock
        guard try run([.text("SELECT pg_try_advisory_lock(\(lock))")])[0].flag(0, 0) else { return false }
        let result = Result { try purge(limit: limit) }
        // With the connection the lock goes too.
        if case .failure(let error) = result, error is Connection.Lost { throw error }
        _ = try run([.text("SELECT pg_advisory_unlock(\(lock))")])
        let report = try result.get()
        return report.keys + report.outcomes >= limit
    }

    func purge(limit: Int) throws -> PurgeReport {
        var report = PurgeReport(outcomes: 0, keys: try dropOutlived())
        let schema = shared.target.quotedSchema
        let now = "(SELECT \(Statements.microseconds))"
        let due = "(state & \(Row.stateMask)) = \(Row.pattern(.completed)) AND due <= \(now)"
        let map = shared.segments.map
        for segment in map.all {
            let table = "\(schema).\(Segment.table(segment.number))"
            var actions: [(String, String, WritableKeyPath<PurgeReport, Int>)] = [
                ("UPDATE \(table) SET outcome = NULL, due = \(Statements.forgotten)", "outcome IS NOT NULL AND \(Statements.forgotten) > \(now)", \.outcomes)
            ]
            if segment.mark == nil {
                actions.insert(("DELETE FROM \(table)", "(outcome IS NULL OR \(Statements.forgotten) <= \(now))", \.keys), at: 0)
            }
            for (action, condition, count) in actions {
                while report.outcomes + report.keys < limit {
                    let slice = min(Self.slice, limit - report.outcomes - report.keys)
                    do {
                        let removed = try run([
                            .text(
                                """
                                \(action) WHERE ctid = ANY (ARRAY(
                                    SELECT ctid FROM \(table) WHERE \(due) AND \(condition) LIMIT \(slice) FOR UPDATE SKIP LOCKED))
                                """)
                        ])[0].affected
                        report[keyPath: count] += removed
                        if removed < slice { break }
                    } catch let error as PostgresError where error.isMissingTable {
                        // Another process has dropped it.
                        try refreshMap()
                        guard !shared.segments.map.all.contains(where: { $0.number == segment.number }) else { throw error }
                        break
                    }
                }
            }
        }
        return report
    }

    private static let slice = 5000
}
#endif
