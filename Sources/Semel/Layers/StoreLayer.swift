public import SemelCore

/// A store in front of another that changes some of what it does: a layer writes down the calls it is about, and passes
/// all others through.
///
/// A layer must itself be a store: hold it to the store laws.
public protocol StoreLayer: OperationStore {
    associatedtype Base: OperationStore
    var base: Base { get }
}

extension StoreLayer {
    public var capabilities: StoreCapabilities { base.capabilities }

    public func claim(_ requests: [ClaimRequest]) async throws(StoreError) -> [ClaimResult] { try await base.claim(requests) }
    public func apply(_ transitions: [Transition]) async throws(StoreError) -> [TransitionResult] { try await base.apply(transitions) }
    public func record(of id: OperationID) async throws(StoreError) -> Record? { try await base.record(of: id) }
    public func leaseRemaining(of record: Record) async throws(StoreError) -> Duration { try await base.leaseRemaining(of: record) }
    public func observe(_ id: OperationID) -> Observation { base.observe(id) }
    public func verify(_ id: OperationID, owner: Owner, lease: Duration) async throws(StoreError) -> Grant? {
        try await base.verify(id, owner: owner, lease: lease)
    }
    public func operations(_ query: OperationQuery) async throws(StoreError) -> OperationPage { try await base.operations(query) }
    public func operation(_ reference: OperationReference) async throws(StoreError) -> StoredOperation? {
        try await base.operation(reference)
    }
    public func resolve(
        _ id: OperationID, as resolution: Resolution, by act: OperatorAct, expecting epoch: Epoch?
    ) async throws(StoreError) -> TransitionResult {
        try await base.resolve(id, as: resolution, by: act, expecting: epoch)
    }
    public func forget(_ id: OperationID, by act: OperatorAct, expecting epoch: Epoch?) async throws(StoreError) -> TransitionResult {
        try await base.forget(id, by: act, expecting: epoch)
    }
    public func audit(after sequence: Int64, limit: Int) async throws(StoreError) -> [AuditEntry] {
        try await base.audit(after: sequence, limit: limit)
    }
    public func policy(_ hash: PolicyHash) async throws(StoreError) -> PinnedPolicy? { try await base.policy(hash) }
    @discardableResult
    public func purge(limit: Int) async throws(StoreError) -> PurgeReport { try await base.purge(limit: limit) }
    public func health() async -> StoreHealth { await base.health() }
}

extension ClaimResult {
    /// Whether the store now has, or may have, a record for the key.
    var tellsOfRecord: Bool { if case .tooManyKeys = self { false } else { true } }
}
