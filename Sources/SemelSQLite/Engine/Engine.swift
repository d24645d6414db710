import CSQLite
import Semel

/// The store's state and its transactions; everything here runs on the writer's thread.
///
/// The engine is the only owner of its file, so what is live stands in memory beside its row, and only what is finished
/// is looked up. What a transaction changed in memory is undone when it is not committed.
final class Engine {
    let place: Place
    let configuration: SQLiteStore.Configuration
    let database: Database
    let failpoints: Failpoints
    let observations: ObservationRegistry
    private let clock: any StoreClock
    private let statements: Statements

    // What is stored.
    private(set) var live: [OperationID: LiveRecord] = [:]
    private(set) var unreadable: [OperationID: String] = [:]
    private var liveCounts: [Scope: Int] = [:]
    var index: KeyIndex
    private(set) var policies: Policies
    private var lastAudit: (sequence: Int64, hash: [UInt8])
    private var nextLiveRow: Int64
    private var nextRow: Int64
    private(set) var state: Schema.State
    private(set) var lastEpoch: Epoch
    var sweep: Sweep?

    // The transaction under way.
    private(set) var now: StoreTime
    private var highest: Timestamp
    private var undo: [Undo] = []
    private var changed: [OperationID] = []
    private var isDirty = false
    private(set) var finishedKeys = 0
    private var afterCommit: [() -> Void] = []

    private(set) var reserve: Reserve
    /// Why the store stands still for good.
    private(set) var stopped: StoreError?

    private enum Undo {
        case live(OperationID, LiveRecord?)
        case policy(PolicyHash)
        case audit(sequence: Int64, hash: [UInt8])
        case state(Schema.State)
    }

    /// How far ahead epochs are set apart in the file: after a crash they go on above that.
    private static let epochsAhead: UInt64 = 10_000_000
    private static let logLimit = 2000

    init(
        _ database: Database, at place: Place, state: Schema.State, configuration: SQLiteStore.Configuration,
        clock: any StoreClock, failpoints: Failpoints, observations: ObservationRegistry
    ) throws {
        self.database = database
        self.place = place
        self.state = state
        self.configuration = configuration
        self.clock = clock
        self.failpoints = failpoints
        self.observations = observations
        statements = try Statements(database)
        policies = try Policies(database)
        index = try KeyIndex(database, limit: configuration.keysPerSegment)
        lastEpoch = max(state.epoch, Epoch(rawValue: UInt64(state.incarnation.rawValue) << 52))
        let audit = try database.prepare("SELECT sequence, hash FROM semel_audit ORDER BY sequence DESC LIMIT 1", isPersistent: false)
        lastAudit = try audit.step() ? (audit.integer(0), audit.bytes(1)) : (0, AuditEntry.genesisHash)
        audit.reset()
        nextLiveRow = (try database.integer("SELECT max(id) FROM semel_live") ?? 0) + 1
        nextRow = max(
            try database.integer("SELECT max(id) FROM semel_completed") ?? 0,
            try database.integer("SELECT max(id) FROM semel_tombstone") ?? 0, index.lastSealedRow) + 1
        highest = state.seen
        now = clock.now()
        reserve = Reserve(path: place.reserve, folder: place.folder, size: configuration.reserve)
        now = readClock()
        try loadLive()
        try loadRecentKeys()
        now = readClock()
        reserve.take()
    }

    // MARK: Loading

    private func loadLive() throws {
        let read = try database.prepare("SELECT id, record FROM semel_live", isPersistent: false)
        while try read.step() {
            let bytes = read.bytes(1)
            switch decode(bytes) {
            case .success((let id, var record)):
                // Leases of an earlier boot cannot be measured on this boot's clock, and whoever held them may be gone.
                record.leaseUntil = now.lease
                highest = max(highest, record.changedAt)
                lastEpoch = max(lastEpoch, record.epoch)
                live[id] = LiveRecord(row: read.integer(0), reference: OperationReference(id), record: record)
                count(id.scope, 1)
            case .failure(let failure):
                let id = try identity(of: bytes, row: read.integer(0), in: "semel_live")
                unreadable[id] = failure.description
                count(id.scope, 1)
            }
        }
    }

    /// Enters the keys finished since the last segment was sealed.
    private func loadRecentKeys() throws {
        let read = try database.prepare(
            """
            SELECT id, record, 'semel_completed' FROM semel_completed WHERE id > ?1
            UNION ALL SELECT id, record, 'semel_tombstone' FROM semel_tombstone WHERE id > ?1 ORDER BY id
            """, isPersistent: false)
        try read.bind(index.lastSealedRow, at: 1)
        while try read.step() {
            let id = try identity(of: read.bytes(1), row: read.integer(0), in: read.text(2))
            index.insert(OperationReference(id).high, row: read.integer(0), due: 0)
        }
        if let last = try statements.lastCompleted.first({ $0.bytes(0) }),
            case .success((_, let record)) = decode(last)
        {
            highest = max(highest, record.changedAt)
            lastEpoch = max(lastEpoch, record.epoch)
        }
    }

    /// A row that does not even tell its key might be any key's: the file cannot be used.
    private func identity(of bytes: [UInt8], row: Int64, in table: String) throws -> OperationID {
        do {
            return try RecordCodec.decodeIdentity(bytes)
        } catch {
            throw SQLiteError(code: SQLITE_CORRUPT, message: "row \(row) of \(table) is damaged: \(error)")
        }
    }

    // MARK: Transactions

    /// Runs jobs as one transaction and marks each with what came of it. They may be answered when this returns.
    func run(_ jobs: [Job]) {
        if stopped == nil { reserve.update(makeRoom: { checkpoint(SQLITE_CHECKPOINT_TRUNCATE) }) }
        if let stopped { return jobs.forEach { $0.fail(stopped) } }
        var rest = jobs
        while true {
            do {
                return try transaction(rest)
            } catch let culprit as Culprit {
                // It has its answer; what it did to the transaction is undone, and the others run without it.
                rest.remove(at: culprit.index)
            } catch {
                // Once more, now with the reserve's space for what runs, and new claims refused.
                if Self.cause(of: error)?.isFull == true, reserve.release() { continue }
                return fail(rest, error)
            }
        }
    }

    private func transaction(_ jobs: [Job]) throws {
        now = readClock()
        do {
            try database.execute("BEGIN")
            for (index, job) in jobs.enumerated() {
                do {
                    try job.run(self)
                } catch let error as StoreError {
                    job.fail(error)
                } catch let error as SQLiteError where !error.isFull && !error.isGrave {
                    job.fail(StoreError(.refused, "\(place.path): SQLite refused this call: \(error)", underlying: error))
                    throw Culprit(index: index)
                }
                // Some statements roll everything back, as INSERT OR ROLLBACK; then its job knows.
                guard database.isInTransaction else { throw Culprit(index: index) }
            }
            if isDirty {
                for _ in 0..<index.piecesToSeal(for: finishedKeys) { try index.sealPiece() }
                if configuration.purgesByItself, finishedKeys > 0 { try sweepSlice(rows: 2 * finishedKeys, by: .itself) }
            }
            let isWriting = isDirty
            try commit()
            if isWriting { configuration.metrics?.batch(of: jobs.reduce(0) { $0 + $1.items }) }
        } catch {
            rollBack()
            throw error
        }
    }

    /// A transaction of the store's own, in an idle moment.
    /// - Returns: whether it was committed.
    func housekeep(_ body: () throws -> Void) -> Bool {
        guard stopped == nil else { return false }
        now = readClock()
        do {
            try database.execute("BEGIN")
            try body()
            try commit()
            return true
        } catch {
            rollBack()
            if let cause = Self.cause(of: error), cause.isGrave || error is CommitError && !cause.isFull {
                stop(cause, "while tidying up")
            }
            return false
        }
    }

    private func commit() throws {
        // What is written to a file that nobody will find again is lost; and whoever opens the one in its place has its lock.
        if database.hasMoved {
            throw CommitError(
                underlying: SQLiteError(code: SQLITE_READONLY | 4 << 8, message: "the file was removed or replaced while it was open"))
        }
        guard isDirty else {
            try database.execute("COMMIT")
            finish(false)
            return
        }
        let persistsClock = try persistClock()
        failpoints.pass(.beforeCommit)
        do {
            try database.execute("COMMIT")
        } catch {
            throw CommitError(underlying: error)
        }
        failpoints.pass(.afterCommit)
        finish(persistsClock)
    }

    private func finish(_ persistedClock: Bool) {
        if !observations.isEmpty { for id in changed { observations.signal(id) } }
        index.committed()
        for action in afterCommit { action() }
        forgetTransaction()
        if persistedClock { witness() }
    }

    private func forgetTransaction() {
        undo.removeAll(keepingCapacity: true)
        changed.removeAll(keepingCapacity: true)
        afterCommit.removeAll()
        isDirty = false
        finishedKeys = 0
    }

    private func rollBack() {
        if database.isInTransaction { try? database.execute("ROLLBACK") }
        for change in undo.reversed() {
            switch change {
            case .live(let id, let before): setLive(id, before)
            case .policy(let hash): policies.remove(hash)
            case .audit(let sequence, let hash): lastAudit = (sequence, hash)
            case .state(let before): state = before
            }
        }
        index.rolledBack()
        sweep = nil
        forgetTransaction()
    }

    /// The transaction was not committed, or nobody knows.
    private func fail(_ jobs: [Job], _ error: any Error) {
        let cause = Self.cause(of: error)
        let answer: StoreError
        if let cause, cause.isFull {
            answer = StoreError(.full, "\(place.path): the disk is full, the reserve included; free some space", underlying: cause)
        } else if let cause, cause.isGrave || error is CommitError {
            answer = stop(cause, error is CommitError ? "while committing" : "while writing")
        } else {
            answer = StoreError(.unavailable, "\(place.path): \(error)", underlying: error)
        }
        for job in jobs { job.fail(answer) }
    }

    /// After an I/O error nobody knows what reached the disk, and trying again may only seem to work (H16): the store
    /// stands still until it is opened anew and has recovered from its log.
    /// - Returns: what to answer those whose transaction was under way.
    @discardableResult
    private func stop(_ error: SQLiteError, _ moment: String) -> StoreError {
        let code: StoreError.Code = error.isDamage ? .damaged : .stopped
        let what = "\(place.path): the store stopped after an error \(moment): \(error). Check the disk, then start again: the database is checked and recovered when it is opened"
        stopped = StoreError(code, what, underlying: error)
        return StoreError(error.isDamage ? .damaged : .indeterminate, what, underlying: error)
    }

    private struct CommitError: Error {
        let underlying: SQLiteError
    }

    /// The job that an error is due to, and no other.
    private struct Culprit: Error {
        let index: Int
    }

    private static func cause(of error: any Error) -> SQLiteError? {
        (error as? CommitError)?.underlying ?? error as? SQLiteError
    }

    /// Keeps the log short. After the answers: it is nobody's wait.
    func checkpointIfNeeded() {
        guard stopped == nil, database.framesInLog > Self.logLimit else { return }
        checkpoint(SQLITE_CHECKPOINT_PASSIVE)
    }

    private func checkpoint(_ mode: CInt) {
        do {
            try database.checkpoint(mode)
        } catch {
            if !error.isFull, !error.isBusy { stop(error, "while checkpointing") }
        }
    }

    /// The last act: everything into the database file.
    func close() {
        if stopped == nil {
            now = readClock()
            state.epoch = max(state.epoch, lastEpoch)
            state.seen = max(state.seen, now.retention)
            do {
                try Schema.write(state, to: database)
                try database.checkpoint(SQLITE_CHECKPOINT_TRUNCATE)
                witness()
            } catch {}  // What was acknowledged is in the log, and is recovered from there.
        }
        reserve.drop()
        stopped = StoreError(.stopped, "\(place.path): the store is closed")
    }

    // MARK: Clock and epochs

    private func readClock() -> StoreTime {
        var time = clock.now()
        highest = max(highest, time.retention)
        time.retention = highest
        return time
    }

    func nextEpoch(after previous: Epoch) -> Epoch {
        lastEpoch = max(lastEpoch, previous).next(at: now.retention, in: state.incarnation)
        return lastEpoch
    }

    /// Later epochs are above this one, also after a crash. An epoch that was raised and not used is no loss.
    func raiseEpochs(above floor: Epoch) {
        guard floor > lastEpoch else { return }
        lastEpoch = floor
        isDirty = true
    }

    /// Notes the time about once a second, and epochs ahead of their use.
    private func persistClock() throws -> Bool {
        guard lastEpoch >= state.epoch || now.retention - state.seen >= .seconds(1) else { return false }
        undo.append(.state(state))
        if lastEpoch >= state.epoch { state.epoch = Epoch(rawValue: lastEpoch.rawValue + Self.epochsAhead) }
        state.seen = max(state.seen, now.retention)
        try Schema.write(state, to: database)
        return true
    }

    private func witness() {
        Witness(file: state.file, incarnation: state.incarnation, seen: state.seen, epoch: state.epoch).write(place.witness)
    }

    /// After a restore: every later epoch is higher than any given before, whatever was lost.
    func raiseIncarnation() throws -> Incarnation {
        guard state.incarnation.rawValue < Incarnation.limit else {
            throw StoreError(.misconfigured, "\(place.path): the incarnation is at its limit of \(Incarnation.limit); begin with a new database")
        }
        undo.append(.state(state))
        state.incarnation = Incarnation(rawValue: state.incarnation.rawValue + 1)
        lastEpoch = max(lastEpoch, Epoch(rawValue: UInt64(state.incarnation.rawValue) << 52))
        state.epoch = max(state.epoch, lastEpoch)
        try Schema.write(state, to: database)
        isDirty = true
        afterCommit.append { [unowned self] in witness() }
        return state.incarnation
    }

    // MARK: Records

    func find(_ id: OperationID, hash: UInt64? = nil) throws -> Stored {
        if let live = live[id] { return .live(live) }
        if !unreadable.isEmpty, let why = unreadable[id] { return .unreadable(why) }
        for row in try index.rows(under: hash ?? OperationReference(id).high) {
            guard let bytes = try bytes(ofRow: row) else { continue }
            switch decode(bytes) {
            // The whole key decides, never its hash (H29).
            case .success((id, let record)): return .finished(row: row, record)
            case .success: continue
            // The hash says that it is this key's, unless the key can be read and says otherwise.
            case .failure(let failure):
                if let other = try? RecordCodec.decodeIdentity(bytes), other != id { continue }
                return .unreadable("\(failure) (row \(row))")
            }
        }
        return .absent
    }

    func decode(_ bytes: [UInt8]) -> Result<(OperationID, Record), RecordCodec.Failure> {
        Result { () throws(RecordCodec.Failure) in try RecordCodec.decode(bytes, policy: policies.hash(of:)) }
    }

    func bytes(ofRow row: Int64) throws -> [UInt8]? {
        try statements.readCompleted.first(row) { $0.bytes(0) } ?? statements.readTombstone.first(row) { $0.bytes(0) }
    }

    /// Notes, once and in memory, what has lapsed and when it did: told anew from a wall clock that stands, the time would
    /// move between two pages of a listing.
    func settleLive() {
        var lapsed: [(OperationID, Record)] = []
        for (id, entry) in live where entry.record.leaseUntil <= now.lease && entry.record.state != .uncertain {
            if let record = RecordMachine.settled(entry.record, at: now), record != entry.record { lapsed.append((id, record)) }
        }
        for (id, record) in lapsed { live[id]?.record = record }
    }

    func liveCount(_ scope: Scope) -> Int { liveCounts[scope] ?? 0 }

    func scene(_ policy: PolicyHash) -> String { policies.policy(policy)?.scene ?? "" }

    func keep(_ policy: PinnedPolicy) throws {
        if try policies.add(policy) {
            undo.append(.policy(policy.hash))
            isDirty = true
        }
    }

    /// Writes what the record machine decided.
    func write(_ change: RecordMachine.Change, to id: OperationID, reference: OperationReference?, _ stored: Stored) throws {
        switch change {
        case .keep:
            return
        case .put(let record):
            guard let policy = policies.number(of: record.policy) else {
                throw SQLiteError(code: SQLITE_INTERNAL, message: "the record's policy is not kept")
            }
            let bytes = RecordCodec.encode(id, record, policy: policy)
            let reference = reference ?? OperationReference(id)
            if record.isLive {
                if case .finished(let row, _) = stored { try delete(row) }
                if case .live(var entry) = stored {
                    try statements.updateLive.run(entry.row, bytes)
                    entry.record = record
                    set(id, entry)
                } else {
                    try statements.insertLive.run(nextLiveRow, bytes)
                    set(id, LiveRecord(row: nextLiveRow, reference: reference, record: record))
                    nextLiveRow += 1
                }
            } else {
                if case .finished(let row, _) = stored { try delete(row) }
                if case .live(let entry) = stored {
                    try statements.deleteLive.run(entry.row)
                    set(id, nil)
                }
                try statements.insertCompleted.run(nextRow, bytes)
                index.insert(reference.high, row: nextRow, due: record.responseUntil.microseconds)
                nextRow += 1
                finishedKeys += 1
            }
        case .remove:
            switch stored {
            case .live(let entry):
                try statements.deleteLive.run(entry.row)
                set(id, nil)
            case .finished(let row, _): try delete(row)
            case .absent, .unreadable: break
            }
        }
        changed.append(id)
        isDirty = true
    }

    /// Housekeeping and the caller's own statements change the file too.
    func markDirty() { isDirty = true }
    func whenCommitted(_ action: @escaping () -> Void) { afterCommit.append(action) }

    func delete(_ row: Int64) throws {
        try statements.deleteCompleted.run(row)
        try statements.deleteTombstone.run(row)
        isDirty = true
    }

    func bury(_ row: Int64, _ bytes: [UInt8]) throws {
        try statements.deleteCompleted.run(row)
        try statements.insertTombstone.run(row, bytes)
        isDirty = true
    }

    private func set(_ id: OperationID, _ entry: LiveRecord?) {
        undo.append(.live(id, setLive(id, entry)))
    }

    @discardableResult
    private func setLive(_ id: OperationID, _ entry: LiveRecord?) -> LiveRecord? {
        let before = if let entry { live.updateValue(entry, forKey: id) } else { live.removeValue(forKey: id) }
        count(id.scope, (entry == nil ? 0 : 1) - (before == nil ? 0 : 1))
        return before
    }

    private func count(_ scope: Scope, _ difference: Int) {
        guard difference != 0 else { return }
        liveCounts[scope, default: 0] += difference
        if difference < 0, liveCounts[scope] == 0 { liveCounts[scope] = nil }
    }

    // MARK: Audit

    func audit(_ act: OperatorAct, _ action: String, on id: OperationID, before: Record, _ change: RecordMachine.Change) throws {
        let entry = AuditEntry(
            sequence: lastAudit.sequence + 1, time: now.retention, act: act, action: action, operation: OperationReference(id),
            scene: scene(before.policy), detail: change.auditDetail(before: before), following: lastAudit.hash)
        try statements.insertAudit(entry)
        undo.append(.audit(sequence: lastAudit.sequence, hash: lastAudit.hash))
        lastAudit = (entry.sequence, entry.hash)
        isDirty = true
    }
}
