import Semel

extension Engine {
    func claim(_ requests: [ClaimRequest], _ references: [OperationReference]) throws -> [ClaimResult] {
        var results: [ClaimResult] = []
        results.reserveCapacity(requests.count)
        for (request, reference) in zip(requests, references) { results.append(try claim(request, reference)) }
        return results
    }

    private func claim(_ request: ClaimRequest, _ reference: OperationReference) throws -> ClaimResult {
        let stored = try find(request.id, hash: reference.high)
        if case .unreadable(let why) = stored { return .unreadable(why) }
        let (result, change) = decide(request, on: stored)
        try refuseIfFull(change)
        if case .granted = result { try keep(request.policy) }
        try write(change, to: request.id, reference: reference, stored)
        return result
    }

    private func decide(_ request: ClaimRequest, on stored: Stored) -> (ClaimResult, RecordMachine.Change) {
        RecordMachine.claim(
            request, on: stored.record, at: now, liveRecords: { liveCount(request.id.scope) }, nextEpoch: nextEpoch(after:))
    }

    /// What would have to be written for a claim is not written on a full disk; what can be answered from a record is.
    private func refuseIfFull(_ change: RecordMachine.Change) throws {
        if reserve.isFull, change != .keep {
            throw StoreError(
                .full, "\(place.folder): the disk is full: new claims are refused, what runs is still recorded; free some space")
        }
    }

    func apply(_ transitions: [Transition]) throws -> [TransitionResult] {
        var results: [TransitionResult] = []
        results.reserveCapacity(transitions.count)
        for transition in transitions {
            let stored = try find(transition.id)
            // Nothing can be done to it, and nothing was; the other items go on.
            if case .unreadable = stored {
                results.append(.superseded)
                continue
            }
            let (result, change) = RecordMachine.apply(transition, to: stored.record, at: now)
            try write(change, to: transition.id, reference: nil, stored)
            results.append(result)
        }
        return results
    }

    func verify(_ id: OperationID, owner: Owner, lease: Duration) throws -> Grant? {
        let stored = try readable(id)
        let (grant, change) = RecordMachine.verify(
            stored.record, owner: owner, lease: lease, at: now, nextEpoch: nextEpoch(after:))
        try write(change, to: id, reference: nil, stored)
        return grant
    }

    func record(of id: OperationID) throws -> Record? {
        RecordMachine.settled(try readable(id).record, at: now)
    }

    func readable(_ id: OperationID) throws -> Stored {
        let stored = try find(id)
        if case .unreadable(let why) = stored {
            throw damaged(OperationReference(id), why)
        }
        return stored
    }

    func damaged(_ reference: OperationReference, _ why: String) -> StoreError {
        StoreError(.damaged, "\(place.path): the record of \(reference) cannot be read: \(why)")
    }

    /// Claim, body and completion in one transaction. Only the last state is written: nobody can see the one between.
    func perform(
        _ request: ClaimRequest, _ body: (SQLiteTransaction, Grant) throws -> AtomicStep
    ) throws -> Result<AtomicResult, any Error> {
        let stored = try find(request.id)
        if case .unreadable(let why) = stored { return .success(.notRun(.unreadable(why))) }
        let (result, change) = decide(request, on: stored)
        try refuseIfFull(change)
        guard case .granted(let grant) = result, grant.kind != .verify else {
            try write(change, to: request.id, reference: nil, stored)
            return .success(.notRun(result))
        }
        guard let claimed = change.record ?? stored.record else { return .success(.notRun(result)) }

        try database.execute("SAVEPOINT semel_body")
        let transaction = SQLiteTransaction(database, isReadOnly: false)
        let step: AtomicStep
        do {
            defer { transaction.end() }
            step = try body(transaction, grant)
        } catch {
            try checkDisk(after: transaction)
            if database.isInTransaction { try undoBody() }
            return .failure(error)
        }
        try checkDisk(after: transaction)
        // A statement of the body ended the whole transaction, and the body went on: nothing of it is there.
        if let error = transaction.fatalError { return .failure(error) }
        if case .fail = step { try undoBody() } else {
            try database.execute("RELEASE semel_body")
            if transaction.hasWritten { markDirty() }
        }

        let transition = Transition(id: request.id, token: grant.token, change: .complete(step.outcome))
        let (_, completion) = RecordMachine.apply(transition, to: claimed, at: now)
        try keep(request.policy)
        try write(completion, to: request.id, reference: nil, stored)
        return .success(.performed(step.outcome, grant))
    }

    private func undoBody() throws {
        try database.execute("ROLLBACK TO semel_body")
        try database.execute("RELEASE semel_body")
    }

    /// A full disk or an I/O error is not the body's own: all of the batch failed, whatever the body made of it.
    private func checkDisk(after transaction: SQLiteTransaction) throws {
        if let error = transaction.fatalError, error.isFull || error.isGrave { throw error }
    }

    func read<Value>(_ body: (SQLiteTransaction) throws -> Value) throws -> Result<Value, any Error> {
        let transaction = SQLiteTransaction(database, isReadOnly: true)
        defer { transaction.end() }
        let result = Result { try body(transaction) }
        try checkDisk(after: transaction)
        return result
    }
}

extension RecordMachine.Change {
    fileprivate var record: Record? {
        if case .put(let record) = self { record } else { nil }
    }
}
