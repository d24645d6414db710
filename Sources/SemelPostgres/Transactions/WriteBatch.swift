#if Postgres
import Semel

/// One record with its caller's statements, and what came of them.
final class Write: @unchecked Sendable {
    // Sendable is unchecked because it is touched by one thread at a time, as an ``Item``.
    let request: ClaimRequest
    let reference: OperationReference
    let statements: [PostgresStatement]
    let outcome: Outcome
    var result: Result<AtomicResult, any Error>?
    /// Whether a COMMIT with it was sent and not answered: then nobody may say that nothing happened.
    var isInDoubt = false

    init(_ request: ClaimRequest, _ statements: [PostgresStatement], _ outcome: Outcome) {
        self.request = request
        reference = OperationReference(request.id)
        self.statements = statements
        self.outcome = outcome
    }
}

/// Records with their callers' statements in one transaction, as long as all of them go well: two round trips and one sync
/// of the disk for as many as wait. What does not go well is undone and tried without the culprits, which are then tried
/// one by one.
struct WriteBatch {
    private let session: Session
    private let writes: [Write]
    private var shared: Shared { session.shared }

    init(_ writes: [Write], _ session: Session) {
        self.session = session
        self.writes = writes
    }

    /// Gives every write its result.
    func run() {
        var together: [Write] = []
        var alone: [Write] = []
        var seen: Set<OperationReference> = []
        let map = shared.segments.map
        for write in writes {
            // What a sealed segment may hold is looked for there, one by one.
            let isFresh = seen.insert(write.reference).inserted && !map.isMaybeSealed(write.reference)
            if isFresh, write.request.liveLimit.map(shared.isFarBelow) ?? true { together.append(write) } else { alone.append(write) }
        }
        var attempts = 0
        while together.count > 1 {
            do {
                let culprits = try attempt(together, map)
                if culprits.isEmpty { break }
                alone += culprits
                let names = Set(culprits.map(\.reference))
                together.removeAll { names.contains($0.reference) }
                attempts += 1
                guard attempts < 4 else { break }
            } catch let lost as Connection.Lost {
                // Found out one by one: each has its own nonce.
                _ = lost
                session.disconnect()
                break
            } catch {
                // Another map of the segments, too, is found out one by one.
                session.giveUpTransaction()
                break
            }
        }
        for write in together + alone where write.result == nil { runAlone(write) }
    }

    private func runAlone(_ write: Write) {
        do {
            write.result = try session.perform(write.request) { transaction, _ in
                for statement in write.statements {
                    let affected = try transaction.execute(statement.sql, statement.parameters)
                    if let rows = statement.rows, rows != affected { throw UnexpectedRows(statement: statement, affected: affected) }
                }
                return .commit(write.outcome)
            }
        } catch {
            let failure = shared.error(error)
            write.result = .failure(
                write.isInDoubt && failure.code == .unavailable
                    ? StoreError(.indeterminate, failure.message, underlying: failure) : failure)
        }
    }

    /// All of them in one transaction.
    /// - Returns: those on whose account it was undone; empty when it was committed.
    private func attempt(_ writes: [Write], _ map: SegmentMap) throws -> [Write] {
        // Sorted as all batches are. The callers' statements stay in the order in which they came.
        let sorted = writes.sorted { ($0.reference.high, $0.reference.low) < ($1.reference.high, $1.reference.low) }
        let connection = try session.connection()
        var rows: [Row] = []
        for write in sorted {
            try shared.policies.keep(write.request.policy, connection, within: session.answerLimit)
            guard let policy = shared.policies.number(of: write.request.policy.hash),
                case (_, .put(let claimed)) = RecordMachine.claim(
                    write.request, on: nil, at: StoreTime(.distantPast), liveRecords: { .min }, nextEpoch: { _ in .zero }),
                case (_, .put(let record)) = RecordMachine.apply(
                    Transition(id: write.request.id, token: claimed.token, change: .complete(write.outcome)), to: claimed, at: StoreTime(.distantPast))
            else { return [write] }
            rows.append(Row(write.request.id, write.reference, record, policy: policy))
        }
        let (incarnation, floor) = shared.epochs
        var parameters = Parameters()
        parameters.add(Int64(incarnation.rawValue) << 52)
        parameters.add(floor)
        parameters.add(map.version)
        parameters.addArray(.uuid, rows) { $0.write($1.id) }
        parameters.addArray(.shortInteger, rows) { $0.write($1.response) }
        parameters.addArray(.shortInteger, rows) { $0.write($1.key) }
        parameters.addArray(.uuid, rows) { $0.write($1.owner) }
        parameters.addArray(.smallInteger, rows) { $0.write($1.state) }
        parameters.addArray(.bytes, rows) { $0.write($1.head) }
        parameters.addArray(.bytes, rows) { $0.write($1.outcome) }
        var commands: [Connection.Command] = [
            .text("BEGIN"), .prepared(shared.statements.share, Parameters()), .prepared(map.current.statements.insertCompleted, parameters),
        ]
        for write in writes {
            for statement in write.statements {
                do throws(PostgresError) {
                    try PostgresTransaction.check(statement.sql)
                    let texts = try PostgresTransaction.texts(statement.parameters)
                    commands.append(.callers(connection.statement(forCaller: statement.sql), texts))
                } catch {
                    // Said to its caller where it is tried alone.
                    return [write]
                }
            }
        }
        let replies = try connection.run(commands, within: session.answerLimit)
        let culprits = try judge(writes, replies)
        guard culprits.isEmpty, case .rows(let inserted) = replies[2] else {
            session.giveUpTransaction()
            return culprits
        }
        guard inserted.count == rows.count else { throw StaleMap() }
        shared.environment.failpoints.pass(.beforeCommit)
        do {
            _ = try connection.run([.text("COMMIT")], within: session.answerLimit)[0].get()
        } catch let lost as Connection.Lost {
            for write in writes { write.isInDoubt = true }
            throw lost
        }
        shared.environment.failpoints.pass(.afterCommit)
        var places: [OperationReference: Int] = [:]
        for row in 0..<inserted.count { places[inserted.reference(row, 0)] = row }
        for write in writes {
            guard let row = places[write.reference] else { continue }
            let epoch: Int64 = inserted.integer(row, 1)
            shared.gave(epoch)
            shared.segments.added(1)
            let now = inserted.integer(row, 2, as: Int64.self) - Row.microseconds(Row.column(write.request.retention.response).value)
            let (result, _) = RecordMachine.claim(
                write.request, on: nil, at: StoreTime(Timestamp(microseconds: now)), liveRecords: { .min },
                nextEpoch: { _ in Epoch(rawValue: UInt64(bitPattern: epoch)) })
            if case .granted(let grant) = result { write.result = .success(.performed(write.outcome, grant)) }
        }
        shared.signals.changed(rows.map(\.id))
        return []
    }

    /// On whose account the transaction cannot be committed.
    private func judge(_ writes: [Write], _ replies: [Connection.Reply]) throws -> [Write] {
        if case .failed(let error) = replies[2] {
            guard error.sqlState == "23505" else { throw error }
            // Some keys are there already: those are for the record machine.
            session.giveUpTransaction()
            let found = try session.run([.keys(shared.statements.all.read, writes.map(\.reference))])[0]
            let known = Set((0..<found.count).map { found.reference($0, 0) })
            let culprits = writes.filter { known.contains($0.reference) }
            return culprits.isEmpty ? writes : culprits
        }
        var culprits: [Write] = []
        var place = 3
        for write in writes {
            for statement in write.statements {
                switch replies[place] {
                case .rows(let rows):
                    if let wanted = statement.rows, wanted != rows.affected, culprits.last !== write { culprits.append(write) }
                case .failed: return [write]
                case .skipped: break
                }
                place += 1
            }
        }
        return culprits
    }
}
#endif
