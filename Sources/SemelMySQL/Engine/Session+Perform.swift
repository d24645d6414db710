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
        // What a COMMIT without an answer was to make durable.
        var sent: (outcome: Outcome, grant: Grant)?
        return try persist { maybeDone in
            if maybeDone, let sent {
                try readClock()
                let there = try lock([row])[row]
                if there?.token == sent.grant.token, there?.state == RecordState.completed.rawValue {
                    try connection.execute("COMMIT")
                    shared.observations.signal(request.id)
                    return .success(PositionedResult(result: .performed(sent.outcome, sent.grant), position: nil))
                }
                try startOver()
            }
            let held: Held
            switch try hold(request, row) {
            case .notRun(let result): return .success(PositionedResult(result: .notRun(result), position: nil))
            case .held(let now): held = now
            }

            let transaction = MySQLTransaction(connection, isReadOnly: false)
            let step: AtomicStep
            do {
                defer { transaction.end() }
                step = try body(transaction, held.grant)
            } catch {
                if let fatal = transaction.fatalError { throw fatal }
                try startOver()
                return .failure(error)
            }
            if let fatal = transaction.fatalError { throw fatal }

            var final = held
            if case .fail = step {
                // Its writes go, and so does the claim; it is claimed anew for the outcome alone.
                try startOver()
                switch try hold(request, row) {
                case .notRun(let result): return .success(PositionedResult(result: .notRun(result), position: nil))
                case .held(let now): final = now
                }
            }
            let transition = Transition(id: request.id, token: final.grant.token, change: .complete(step.outcome))
            guard case (.applied, .put(let completed)) = RecordMachine.apply(transition, to: final.claimed, at: now) else { throw Conflict() }
            try overwrite([Row(row, request.id, completed)])
            if !shared.isKept(request.policy.hash) { try keep([request.policy]) }
            sent = (step.outcome, final.grant)
            try commit()
            let position = connection.lastPosition
            shared.noteKept([request.policy])
            shared.observations.signal(request.id)
            return .success(PositionedResult(result: .performed(step.outcome, final.grant), position: position))
        }
    }

    private enum Hold {
        case held(Held)
        /// The transaction has ended.
        case notRun(ClaimResult)
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
    private func insertNew(_ row: Row) throws -> Bool {
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
            let result: Result<Value, any Error>
            do {
                defer { transaction.end() }
                result = .success(try body(transaction))
            } catch {
                result = .failure(error)
            }
            if let fatal = transaction.fatalError { throw fatal }
            try startOver()
            return result
        }
    }
}
#endif
