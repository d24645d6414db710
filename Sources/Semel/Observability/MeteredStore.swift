public import SemelCore

/// A store that counts what it is asked: claims by scene and answer, how long they took, and errors by kind. Everything
/// else passes through.
public struct MeteredStore: OperationStore {
    private let store: any OperationStore
    private let metrics: SemelMetrics
    private let storeMetrics: StoreMetrics
    private let uptime: @Sendable () -> Duration

    /// - Parameter uptime: the time since an arbitrary start, such as ``Environment/uptime``.
    public init(_ store: any OperationStore, metrics: SemelMetrics, uptime: @escaping @Sendable () -> Duration) {
        self.store = store
        self.metrics = metrics
        storeMetrics = metrics.store(store.capabilities.engine)
        self.uptime = uptime
    }

    public var capabilities: StoreCapabilities { store.capabilities }
    public var unwrapped: any OperationStore { store.unwrapped }

    public func claim(_ requests: [ClaimRequest]) async throws(StoreError) -> [ClaimResult] {
        let start = uptime()
        let results = try await counted { () async throws(StoreError) in try await store.claim(requests) }
        storeMetrics.claim(took: uptime() - start)
        count(results, of: requests)
        return results
    }

    // Not inlined: what it needs would be kept with every claim that waits.
    @inline(never)
    private func count(_ results: [ClaimResult], of requests: [ClaimRequest]) {
        for (request, result) in zip(requests, results) {
            metrics.scene(request.policy.scene).claimed(result.answer)
        }
    }

    public func apply(_ transitions: [Transition]) async throws(StoreError) -> [TransitionResult] {
        try await counted { () async throws(StoreError) in try await store.apply(transitions) }
    }

    public func record(of id: OperationID) async throws(StoreError) -> Record? {
        try await counted { () async throws(StoreError) in try await store.record(of: id) }
    }

    public func leaseRemaining(of record: Record) async throws(StoreError) -> Duration {
        try await counted { () async throws(StoreError) in try await store.leaseRemaining(of: record) }
    }

    public func observe(_ id: OperationID) -> Observation { store.observe(id) }

    public func verify(_ id: OperationID, owner: Owner, lease: Duration) async throws(StoreError) -> Grant? {
        try await counted { () async throws(StoreError) in try await store.verify(id, owner: owner, lease: lease) }
    }

    public func operations(_ query: OperationQuery) async throws(StoreError) -> OperationPage {
        try await counted { () async throws(StoreError) in try await store.operations(query) }
    }

    public func operation(_ reference: OperationReference) async throws(StoreError) -> StoredOperation? {
        try await counted { () async throws(StoreError) in try await store.operation(reference) }
    }

    public func resolve(
        _ id: OperationID, as resolution: Resolution, by act: OperatorAct, expecting epoch: Epoch?
    ) async throws(StoreError) -> TransitionResult {
        try await counted { () async throws(StoreError) in try await store.resolve(id, as: resolution, by: act, expecting: epoch) }
    }

    public func forget(_ id: OperationID, by act: OperatorAct, expecting epoch: Epoch?) async throws(StoreError) -> TransitionResult {
        try await counted { () async throws(StoreError) in try await store.forget(id, by: act, expecting: epoch) }
    }

    public func audit(after sequence: Int64, limit: Int) async throws(StoreError) -> [AuditEntry] {
        try await counted { () async throws(StoreError) in try await store.audit(after: sequence, limit: limit) }
    }

    public func policy(_ hash: PolicyHash) async throws(StoreError) -> PinnedPolicy? {
        try await counted { () async throws(StoreError) in try await store.policy(hash) }
    }

    public func purge(limit: Int) async throws(StoreError) -> PurgeReport {
        try await counted { () async throws(StoreError) in try await store.purge(limit: limit) }
    }

    public func health() async -> StoreHealth { await store.health() }

    private func counted<Value: Sendable>(_ work: () async throws(StoreError) -> Value) async throws(StoreError) -> Value {
        do {
            return try await work()
        } catch {
            storeMetrics.failed(error.code.description)
            throw error
        }
    }
}

extension ClaimResult {
    var answer: SceneMetrics.ClaimAnswer {
        switch self {
        case .granted(let grant):
            switch grant.kind {
            case .first: .claimed
            case .reclaimed: .reclaimed
            case .verify: .verify
            case .again: .again
            }
        case .inProgress: .inProgress
        case .completed: .completed
        case .expired: .expired
        case .mismatch: .mismatch
        case .uncertain: .uncertain
        case .tooManyKeys: .tooManyKeys
        case .unreadable: .unreadable
        }
    }
}
