#if Postgres
import Semel

extension Session {
    /// Claim, body and completion in one transaction: nobody ever sees the state between.
    func perform(
        _ request: ClaimRequest, _ body: (PostgresTransaction, Grant) throws -> AtomicStep
    ) throws -> Result<AtomicResult, any Error> {
        var attempt = Attempt(request)
        var conflicts = 0
        while true {
            do {
                return try tryOnce(&attempt, body)
            } catch let lost as Connection.Lost {
                // The next attempt finds out: the row of a transaction that still runs is waited for.
                disconnect()
                attempt.losses += 1
                guard attempt.losses < 4 else { throw attempt.failure(shared.error(lost)) }
            } catch let error as PostgresError where error.isConflict && conflicts < 50 {
                conflicts += 1
                try rollBack()
                pause(.milliseconds(Int64(shared.environment.random() % UInt64(1 << min(conflicts, 6)))))
            } catch {
                if !(error is StoreError) { try rollBack() }
                throw attempt.failure(shared.error(error))
            }
        }
    }

    private struct Attempt {
        let request: ClaimRequest
        let reference: OperationReference
        var losses = 0
        /// What was being committed when the connection was lost.
        var committing: (outcome: Outcome, grant: Grant)?

        init(_ request: ClaimRequest) {
            self.request = request
            reference = OperationReference(request.id)
        }

        func failure(_ error: StoreError) -> StoreError {
            guard error.isTransient || committing != nil else { return error }
            return StoreError(committing == nil ? .unavailable : .indeterminate, error.message, underlying: error.underlying)
        }
    }

    private func rollBack() throws {
        do {
            if try connection().transactionState != .none { _ = try run([.text("ROLLBACK")]) }
        } catch is Connection.Lost {
            disconnect()
        }
    }

    /// Undoes what is open; a connection that cannot do that is given up, and with it the transaction.
    func giveUpTransaction() {
        do {
            try rollBack()
        } catch { disconnect() }
    }

    private func tryOnce(
        _ attempt: inout Attempt, _ body: (PostgresTransaction, Grant) throws -> AtomicStep
    ) throws -> Result<AtomicResult, any Error> {
        let request = attempt.request
        let connection = try connection()
        try shared.policies.keep(request.policy, connection, within: answerLimit)
        guard let policy = shared.policies.number(of: request.policy.hash) else {
            throw StoreError(.damaged, "\(shared.target.place): the policy of a claim is not kept")
        }
        guard try hasRoom(request) else { return .success(.notRun(.tooManyKeys)) }

        let (result, claimed) = try claim(request, attempt.reference, policy)
        if case .completed(let record) = result, record.owner == request.owner, let outcome = record.outcome {
            // The nonce is its own: what was lost was only the answer to COMMIT.
            try rollBack()
            return .success(.performed(outcome, attempt.committing?.grant ?? Self.grant(of: record)))
        }
        attempt.committing = nil
        guard case .granted(let grant) = result, grant.kind != .verify, let claimed else {
            _ = try run([.text("COMMIT")])
            if case .granted = result { shared.signals.changed([attempt.reference]) }
            return .success(.notRun(result))
        }

        let transaction = PostgresTransaction(self, connection)
        let step: AtomicStep
        do {
            defer { transaction.end() }
            step = try body(transaction, grant)
        } catch {
            if let lost = transaction.lost { throw lost }
            try rollBack()
            return .failure(error)
        }
        if let lost = transaction.lost { throw lost }
        switch step {
        case .commit where connection.transactionState != .open:
            try rollBack()
            return .failure(PostgresError(sqlState: "25P02", message: "a statement of the body failed and the body went on: nothing of it is kept"))
        case .commit:
            try commit(step.outcome, claimed, grant, &attempt, policy)
            return .success(.performed(step.outcome, grant))
        case .fail:
            // The body's writes go, and with them the claim: it is made again, and recorded as failed.
            try rollBack()
            let (again, claimed) = try claim(request, attempt.reference, policy)
            guard case .granted(let grant) = again, grant.kind != .verify, let claimed else {
                _ = try run([.text("COMMIT")])
                return .success(.notRun(again))
            }
            try commit(step.outcome, claimed, grant, &attempt, policy)
            return .success(.performed(step.outcome, grant))
        }
    }

    /// The grant under which a record was completed, for a caller who lost the answer.
    private static func grant(of record: Record) -> Grant {
        Grant(
            kind: .again, token: record.token, leaseRemaining: .zero, attempt: record.attempt, createdAt: record.createdAt,
            grantedAt: record.changedAt, policy: record.policy, traceID: record.traceID)
    }

    private func hasRoom(_ request: ClaimRequest) throws -> Bool {
        guard let limit = request.liveLimit, !shared.isFarBelow(limit) else { return true }
        var parameters = Parameters()
        parameters.add(request.id.scope.bytes)
        let replies = try run([
            .prepared(shared.statements.countLive, parameters), .keys(shared.statements.all.read, [OperationReference(request.id)]),
        ])
        return replies[0].integer(0, 0, as: Int64.self) < limit || replies[1].count > 0
    }

    /// A claim in an open transaction.
    private struct Claimed {
        let record: Record
        /// Where the record is: it stays there until the transaction ends.
        let segment: Segment
    }

    /// Begins a transaction, and claims in it.
    /// - Returns: the answer, and the record that is now claimed.
    private func claim(_ request: ClaimRequest, _ reference: OperationReference, _ policy: Int32) throws -> (ClaimResult, Claimed?) {
        // From here on the map stays as it is, until the transaction ends.
        var map = shared.segments.map
        let begin: [Connection.Command] = [
            .text("BEGIN"), .prepared(shared.statements.share, Parameters()), .prepared(shared.statements.version, Parameters()),
        ]
        var inserted: Rows?
        if map.isMaybeSealed(reference) {
            let version = try run(begin)[2].integer(0, 0, as: Int64.self)
            map = try mapOfTransaction(map, version)
        } else {
            do {
                let replies = try run(begin + [insertion(request, reference, policy, map)])
                inserted = replies[3]
                let version = replies[2].integer(0, 0, as: Int64.self)
                if version != map.version { inserted = nil }
                map = try mapOfTransaction(map, version)
            } catch let error as PostgresError where error.isMissingTable {
                // The segment that this process takes for the current one is gone.
                try rollBack()
                map = try mapOfTransaction(map, try run(begin)[2].integer(0, 0, as: Int64.self))
            }
        }
        while true {
            if let rows = inserted, rows.count == 1 {
                var epoch: Int64 = rows.integer(0, 1)
                let due: Int64 = rows.integer(0, 2)
                if Batch.wasSlow(epoch: epoch, end: rows.integer(0, 3)) {
                    let stamped = try run([.restamp([(reference, epoch, request.owner)], map.current, shared)])[0]
                    if stamped.count == 1 { epoch = stamped.integer(0, 1) }
                }
                shared.gave(epoch)
                shared.segments.added(1)
                let number = Epoch(rawValue: UInt64(bitPattern: epoch))
                let (result, change) = RecordMachine.claim(
                    request, on: nil, at: StoreTime(Timestamp(microseconds: due - Self.bounded(request.lease))), liveRecords: { .min },
                    nextEpoch: { _ in number })
                if case .put(let record) = change { return (result, Claimed(record: record, segment: map.current)) }
            }
            let places = map.places(of: reference)
            let read = try run(places.map { .keys($0.statements.lock, [reference]) } + [.prepared(shared.statements.now, Parameters())])
            let now = StoreTime(Timestamp(microseconds: read[places.count].integer(0, 0)))
            guard let place = places.indices.first(where: { read[$0].count == 1 }) else {
                inserted = try run([insertion(request, reference, policy, map)])[0]
                continue
            }
            let segment = places[place]
            let stored: (id: OperationID, record: Record)
            do {
                stored = try Row(read[place], 0).record { try shared.policies.policy($0, connection(), within: answerLimit)?.hash }
                guard stored.id == request.id else { throw Row.Failure.body("another key has the same hash") }
            } catch let failure as Row.Failure {
                return (.unreadable("\(failure)"), nil)
            }
            if RecordMachine.settled(stored.record, at: now) == nil {
                inserted = try run([.keys(segment.statements.delete, [reference]), insertion(request, reference, policy, map)])[1]
                continue
            }
            let (result, change) = RecordMachine.claim(
                request, on: stored.record, at: now, liveRecords: { 0 },
                nextEpoch: { shared.nextEpoch(after: max($0, stored.record.epoch), at: now.retention) })
            guard case .put(let record) = change else { return (result, Claimed(record: stored.record, segment: segment)) }
            if let number = shared.policies.number(of: record.policy) {
                _ = try run([.put(segment.statements.put, [Row(request.id, reference, record, policy: number)])])
            }
            return (result, Claimed(record: record, segment: segment))
        }
    }

    /// The map that a transaction is held to, which it found to have a version.
    private func mapOfTransaction(_ map: SegmentMap, _ version: Int64) throws -> SegmentMap {
        try map.version == version ? map : refreshMap()
    }

    private func insertion(_ request: ClaimRequest, _ reference: OperationReference, _ policy: Int32, _ map: SegmentMap) -> Connection.Command {
        let (_, change) = RecordMachine.claim(
            request, on: nil, at: StoreTime(.distantPast), liveRecords: { .min }, nextEpoch: { _ in .zero })
        guard case .put(let record) = change else { preconditionFailure("an absent key can be claimed") }
        return .insert([(Row(request.id, reference, record, policy: policy), Self.bounded(request.lease))], map, shared)
    }

    /// So long that nobody waits for it, and no sum overflows in the server.
    static func bounded(_ lease: Duration) -> Int64 { max(-(1 << 58), min(lease.microseconds, 1 << 58)) }

    private func commit(_ outcome: Outcome, _ claim: Claimed, _ grant: Grant, _ attempt: inout Attempt, _ policy: Int32) throws {
        let claimed = claim.record
        var parameters = Parameters()
        parameters.addArray(.uuid, [attempt.reference]) { $0.write($1) }
        parameters.addArray(.integer, [grant.token.epoch.rawValue]) { $0.write($1) }
        parameters.addArray(.uuid, [grant.token.owner]) { $0.write($1) }
        parameters.addArray(.shortInteger, [0]) { writer, _ in writer.writeNull() }
        parameters.addArray(.shortInteger, [0]) { writer, _ in writer.writeNull() }
        parameters.addArray(.bytes, [outcome]) {
            var writer = ByteWriter()
            writer.write($1)
            $0.write(writer.bytes)
        }
        // A record with exact retentions has a form that the statement leaves to the machine.
        let isPlain = Row.column(claimed.retention.response).isExact && Row.column(claimed.retention.key).isExact && claimed.state == .claimed
        var completion = Connection.Command.prepared(claim.segment.statements.complete, parameters)
        if !isPlain {
            let now = StoreTime(try serverTime())
            let transition = Transition(id: attempt.request.id, token: grant.token, change: .complete(outcome))
            guard case (.applied, .put(let record)) = RecordMachine.apply(transition, to: claimed, at: now),
                let number = shared.policies.number(of: record.policy)
            else { throw StoreError(.refused, "\(shared.target.place): the claim of \(attempt.reference) cannot be completed") }
            completion = .put(claim.segment.statements.put, [Row(attempt.request.id, attempt.reference, record, policy: number)])
        }
        attempt.committing = (outcome, grant)
        shared.environment.failpoints.pass(.beforeCommit)
        let replies = try run([completion, .text("COMMIT")])
        shared.environment.failpoints.pass(.afterCommit)
        guard replies[0].affected == 1 else {
            throw StoreError(.damaged, "\(shared.target.place): the record of \(attempt.reference) is not what its claim made it")
        }
        shared.signals.changed([attempt.reference])
    }
}

extension Connection.Command {
    /// The claims of keys that are hoped, or were seen, to be absent: rows with their leases in microseconds. Inserts nothing
    /// where the map of the segments is another one; take its lock before, in the same transaction.
    static func insert(_ rows: [(row: Row, lease: Int64)], _ map: SegmentMap, _ shared: Shared) -> Self {
        let (incarnation, floor) = shared.epochs
        var parameters = Parameters()
        parameters.add(Int64(incarnation.rawValue) << 52)
        parameters.add(floor)
        parameters.add(map.version)
        parameters.addArray(.uuid, rows) { $0.write($1.row.id) }
        parameters.addArray(.integer, rows) { $0.write($1.lease) }
        parameters.addArray(.shortInteger, rows) { $0.write($1.row.response) }
        parameters.addArray(.shortInteger, rows) { $0.write($1.row.key) }
        parameters.addArray(.uuid, rows) { $0.write($1.row.owner) }
        parameters.addArray(.smallInteger, rows) { $0.write($1.row.state) }
        parameters.addArray(.bytes, rows) { $0.write($1.row.head) }
        let probes = rows.map { map.isMaybeSealed($0.row.id) }
        guard probes.contains(true) else { return .prepared(map.current.statements.insert, parameters) }
        parameters.addArray(.boolean, probes) { $0.write($1) }
        return .prepared(map.current.statements.insertProbing, parameters)
    }

    /// The epochs of rows that are this transaction's, or this process's, drawn anew.
    static func restamp(_ rows: [(id: OperationReference, epoch: Int64, owner: Owner)], _ segment: Segment, _ shared: Shared) -> Self {
        var parameters = Parameters()
        parameters.add(Int64(shared.epochs.incarnation.rawValue) << 52)
        parameters.addArray(.uuid, rows) { $0.write($1.id) }
        parameters.addArray(.integer, rows) { $0.write($1.epoch) }
        parameters.addArray(.uuid, rows) { $0.write($1.owner) }
        return .prepared(segment.statements.restamp, parameters)
    }
}
#endif
