public import Semel

/// Records in one Redis or a Redis Cluster, shared by any number of processes.
///
/// **Guarantee.** Each transition is one script on the server, atomic, on the server's clock, and conditional on the epoch
/// inside the record. What was answered is as durable as the server's settings make it, which are read when the store is
/// opened and declared in ``capabilities``: *durable* only when the server syncs its log before it answers
/// (`appendonly yes`, `appendfsync always`) and has no replica that a failover could promote while it lags. Anything else
/// is *forgetful*, and levels that rest on the store are `bestEffort` on it. A server that may evict keys, takes no writes
/// or is too old is refused.
///
/// Not guaranteed: anything after the server's data was lost, restored from a backup without ``raiseIncarnation()``, or
/// changed by others. A server's clock that is set back lets time stand still for each process that saw the later time;
/// epochs rise for all that these do. The limit on a scope's live keys is exact within one process, and approximate among
/// several.
///
/// A command whose reply was lost is `indeterminate` and never sent again by itself.
public final class RedisStore: OperationStore {
    public struct Configuration: Sendable {
        /// How long a server may owe an answer before its connection counts as dead, and how long a command is tried that
        /// the server defers.
        public var patience: Duration
        /// Whether the store removes by itself what has outlived its retention; one of the processes that share it does.
        public var purgesByItself: Bool
        /// Every change is answered only when so many replicas have it, or is `indeterminate` after the time. This raises no
        /// level: a failover may still choose another replica. Commands wait for each other meanwhile.
        public var waitForReplicas: (count: Int, timeout: Duration)?

        public init(patience: Duration = .seconds(5), purgesByItself: Bool = true, waitForReplicas: (count: Int, timeout: Duration)? = nil)
        {
            self.patience = patience
            self.purgesByItself = purgesByItself
            self.waitForReplicas = waitForReplicas
        }
    }

    private let engine: Engine
    private let housekeeping: Task<Void, Never>
    private let walk = Locked(PurgeWalk())

    public let capabilities: StoreCapabilities

    /// Connects, and checks every server.
    ///
    /// - Throws: `unavailable`, `credentials-refused`, `encryption-failed`, `server-too-old`, `evicting`, `read-only`,
    ///   `newer-schema` or `misconfigured`; the message says what was found and what to do.
    public convenience init(
        _ location: RedisLocation, configuration: Configuration = Configuration(), environment: Environment = .live
    ) async throws(StoreError) {
        try await self.init(location, configuration: configuration, environment: environment, time: nil)
    }

    /// - Parameter time: shared by stores whose time a test lets pass; `nil` for a store of its own.
    package init(
        _ location: RedisLocation, configuration: Configuration, environment: Environment = .live, time: SeenTime?
    ) async throws(StoreError) {
        var configuration = configuration
        if let count = location.waitForReplicas, configuration.waitForReplicas == nil {
            configuration.waitForReplicas = (count, location.waitTimeout)
        }
        if let wait = configuration.waitForReplicas {
            // A server that waits for its replicas is not dead.
            configuration.patience = max(configuration.patience, wait.timeout * 2)
        }
        let engine = try Engine(location, configuration, environment, time: time)
        do throws(StoreError) {
            let facts = try await engine.open()
            capabilities = StoreCapabilities(
                engine: location.isCluster ? "redis+cluster" : "redis", durability: facts.durability, isTransactional: false, isAuthority: false)
        } catch {
            engine.close()
            throw error
        }
        engine.declared.withLock { [capabilities] in $0 = capabilities.durability }
        self.engine = engine
        housekeeping = environment.detach { await engine.keepHouse() }
    }

    /// - Parameter url: see ``RedisLocation``.
    public convenience init(url: String, configuration: Configuration = Configuration(), environment: Environment = .live)
        async throws(StoreError)
    {
        try await self.init(try RedisLocation(url), configuration: configuration, environment: environment)
    }

    deinit { close() }

    /// Closes the connections. Later calls fail with `stopped`; those under way fail as if the server had gone.
    public func close() {
        housekeeping.cancel()
        engine.close()
    }

    // MARK: Operations

    public func claim(_ requests: [ClaimRequest]) async throws(StoreError) -> [ClaimResult] { try await engine.claim(requests) }

    public func apply(_ transitions: [Transition]) async throws(StoreError) -> [TransitionResult] {
        transitions.isEmpty ? [] : try await engine.apply(transitions)
    }

    public func record(of id: OperationID) async throws(StoreError) -> Record? { try await engine.record(of: id) }

    /// In a cluster, by the clock of one of its servers.
    public func leaseRemaining(of record: Record) async throws(StoreError) -> Duration {
        record.leaseUntil - (try await engine.now())
    }

    public func observe(_ id: OperationID) -> Observation { engine.observe(id) }

    public func verify(_ id: OperationID, owner: Owner, lease: Duration) async throws(StoreError) -> Grant? {
        try await engine.verify(id, owner: owner, lease: lease)
    }

    // MARK: Operators

    /// Live operations are found by an index; a query that asks for finished ones too looks at every key, for each page.
    public func operations(_ query: OperationQuery) async throws(StoreError) -> OperationPage { try await engine.operations(query) }

    public func operation(_ reference: OperationReference) async throws(StoreError) -> StoredOperation? {
        try await engine.read(reference)?.operation
    }

    public func resolve(
        _ id: OperationID, as resolution: Resolution, by act: OperatorAct, expecting epoch: Epoch?
    ) async throws(StoreError) -> TransitionResult {
        try await engine.resolve(id, as: resolution, by: act, expecting: epoch)
    }

    public func forget(_ id: OperationID, by act: OperatorAct, expecting epoch: Epoch?) async throws(StoreError) -> TransitionResult {
        try await engine.forget(id, by: act, expecting: epoch)
    }

    public func audit(after sequence: Int64, limit: Int) async throws(StoreError) -> [AuditEntry] {
        try await engine.audit(after: sequence, limit: limit)
    }

    public func policy(_ hash: PolicyHash) async throws(StoreError) -> PinnedPolicy? { try await engine.policies.policy(hash) }

    /// Looks at every key, from where the purge before ended.
    @discardableResult
    public func purge(limit: Int) async throws(StoreError) -> PurgeReport {
        var walk = walk.withLock { $0 }
        let report = try await engine.purge(limit: limit, from: &walk)
        self.walk.withLock { [walk] in $0 = walk }
        return report
    }

    /// Call this after restoring a backup, or after the server's clock was set back while no process of Semel ran: later
    /// epochs are then higher than any given before. Other processes take it over when they connect again.
    @discardableResult
    public func raiseIncarnation() async throws(StoreError) -> Incarnation { try await engine.raiseIncarnation() }

    public func health() async -> StoreHealth { await engine.health() }
}

extension RedisStore {
    /// Checks the servers now, as is done every ten seconds.
    package func lookAtServers() async { await engine.checkServers() }

    /// Removes everything under the store's prefix.
    package func erase() async throws(StoreError) { try await engine.erase() }

    /// Overwrites the stored state of a record, for tests of what a newer version may have written.
    package func plant(state: UInt8, in id: OperationID) async throws(StoreError) { try await engine.plant(state: state, in: id) }
}
