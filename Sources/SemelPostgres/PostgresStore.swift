#if Postgres
import Foundation
public import Semel

/// Records in a PostgreSQL database, shared by any number of processes.
///
/// **Guarantee.** What was answered is as durable as ``capabilities`` declares, which is read from the server's settings when
/// the store is opened: *durable* with `fsync`, `full_page_writes` and `synchronous_commit` on. The server's clock decides
/// leases and retentions. An answer that was lost with its connection is found out by saying the same again: a claim finds
/// its own nonce, a completion its own outcome; what cannot be found out is `indeterminate`, never guessed.
///
/// Not guaranteed: that a failover to an asynchronous replica keeps what the primary acknowledged; call
/// ``raiseIncarnation()`` after one, and after restoring a backup. While the server's clock goes back, leases last longer by
/// as much.
///
/// All work is done by threads with a connection each, in batches of whatever is waiting: nothing blocks the cooperative
/// pool. One key always goes by the same connection of a process.
public final class PostgresStore: TransactionalStore {
    private let shared: Shared
    /// For claims and transitions, by key.
    private let lanes: [Lane]
    /// For callers' own transactions.
    private let callers: [Lane]
    /// For everything else, so that it holds up no claim.
    private let aside: Lane
    /// For the question whether the store can be used: it must not stand in a queue behind a long listing.
    private let watch: Lane
    /// For housekeeping, which may take long.
    private let keeper: Lane
    private let number = Locked(0)
    private let purging: Task<Void, Never>?

    public let capabilities: StoreCapabilities

    public struct Configuration: Sendable {
        /// The schema of the store's tables, where the URL names none by `schema=`.
        public var schema: String
        /// How many connections carry claims and transitions.
        public var connections: Int
        /// How many transactions of ``PostgresStore/perform(_:_:)`` may run at once.
        public var transactions: Int
        /// How many keys a segment takes before it is sealed, about. The current segment's index should fit the server's memory.
        public var segmentKeys: Int
        /// How long a segment takes keys before it is sealed. A segment leaves when its last key is outlived, so a key may
        /// stay by so much longer.
        public var segmentAge: Duration
        /// How often the store removes what has outlived its retentions, of all processes one at a time; `nil` leaves it to
        /// ``PostgresStore/purge(limit:)``.
        public var purgesEvery: Duration?
        /// How long a call waits for a server that cannot be reached.
        public var patience: Duration
        /// How long connecting may take.
        public var connectLimit: Duration
        /// How long an answer may take before the connection is given up.
        public var answerLimit: Duration
        /// Told how many items each batch held.
        public var metrics: StoreMetrics?

        public init(
            schema: String = "semel", connections: Int = 4, transactions: Int = 8, segmentKeys: Int = 1_000_000,
            segmentAge: Duration = .seconds(86_400), purgesEvery: Duration? = .seconds(60), patience: Duration = .seconds(5), connectLimit: Duration = .seconds(5), answerLimit: Duration = .seconds(10), metrics: StoreMetrics? = nil
        ) {
            self.schema = schema
            self.connections = max(1, connections)
            self.transactions = max(1, transactions)
            self.segmentKeys = max(1, segmentKeys)
            self.segmentAge = segmentAge
            self.purgesEvery = purgesEvery
            self.patience = patience
            self.connectLimit = connectLimit
            self.answerLimit = answerLimit
            self.metrics = metrics
        }
    }

    /// Connects, checks the server, and opens the store.
    ///
    /// - Parameters:
    ///   - url: `postgres://user:password@host:port/database?sslmode=verify-full&schema=semel`, with whatever else libpq takes.
    ///   - migrate: whether missing tables are made and older ones brought to this version; else they are `missing-schema`.
    /// - Throws: `misconfigured`, `credentialsRefused`, `encryptionFailed`, `serverTooOld`, `readOnly`, `missingSchema`,
    ///   `newerSchema` or `unavailable`; the message says what was found and what to do.
    public static func open(
        _ url: String, migrate: Bool = false, configuration: Configuration = Configuration(), environment: Environment = .live
    ) async throws(StoreError) -> PostgresStore {
        let target = try Target(url: url, schema: configuration.schema)
        let found = try await onThread { () throws -> (PostgresInspection, Incarnation, Int64, Segments) in
            let connection = try connect(target, configuration, environment)
            var inspection = try PostgresInspection(connection, at: target, within: configuration.answerLimit, wallClock: wallClock)
            if let problem = inspection.problems.first(where: { $0.code != .missingSchema }) { throw problem }
            if migrate, !inspection.problems.isEmpty {
                try Schema.migrate(connection, at: target, within: configuration.answerLimit)
                inspection = try PostgresInspection(connection, at: target, within: configuration.answerLimit, wallClock: wallClock)
            }
            if let problem = inspection.problems.first { throw problem }
            let meta = try connection.run(
                [.text("SELECT incarnation, seen FROM \(target.quotedSchema).meta")], within: configuration.answerLimit)[0].get()
            guard meta.count == 1 else { throw StoreError(.damaged, "\(target.place): the table of the store's state is empty") }
            let segments = Segments(
                try SegmentMap.read(connection, in: target.quotedSchema, within: configuration.answerLimit),
                keys: configuration.segmentKeys, age: configuration.segmentAge, at: environment.uptime())
            return (inspection, Incarnation(rawValue: UInt16(clamping: meta.integer(0, 0, as: Int32.self))), meta.integer(0, 1), segments)
        }
        return PostgresStore(
            Shared(
                target: target, configuration: configuration, environment: environment, durability: found.0.durability,
                incarnation: found.1, seen: found.2, segments: found.3))
    }

    private init(_ shared: Shared) {
        self.shared = shared
        capabilities = StoreCapabilities(engine: "postgres", durability: shared.durability, isTransactional: true)
        lanes = (0..<shared.configuration.connections).map { Lane(shared, for: .records, name: "semel-pg-\($0)") }
        callers = (0..<shared.configuration.transactions).map { Lane(shared, for: .callers, name: "semel-pg-own-\($0)") }
        aside = Lane(shared, for: .records, name: "semel-pg-aside")
        watch = Lane(shared, for: .records, name: "semel-pg-watch")
        let keeper = Lane(shared, for: .records, name: "semel-pg-keep")
        self.keeper = keeper
        purging = shared.configuration.purgesEvery.map { Self.startPurging(keeper, every: $0, shared.environment) }
        shared.signals.start(shared)
        shared.segments.loadFilters(shared)
    }

    deinit {
        purging?.cancel()
        shared.signals.close()
        shared.segments.close()
    }

    /// Does what was submitted, and closes the connections. Later calls fail with `stopped`.
    public func close() async {
        purging?.cancel()
        shared.signals.close()
        shared.segments.close()
        let all = lanes + callers + [aside, watch, keeper]
        for lane in all { lane.beginClosing() }
        for lane in all { await lane.close() }
        // The threads of their own end as soon as what they have just asked is answered.
        while shared.signals.isRunning || shared.segments.isLoading { try? await Task.sleep(for: .milliseconds(5)) }
    }

    private static func startPurging(_ lane: Lane, every pause: Duration, _ environment: Environment) -> Task<Void, Never> {
        environment.detach {
            while !Task.isCancelled {
                do {
                    try await environment.clock.sleep(for: pause)
                    // In portions, until nothing is left to do or another process does it.
                    while !Task.isCancelled, try await lane.submit({ try $0.purgeAlone(limit: 10_000) }) {}
                } catch let error as StoreError where error.code != .stopped {
                    // Housekeeping may come at any later time.
                } catch {
                    return
                }
            }
        }
    }

    // MARK: Before opening

    /// Looks at a server without changing anything; what is wrong is among the inspection's problems.
    /// - Throws: what keeps it from being looked at.
    public static func inspect(
        _ url: String, configuration: Configuration = Configuration(), environment: Environment = .live
    ) async throws(StoreError) -> PostgresInspection {
        let target = try Target(url: url, schema: configuration.schema)
        return try await onThread {
            try PostgresInspection(
                connect(target, configuration, environment), at: target, within: configuration.answerLimit, wallClock: wallClock)
        }
    }

    /// Makes the tables, or brings older ones to this version, in one transaction. Safe to run from several places at once.
    /// - Returns: the version found (0 for none) and the version now.
    @discardableResult
    public static func migrate(
        _ url: String, configuration: Configuration = Configuration(), environment: Environment = .live
    ) async throws(StoreError) -> (from: Int, to: Int) {
        let target = try Target(url: url, schema: configuration.schema)
        return try await onThread {
            let connection = try connect(target, configuration, environment)
            let inspection = try PostgresInspection(connection, at: target, within: configuration.answerLimit, wallClock: wallClock)
            if let problem = inspection.problems.first(where: { $0.code != .missingSchema }) { throw problem }
            let found = try Schema.migrate(connection, at: target, within: configuration.answerLimit)
            return (found, Schema.version)
        }
    }

    /// Reads a URL without connecting.
    /// - Returns: its place, without user or password.
    /// - Throws: `misconfigured`.
    public static func place(of url: String) throws(StoreError) -> String { try Target(url: url, schema: "semel").place }

    private static func connect(_ target: Target, _ configuration: Configuration, _ environment: Environment) throws(StoreError) -> Connection {
        try Connection(to: target, within: configuration.connectLimit, uptime: environment.uptime, name: "semel check")
    }

    private static func wallClock() -> Int64 { Int64(Date().timeIntervalSince1970 * 1_000_000) }

    /// Blocks a thread of its own, and not one of the pool.
    private static func onThread<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws(StoreError) -> Value {
        let result = await withUnsafeContinuation { (caller: UnsafeContinuation<Result<Value, StoreError>, Never>) in
            Thread.detachNewThread {
                do {
                    caller.resume(returning: .success(try body()))
                } catch let error as StoreError {
                    caller.resume(returning: .failure(error))
                } catch let lost as Connection.Lost {
                    caller.resume(returning: .failure(StoreError(.unavailable, "the server cannot be asked: \(lost)", underlying: lost)))
                } catch {
                    let isPrivilege = (error as? PostgresError)?.sqlState == "42501"
                    let remedy = isPrivilege ? "; let the URL's user do this, or let another one run `semel store migrate`" : ""
                    caller.resume(returning: .failure(StoreError(.misconfigured, "\(error)\(remedy)", underlying: error)))
                }
            }
        }
        return try result.get()
    }

    // MARK: Operations

    private func lane(of reference: OperationReference) -> Lane { lanes[Int(reference.low % UInt64(lanes.count))] }

    public func claim(_ requests: [ClaimRequest]) async throws(StoreError) -> [ClaimResult] {
        if let request = requests.first(where: { $0.id.scope.bytes.count > Row.scopeLimit }) {
            throw StoreError(.refused, "a scope of \(request.id.scope.bytes.count) bytes is too long; it may have \(Row.scopeLimit)")
        }
        let items = requests.map { Item($0) }
        // Near a limit the order of a batch decides who is refused, and only one connection keeps it.
        let isNearLimit = requests.count > 1 && requests.contains { $0.liveLimit.map { !shared.isFarBelow($0) } ?? false }
        try await submit(items, by: isNearLimit ? lane(of: items[0].reference) : nil)
        return try items.map { item throws(StoreError) in
            if case .claim(let result) = item.answer { return result }
            throw Self.failure(of: item)
        }
    }

    public func apply(_ transitions: [Transition]) async throws(StoreError) -> [TransitionResult] {
        let items = transitions.map { Item($0) }
        try await submit(items)
        return try items.map { item throws(StoreError) in
            if case .transition(let result) = item.answer { return result }
            throw Self.failure(of: item)
        }
    }

    public func record(of id: OperationID) async throws(StoreError) -> Record? {
        let item = Item(id, .read)
        try await submit([item])
        guard case .record(let record) = item.answer else { throw Self.failure(of: item) }
        return record
    }

    public func verify(_ id: OperationID, owner: Owner, lease: Duration) async throws(StoreError) -> Grant? {
        let item = Item(id, .verify(owner: owner, lease: lease))
        try await submit([item])
        guard case .grant(let grant) = item.answer else { throw Self.failure(of: item) }
        return grant
    }

    /// Hands items to their lanes, or to one, and returns when all are answered.
    private func submit(_ items: [Item], by one: Lane? = nil) async throws(StoreError) {
        guard let first = items.first else { return }
        if items.count == 1 || one != nil {
            if let error = await (one ?? lane(of: first.reference)).perform(items) { throw error }
        } else {
            var parts: [[Item]] = Array(repeating: [], count: lanes.count)
            for item in items { parts[Int(item.reference.low % UInt64(lanes.count))].append(item) }
            let lanes = lanes
            let failures = await withTaskGroup(of: StoreError?.self) { group in
                for (lane, part) in zip(lanes, parts) where !part.isEmpty { group.addTask { await lane.perform(part) } }
                return await group.reduce(into: []) { $0.append($1) }
            }
            if let error = failures.compactMap(\.self).first { throw error }
        }
        let failed = items.filter { if case .failure = $0.answer { true } else { false } }
        guard let worst = failed.first else { return }
        let error = Self.failure(of: worst)
        // Some of it happened, so it cannot be said that nothing did.
        guard failed.count < items.count, error.code != .indeterminate else { throw error }
        throw StoreError(.indeterminate, "some of the batch took effect and some did not: \(error.message)", underlying: error)
    }

    private static func failure(of item: Item) -> StoreError {
        if case .failure(let error) = item.answer { return error }
        return StoreError(.refused, "the record of \(item.reference) was not answered for")
    }

    public func leaseRemaining(of record: Record) async throws(StoreError) -> Duration {
        try await lanes[0].submit { record.leaseUntil - (try $0.serverTime()) }
    }

    public func observe(_ id: OperationID) -> Observation { shared.signals.observe(id) }

    // MARK: The caller's own writes

    public func perform(
        _ request: ClaimRequest, _ body: @escaping @Sendable (PostgresTransaction, Grant) throws -> AtomicStep
    ) async throws -> AtomicResult {
        // Any of them: the row itself keeps two bodies of one key apart.
        let turn = number.withLock { number in
            number = (number + 1) % callers.count
            return number
        }
        return try await callers[turn].submit { try $0.perform(request, body) }.get()
    }

    /// Claims the key, runs statements, and records an outcome that is known beforehand, in one transaction: what
    /// ``perform(_:_:)`` promises, for writes that need no answer in between. Calls that wait at the same time share a
    /// transaction, and so a sync of the disk.
    ///
    /// - Throws: ``UnexpectedRows`` or ``PostgresError`` of a statement, after which everything is undone and the key is free;
    ///   or a `StoreError`.
    public func perform(
        _ request: ClaimRequest, writing statements: [PostgresStatement], recording outcome: Outcome
    ) async throws -> AtomicResult {
        let write = Write(request, statements, outcome)
        if let error = await callers[0].perform(write) { throw error }
        guard let result = write.result else { throw StoreError(.refused, "the call was not run") }
        return try result.get()
    }

    // For claims in a transaction of the caller's own driver.

    var internals: Shared { shared }

    /// Keeps a policy before a claim under it, in a transaction of the store's own.
    func keep(_ policy: PinnedPolicy) async throws(StoreError) {
        guard shared.policies.number(of: policy.hash) == nil else { return }
        try await aside.submit { try $0.shared.policies.keep(policy, $0.connection(), within: $0.answerLimit) }
    }

    /// - Returns: whether a policy was met that was not known before, so that reading the row again may go better.
    func loadPolicies() async throws(StoreError) -> Bool {
        let before = shared.policies.count
        try await aside.submit { try $0.shared.policies.loadAll($0.connection(), within: $0.answerLimit) }
        return shared.policies.count > before
    }

    /// Knows the segments as they are now.
    func refreshMap() async throws(StoreError) -> SegmentMap { try await aside.submit { try $0.refreshMap() } }

    // MARK: Operators

    /// Reads on the connection for everything else. It may have gone while nothing was asked: then the next one is asked.
    private func reading<Value: Sendable>(_ body: @escaping @Sendable (Session) throws -> Value) async throws(StoreError) -> Value {
        do throws(StoreError) {
            return try await aside.submit(body)
        } catch {
            guard error.isTransient else { throw error }
        }
        return try await aside.submit(body)
    }

    public func operations(_ query: OperationQuery) async throws(StoreError) -> OperationPage {
        if let scope = query.scope, let key = query.key {
            return try await reading { session in
                let now = try session.serverTime()
                let found = try session.operation(OperationReference(OperationID(scope: scope, key: key)))
                let isWanted = found.map { query.matches($0, at: now) && query.cursor == nil } ?? false
                return OperationPage(operations: isWanted ? [found!] : [], cursor: nil, now: now)
            }
        }
        return try await reading { try $0.list(query) }
    }

    public func operation(_ reference: OperationReference) async throws(StoreError) -> StoredOperation? {
        try await reading { try $0.operation(reference) }
    }

    public func resolve(
        _ id: OperationID, as resolution: Resolution, by act: OperatorAct, expecting epoch: Epoch?
    ) async throws(StoreError) -> TransitionResult {
        try await aside.submit { session in
            try session.act(id, resolution.action, by: act) { record, now in
                RecordMachine.resolve(
                    resolution, on: record, expecting: epoch, at: now,
                    nextEpoch: { session.shared.nextEpoch(after: max($0, record?.epoch ?? .zero), at: now.retention) })
            }
        }
    }

    public func forget(_ id: OperationID, by act: OperatorAct, expecting epoch: Epoch?) async throws(StoreError) -> TransitionResult {
        try await aside.submit { try $0.act(id, "forget", by: act) { RecordMachine.forget($0, expecting: epoch, at: $1) } }
    }

    public func audit(after sequence: Int64, limit: Int) async throws(StoreError) -> [AuditEntry] {
        try await reading { try $0.audit(after: sequence, limit: limit) }
    }

    public func policy(_ hash: PolicyHash) async throws(StoreError) -> PinnedPolicy? {
        try await reading { try $0.shared.policies.policy(hash, $0.connection(), within: $0.answerLimit) }
    }

    @discardableResult
    public func purge(limit: Int) async throws(StoreError) -> PurgeReport {
        try await keeper.submit { try $0.purge(limit: limit) }
    }

    /// Call this after restoring a backup, or after a failover that may have lost what was acknowledged: later epochs are then
    /// higher than any given before. Other processes learn of it within about a second.
    @discardableResult
    public func raiseIncarnation() async throws(StoreError) -> Incarnation {
        try await aside.submit { try $0.raiseIncarnation() }
    }

    public func health() async -> StoreHealth {
        do throws(StoreError) {
            let place = shared.target.place
            return try await watch.submit { session in
                let rows = try session.run([
                    .text("SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on', current_setting('server_version')"),
                    .text("SELECT count(*) FROM \(session.shared.target.quotedSchema).record WHERE \(Statements.isLive)"),
                ])
                let isReadOnly = rows[0].flag(0, 0)
                return StoreHealth(
                    isReady: !isReadOnly,
                    detail: isReadOnly
                        ? "\(place): the server takes no writes; name the primary in the store's URL"
                        : "PostgreSQL \(rows[0].text(0, 1)) at \(place)"
                            + (session.shared.segments.problem.map { "; the current segment grows, for it cannot be sealed: \($0.message)" } ?? ""),
                    liveRecords: Int(rows[1].integer(0, 0, as: Int64.self)))
            }
        } catch {
            return StoreHealth(isReady: false, detail: error.message)
        }
    }
}
#endif
