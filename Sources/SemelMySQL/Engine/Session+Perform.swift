#if MySQL
import Semel

extension Session {
    /// A claim that is granted and held: by a row that nobody else can touch until the transaction ends.
    private struct Held {
        let grant: Grant
        let claimed: Record
    }

    /// Claim, body and completion in one transaction.
    func perform(
        _ request: ClaimRequest, _ row: RowID, _ body: (MySQLTransaction, Grant) throws -> AtomicStep
    ) throws -> Result<PositionedResult, any Error> {
        var sent: Sent?
        return try persist { maybeDone in
            try attempt(request, row, body, maybeDone ? sent : nil) { sent = $0 }
        }
    }

    /// What a COMMIT is to make durable.
    private struct Sent {
        let outcome: Outcome
        let grant: Grant
    }

    /// - Parameter sent: what an earlier COMMIT without an answer was to make durable.
    private func attempt(
        _ request: ClaimRequest, _ row: RowID, _ body: (MySQLTransaction, Grant) throws -> AtomicStep, _ sent: Sent?,
        willCommit: (Sent) -> Void
    ) throws -> Result<PositionedResult, any Error> {
        if let sent, try isCommitted(sent, row) {
            shared.observations.signal(request.id)
            return .success(PositionedResult(result: .performed(sent.outcome, sent.grant)))
        }
        var hold = try hold(request, row)
        guard case .held(let first) = hold else { return .success(PositionedResult(result: hold.result)) }

        let transaction = MySQLTransaction(connection, isReadOnly: false)
        let outcome = Result { try body(transaction, first.grant) }
        transaction.end()
        if let fatal = transaction.fatalError { throw fatal }
        let step: AtomicStep
        switch outcome {
        case .success(let chosen): step = chosen
        case .failure(let error):
            try startOver()
            return .failure(error)
        }
        if case .fail = step {
            // Its writes go, and so does the claim; it is claimed anew for the outcome alone.
            try startOver()
            hold = try self.hold(request, row)
        }
        guard case .held(let last) = hold else { return .success(PositionedResult(result: hold.result)) }

        let transition = Transition(id: request.id, token: last.grant.token, change: .complete(step.outcome))
        guard case (.applied, .put(let completed)) = RecordMachine.apply(transition, to: last.claimed, at: now) else { throw Conflict() }
        try overwrite([Row(row, request.id, completed)])
        if !shared.isKept(request.policy.hash) { try keep([request.policy]) }
        willCommit(Sent(outcome: step.outcome, grant: last.grant))
        try commit()
        let position = connection.lastPosition
        shared.noteKept([request.policy])
        shared.observations.signal(request.id)
        return .success(PositionedResult(result: .performed(step.outcome, last.grant), position: position))
    }

    private func isCommitted(_ sent: Sent, _ row: RowID) throws -> Bool {
        try readClock()
        let there = try lock([row])[row]
        try startOver()
        return there?.token == sent.grant.token && there?.state == RecordState.completed.rawValue
    }

    private enum Hold {
        case held(Held)
        /// The transaction has ended.
        case notRun(ClaimResult)

        var result: AtomicResult {
            switch self {
            case .held(let held): .notRun(.granted(held.grant))
            case .notRun(let result): .notRun(result)
            }
        }
    }

    /// Claims a key and stays in the transaction, with the key's row locked.
    private func hold(_ request: ClaimRequest, _ row: RowID) throws -> Hold {
        try readClock()
        let isFar = try request.liveLimit.map { try isFarFrom(limit: $0) } ?? true
        if isFar {
            let (result, change) = RecordMachine.claim(request, on: nil, at: now, liveRecords: { 0 }, nextEpoch: nextEpoch(after:))
            if case .granted(let grant) = result, case .put(let record) = change, try insertNew(Row(row, request.id, record)) {
                return .held(Held(grant: grant, claimed: record))
            }
            // The failed insert left a shared lock, over which two of us would wait for each other.
            try startOver()
            try readClock()
        }
        var live = 0
        if !isFar, let limit = request.liveLimit {
            let scope = RowID(request.id.scope)
            try lock(scopes: [scope])
            live = try count(live: scope, upTo: limit)
        }
        let found = try lock([row])[row]
        try refreshClock()
        let stored = Stored(found)
        if case .unreadable(let why) = stored {
            try startOver()
            return .notRun(.unreadable(why))
        }
        let (result, change) = RecordMachine.claim(
            request, on: stored.record, at: now, liveRecords: { live }, nextEpoch: { nextEpoch(after: max($0, stored.epoch)) })
        let next = self.row(row, request.id, change, before: stored)
        guard case .granted(let grant) = result, grant.kind != .verify else {
            if let next, next != found {
                try overwrite([next])
                try commit()
                shared.observations.signal(request.id)
            } else {
                try startOver()
            }
            return .notRun(result)
        }
        let claimed = if case .put(let record) = change { record } else { stored.record }
        guard let claimed else { throw Conflict() }
        if found == nil, let next, try !insertNew(next) { throw Conflict() }
        return .held(Held(grant: grant, claimed: claimed))
    }

    /// - Returns: whether the row is new.
    private func insertNew(_ row: Row) throws(MySQLError) -> Bool {
        var parameters = Parameters(reservingCapacity: row.byteCount)
        row.append(to: &parameters)
        do {
            try connection.statement(Tables.insertNew).execute(parameters)
            return true
        } catch where error.isDuplicate {
            return false
        }
    }

    /// Reads the caller's tables.
    func read<Value>(_ body: (MySQLTransaction) throws -> Value) throws -> Result<Value, any Error> {
        try persist { _ in
            try connection.execute("START TRANSACTION READ ONLY")
            let transaction = MySQLTransaction(connection, isReadOnly: true)
            let result = Result { try body(transaction) }
            transaction.end()
            if let fatal = transaction.fatalError { throw fatal }
            try startOver()
            return result
        }
    }
}
#endif
