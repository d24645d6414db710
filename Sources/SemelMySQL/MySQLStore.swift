#if MySQL
import Foundation
public import Semel

/// Records in MariaDB or MySQL (InnoDB), shared by any number of processes.
///
/// **Guarantee.** Every answer is given after the commit. What a commit keeps is the server's to say: it is read from its
/// settings when the store is opened, and declared in ``capabilities`` (`innodb_flush_log_at_trx_commit` and, with a binary
/// log, `sync_binlog` must be 1). The server's clock decides leases and retentions, and never goes back by more than a
/// second, whatever is done to it. When the answer to a COMMIT is lost, the store finds out what became of it, or says
/// `indeterminate`.
///
/// Not guaranteed: anything that a failover to a replica that lags takes away; give the store semi-synchronous replication,
/// or a cluster, and after such a loss call ``raiseIncarnation()``. Tried on MariaDB 10.11; MySQL from 8.0.19 is meant to
/// work by the same statements, and has not been tried.
///
/// All work is done by a few threads, each with a connection, in transactions that take whatever is waiting; nothing
/// blocks the cooperative pool. A key always goes to the same thread.
public final class MySQLStore: TransactionalStore {
    private let shared: Shared
    private let lanes: [Lane]
    /// For the caller's transactions, made when first needed.
    private let transactionLanes = Locked([Int: Lane]())
    private let poller: Poller
    private let purger: Task<Void, Never>?
    private let server: Server

    public let capabilities: StoreCapabilities

    /// Opens the store, and makes or renews its tables where the configuration says so.
    ///
    /// - Parameter url: `mysql://user:password@host:3306/database`; also `mariadb://`. Options: `tls=verify` (the default for
    ///   another machine: encrypted, and the certificate must be the host's), `tls=require` (encrypted), `tls=off` (the
    ///   default for this machine), `ca=FILE`, `socket=PATH`.
    /// - Throws: `misconfigured` for a URL, a database or a setting that cannot be, `credentialsRefused`,
    ///   `encryptionFailed`, `serverTooOld`, `readOnly`, `missingSchema`, `newerSchema`, or `unavailable`; the message says
    ///   what to do.
    public init(url: String, configuration: Configuration = Configuration(), environment: Environment = .live) async throws(StoreError) {
        let target = try Target(url: url)
        shared = Shared(target, configuration, environment)
        server = try await Self.onThread(shared) {
            let connection = try Connection(to: target, timeout: configuration.timeout, counting: .changed)
            let server = try Server(connection, at: target.description)
            if configuration.migratesByItself {
                try Schema.migrate(connection, with: configuration.migrations, at: target.description)
            } else {
                try Schema.require(connection, at: target.description)
            }
            return server
        }
        capabilities = StoreCapabilities(engine: "mysql", durability: server.durability, isTransactional: true)
        let lanes = (0..<configuration.connections).map { [shared] in Lane(shared, "semel-mysql-\($0)", counting: .changed) }
        self.lanes = lanes
        poller = Poller(shared, lanes)
        purger = configuration.purgesByItself ? Self.startPurging(lanes[0], environment) : nil
    }

    deinit {
        purger?.cancel()
        for lane in lanes + transactionLanes.withLock({ Array($0.values) }) { lane.beginClosing() }
    }

    /// Does what was submitted and closes the connections. Later calls fail with `stopped`.
    public func close() async {
        purger?.cancel()
        for lane in lanes + transactionLanes.withLock({ Array($0.values) }) { await lane.close() }
    }

    // MARK: Before it is opened

    /// Reads a URL without connecting.
    /// - Returns: its place, without user or password.
    /// - Throws: `misconfigured`.
    public static func place(of url: String) throws(StoreError) -> String { try Target(url: url).description }

    /// Looks at a server without changing anything; what is wrong is among the inspection's problems.
    /// - Throws: what keeps it from being looked at.
    public static func inspect(
        _ url: String, configuration: Configuration = Configuration(), environment: Environment = .live
    ) async throws(StoreError) -> MySQLInspection {
        let target = try Target(url: url)
        return try await onThread(Shared(target, configuration, environment)) {
            try MySQLInspection(Connection(to: target, timeout: configuration.timeout, counting: .changed), at: target.description)
        }
    }

    /// Makes the store's tables, or brings older ones to this version, and runs the caller's migrations. Safe to run from
    /// several places at once.
    /// - Returns: the version found (0 for none) and the version now.
    @discardableResult
    public static func migrate(
        _ url: String, configuration: Configuration = Configuration(), environment: Environment = .live
    ) async throws(StoreError) -> (from: Int, to: Int) {
        let target = try Target(url: url)
        return try await onThread(Shared(target, configuration, environment)) {
            let connection = try Connection(to: target, timeout: configuration.timeout, counting: .changed)
            _ = try Server(connection, at: target.description)
            let found = try Schema.migrate(connection, with: configuration.migrations, at: target.description)
            return (Int(found), Int(Schema.version))
        }
    }

    /// Blocks a thread of its own, and not one of the pool.
    private static func onThread<Value: Sendable>(
        _ shared: Shared, _ body: @escaping @Sendable () throws -> Value
    ) async throws(StoreError) -> Value {
        let result = await withUnsafeContinuation { (caller: UnsafeContinuation<Result<Value, StoreError>, Never>) in
            Thread.detachNewThread {
                do {
                    caller.resume(returning: .success(try body()))
                } catch {
                    caller.resume(returning: .failure(shared.storeError(error)))
                }
            }
        }
        return try result.get()
    }

    private static func startPurging(_ lane: Lane, _ environment: Environment) -> Task<Void, Never> {
        environment.detach {
            while !Task.isCancelled {
                do {
                    try await environment.clock.sleep(for: .seconds(60))
                    // In portions, so that nobody waits long for the lane.
                    while try await lane.submit({ try $0.purge(upTo: 500) }) != nil {}
                } catch let error as StoreError where error.code != .stopped {
                    // Housekeeping may come at any later time.
                } catch {
                    return
                }
            }
        }
    }

    private func lane(of row: RowID) -> Lane { lanes[row.lane(of: lanes.count)] }

    private func transactionLane(of row: RowID) -> Lane {
        let number = row.lane(of: lanes.count)
        return transactionLanes.withLock { made in
            if let lane = made[number] { return lane }
            let lane = Lane(shared, "semel-mysql-t\(number)", counting: .matched)
            made[number] = lane
            return lane
        }
    }

    // MARK: Operations

    public func claim(_ requests: [ClaimRequest]) async throws(StoreError) -> [ClaimResult] {
        // Near a limit the order of a batch decides who is refused, and only one connection keeps it.
        let isNearLimit = requests.count > 1 && requests.contains { $0.liveLimit.map { shared.isFarFrom(limit: $0, admitting: 0) != true } ?? false }
        return try await run(requests.map { Item($0.id, .claim($0)) }, asOne: isNearLimit).map { answer throws(StoreError) in
            switch answer {
            case .claimed(let result): return result
            case .failed(let error): throw error
            case .applied, .record: preconditionFailure("a claim is answered as a claim")
            }
        }
    }

    public func apply(_ transitions: [Transition]) async throws(StoreError) -> [TransitionResult] {
        try await run(transitions.map { Item($0.id, .apply($0)) }).map { answer throws(StoreError) in
            switch answer {
            case .applied(let result): return result
            case .failed(let error): throw error
            case .claimed, .record: preconditionFailure("a transition is answered as a transition")
            }
        }
    }

    public func record(of id: OperationID) async throws(StoreError) -> Record? {
        switch try await run([Item(id, .read)])[0] {
        case .record(let record): return record
        case .failed(let error): throw error
        case .claimed, .applied: preconditionFailure("a reading is answered as a reading")
        }
    }

    /// Hands each item to its key's lane, and gathers the answers; or all to one lane, in one transaction.
    private func run(_ items: [Item], asOne isOne: Bool = false) async throws(StoreError) -> [Item.Answer] {
        guard let first = items.first else { return [] }
        let portions = isOne ? [:] : Dictionary(grouping: items.indices) { items[$0].row.lane(of: lanes.count) }
        if isOne || portions.count == 1 {
            let answers = await withUnsafeContinuation { caller in
                lane(of: first.row).enqueue(ItemsJob(items) { caller.resume(returning: $0) })
            }
            return try answers.get()
        }
        let answers = await withUnsafeContinuation { caller in
            let gathering = Gathering(items.count, portions.count, caller)
            for (number, indices) in portions {
                lanes[number].enqueue(ItemsJob(indices.map { items[$0] }) { gathering.add($0, at: indices) })
            }
        }
        return try answers.get()
    }

    public func leaseRemaining(of record: Record) async throws(StoreError) -> Duration {
        try await lanes[0].submit { session in try session.reading { record.leaseUntil - session.now.lease } }
    }

    /// What this process does is signalled at once; what another does, within a quarter of a second or so.
    public func observe(_ id: OperationID) -> Observation {
        let observation = shared.observations.observe(id)
        poller.watch(id)
        return observation
    }

    public func verify(_ id: OperationID, owner: Owner, lease: Duration) async throws(StoreError) -> Grant? {
        let row = RowID(id)
        return try await lane(of: row).submit { try $0.verify(id, row, owner: owner, lease: lease) }
    }

    // MARK: The caller's own writes

    public func perform(
        _ request: ClaimRequest, _ body: @escaping @Sendable (MySQLTransaction, Grant) throws -> AtomicStep
    ) async throws -> AtomicResult {
        try await performPositioned(request, body).result
    }

    /// The same, and tells the global id of the transaction.
    public func performPositioned(
        _ request: ClaimRequest, _ body: @escaping @Sendable (MySQLTransaction, Grant) throws -> AtomicStep
    ) async throws -> PositionedResult {
        let row = RowID(request.id)
        return try await transactionLane(of: row).submit { try $0.perform(request, row, body) }.get()
    }

    /// Reads the caller's tables as they are after everything that was answered. On one of the store's threads: be brief.
    public func read<Value: Sendable>(_ body: @escaping @Sendable (MySQLTransaction) throws -> Value) async throws -> Value {
        try await transactionLane(of: RowID(Scope("semel.read"))).submit { try $0.read(body) }.get()
    }

    // MARK: Operators

    public func operations(_ query: OperationQuery) async throws(StoreError) -> OperationPage {
        if let scope = query.scope, let key = query.key {
            let row = RowID(OperationID(scope: scope, key: key))
            let (found, now) = try await lane(of: row).submit { session in
                (try session.operation(row.reference), session.now.retention)
            }
            let matching = found.map { query.matches($0, at: now) && query.cursor == nil } ?? false
            return OperationPage(operations: matching ? [found!] : [], cursor: nil, now: now)
        }
        var position: Session.ListPosition? = Session.ListPosition()
        if let cursor = query.cursor {
            guard let start = Session.ListPosition(cursor) else { return OperationPage(operations: [], cursor: nil, now: .distantPast) }
            position = start
        }
        var found: [StoredOperation] = []
        var now = Timestamp.distantPast
        // A page that matches little looks at much: in parts, with other work between them, and not without end.
        for _ in 0..<20 {
            guard let start = position, found.count < query.limit else { break }
            let limit = query.limit - found.count
            let (part, next, time) = try await lanes[0].submit { try $0.list(query, from: start, limit: limit, rows: 1000) }
            found += part
            position = next
            now = time
        }
        return OperationPage(operations: found, cursor: position?.cursor, now: now)
    }

    public func operation(_ reference: OperationReference) async throws(StoreError) -> StoredOperation? {
        try await lanes[0].submit { try $0.operation(reference) }
    }

    public func resolve(
        _ id: OperationID, as resolution: Resolution, by act: OperatorAct, expecting epoch: Epoch?
    ) async throws(StoreError) -> TransitionResult {
        let row = RowID(id)
        return try await lane(of: row).submit { try $0.resolve(id, row, as: resolution, by: act, expecting: epoch) }
    }

    public func forget(_ id: OperationID, by act: OperatorAct, expecting epoch: Epoch?) async throws(StoreError) -> TransitionResult {
        let row = RowID(id)
        return try await lane(of: row).submit { try $0.forget(id, row, by: act, expecting: epoch) }
    }

    public func audit(after sequence: Int64, limit: Int) async throws(StoreError) -> [AuditEntry] {
        try await lanes[0].submit { session in try session.reading { try session.audit(after: sequence, limit: limit) } }
    }

    public func policy(_ hash: PolicyHash) async throws(StoreError) -> PinnedPolicy? {
        try await lanes[0].submit { session in try session.reading { try session.policy(hash) } }
    }

    @discardableResult
    public func purge(limit: Int) async throws(StoreError) -> PurgeReport {
        var report = PurgeReport(outcomes: 0, keys: 0)
        while report.outcomes + report.keys < limit {
            let rest = limit - report.outcomes - report.keys
            guard let part = try await lanes[0].submit({ try $0.purge(upTo: min(rest, 500)) }) else { break }
            report.outcomes += part.outcomes
            report.keys += part.keys
        }
        return report
    }

    /// Call this after the server was restored from a backup, or fell back to a replica that had lost something: later epochs
    /// are then higher than any given before, so a target that remembers epochs refuses nobody it should take, and takes
    /// nobody it should refuse.
    @discardableResult
    public func raiseIncarnation() async throws(StoreError) -> Incarnation {
        try await lanes[0].submit { try $0.raiseIncarnation() }
    }

    public func health() async -> StoreHealth {
        do throws(StoreError) {
            try await lanes[0].submit { session in try session.reading {} }
            var detail = "\(server.name) at \(shared.target.description)"
            if case .forgetful(let why) = capabilities.durability { detail += "; \(why)" }
            return StoreHealth(isReady: true, detail: detail)
        } catch {
            return StoreHealth(isReady: false, detail: error.message)
        }
    }
}

/// The answers of several lanes to one caller.
private final class Gathering: Sendable {
    private struct State {
        var answers: [Item.Answer?]
        var missing: Int
        var error: StoreError?
    }

    private let state: Locked<State>
    private let caller: UnsafeContinuation<ItemsJob.Answers, Never>

    init(_ count: Int, _ portions: Int, _ caller: UnsafeContinuation<ItemsJob.Answers, Never>) {
        state = Locked(State(answers: Array(repeating: nil, count: count), missing: portions))
        self.caller = caller
    }

    func add(_ answers: ItemsJob.Answers, at indices: [Int]) {
        let all = state.withLock { state -> ItemsJob.Answers? in
            switch answers {
            case .success(let answers): for (index, answer) in zip(indices, answers) { state.answers[index] = answer }
            case .failure(let error): state.error = error
            }
            state.missing -= 1
            guard state.missing == 0 else { return nil }
            guard var error = state.error else { return .success(state.answers.map { $0! }) }
            // "Nothing happened" would not be true of the others.
            if error.code != .indeterminate, state.answers.contains(where: { $0 != nil }) {
                error = StoreError(.indeterminate, "some of the items were done, and others not: \(error.message)", underlying: error)
            }
            return .failure(error)
        }
        if let all { caller.resume(returning: all) }
    }
}
#endif
