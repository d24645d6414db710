public import Semel

/// The embedded store: records in one SQLite file, owned by one process.
///
/// **Guarantee.** What was answered survives a crash of the process and, as far as the disk keeps its word about syncing,
/// of the machine: every answer is given after the commit, in WAL mode with `synchronous=FULL`, read back at opening.
/// Opening fails closed on a damaged, missing, replaced or restored file. On a full disk new claims are refused while
/// outcomes are still recorded. After an I/O error the store stands still until it is opened anew.
///
/// Not guaranteed: anything after the file was changed by another program, or restored together with its witness file
/// without ``raiseIncarnation()``. Leases are lost when the process ends: claims of an earlier run have lapsed when the
/// store is opened (what follows is the policy's rule).
///
/// All work is done by one thread of its own, in transactions that take whatever is waiting; nothing blocks the
/// cooperative pool.
public final class SQLiteStore: TransactionalStore {
    let writer: Writer
    private let observations = ObservationRegistry()

    public let capabilities = StoreCapabilities(engine: "sqlite", durability: .durable, isTransactional: true)

    /// Opens the database, or makes it. The folder must exist.
    ///
    /// - Throws: `inUse`, `misconfigured`, `damaged`, `newerSchema`, `full` or `unavailable`; the message says what was
    ///   found and what to do.
    public init(
        path: String, configuration: Configuration = Configuration(), clock: any StoreClock = SystemStoreClock(),
        environment: Environment = .live
    ) async throws(StoreError) {
        let opening = Opening(
            place: Place(path: path), configuration: configuration, clock: clock, environment: environment, observations: observations)
        writer = try await Writer(path: path) { try opening.open() }
    }

    deinit { writer.beginClosing() }

    /// Does what was submitted, closes the file, and gives up its lock. Later calls fail with `stopped`.
    public func close() async { await writer.close() }

    // MARK: Operations

    public func claim(_ requests: [ClaimRequest]) async throws(StoreError) -> [ClaimResult] {
        // Hashing is the caller's share of the work; there is only one writer.
        let references = requests.map { OperationReference($0.id) }
        let answer = await withUnsafeContinuation { writer.enqueue(ClaimJob(requests, references, $0)) }
        return try answer.get()
    }

    public func apply(_ transitions: [Transition]) async throws(StoreError) -> [TransitionResult] {
        let answer = await withUnsafeContinuation { writer.enqueue(TransitionJob(transitions, $0)) }
        return try answer.get()
    }

    public func record(of id: OperationID) async throws(StoreError) -> Record? {
        try await writer.submit { try $0.record(of: id) }
    }

    public func leaseRemaining(of record: Record) async throws(StoreError) -> Duration {
        try await writer.submit { record.leaseUntil - $0.now.lease }
    }

    public func observe(_ id: OperationID) -> Observation { observations.observe(id) }

    public func verify(_ id: OperationID, owner: Owner, lease: Duration) async throws(StoreError) -> Grant? {
        try await writer.submit { try $0.verify(id, owner: owner, lease: lease) }
    }

    // MARK: The caller's own writes

    public func perform(
        _ request: ClaimRequest, _ body: @escaping @Sendable (SQLiteTransaction, Grant) throws -> AtomicStep
    ) async throws -> AtomicResult {
        try await writer.submit { try $0.perform(request, body) }.get()
    }

    /// Reads the caller's tables as they are after everything that was answered. On the store's thread: be brief.
    public func read<Value: Sendable>(_ body: @escaping @Sendable (SQLiteTransaction) throws -> Value) async throws -> Value {
        try await writer.submit { try $0.read(body) }.get()
    }

    // MARK: Operators

    public func operations(_ query: OperationQuery) async throws(StoreError) -> OperationPage {
        if let scope = query.scope, let key = query.key {
            return try await writer.submit { engine in
                let found = try engine.operation(OperationReference(OperationID(scope: scope, key: key)))
                    .filter { query.matches($0, at: engine.now.retention) && query.cursor == nil }
                return OperationPage(operations: found, cursor: nil, now: engine.now.retention)
            }
        }
        var position: Engine.ListPosition? = Engine.ListPosition()
        if let cursor = query.cursor {
            guard let start = Engine.ListPosition(cursor) else {
                throw StoreError(.refused, "the cursor \"\(cursor)\" is none that a page of this store ended with; begin without one")
            }
            position = start
        }
        var found: [StoredOperation] = []
        var now = Timestamp.distantPast
        // A page that matches little looks at much: in parts, with other work between them, and not without end.
        for _ in 0..<20 {
            guard let start = position, found.count < query.limit else { break }
            let limit = query.limit - found.count
            let (part, next, time) = try await writer.submit { engine in
                let (part, next) = try engine.list(query, from: start, limit: limit, rows: 2000)
                return (part, next, engine.now.retention)
            }
            found += part
            position = next
            now = time
        }
        return OperationPage(operations: found, cursor: position?.cursor, now: now)
    }

    public func operation(_ reference: OperationReference) async throws(StoreError) -> StoredOperation? {
        try await writer.submit { try $0.operation(reference) }
    }

    public func resolve(
        _ id: OperationID, as resolution: Resolution, by act: OperatorAct, expecting epoch: Epoch?
    ) async throws(StoreError) -> TransitionResult {
        try await writer.submit { try $0.resolve(id, as: resolution, by: act, expecting: epoch) }
    }

    public func forget(_ id: OperationID, by act: OperatorAct, expecting epoch: Epoch?) async throws(StoreError) -> TransitionResult {
        try await writer.submit { try $0.forget(id, by: act, expecting: epoch) }
    }

    public func audit(after sequence: Int64, limit: Int) async throws(StoreError) -> [AuditEntry] {
        try await writer.submit { try $0.audit(after: sequence, limit: limit) }
    }

    public func policy(_ hash: PolicyHash) async throws(StoreError) -> PinnedPolicy? {
        try await writer.submit { $0.policies.policy(hash) }
    }

    @discardableResult
    public func purge(limit: Int) async throws(StoreError) -> PurgeReport {
        var report = PurgeReport(outcomes: 0, keys: 0)
        while report.outcomes + report.keys < limit {
            let rest = limit - report.outcomes - report.keys
            guard let slice = try await writer.submit({ try $0.sweepSlice(rows: 500, removing: rest, by: .asked) }) else { break }
            report.outcomes += slice.outcomes
            report.keys += slice.keys
        }
        return report
    }

    /// Call this after restoring a backup together with its witness file (a restore without it is noticed): later epochs
    /// are then higher than any given before, so a target that remembers epochs refuses nobody it should take, and takes
    /// nobody it should refuse.
    @discardableResult
    public func raiseIncarnation() async throws(StoreError) -> Incarnation {
        try await writer.submit { try $0.raiseIncarnation() }
    }

    public func health() async -> StoreHealth {
        do throws(StoreError) {
            let (isFull, live, path) = try await writer.submit { ($0.reserve.isFull, $0.live.count, $0.place.path) }
            return StoreHealth(
                isReady: !isFull,
                detail: isFull ? "\(path): the disk is full, new claims are refused; free some space" : "SQLite at \(path)",
                liveRecords: live)
        } catch {
            return StoreHealth(isReady: false, detail: error.message)
        }
    }
}

extension Optional {
    fileprivate func filter(_ isIncluded: (Wrapped) -> Bool) -> [Wrapped] {
        if let self, isIncluded(self) { [self] } else { [] }
    }
}
