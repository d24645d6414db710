public import Semel

/// A store that can be cut off from its users, for tests of what stands in front of it.
public final class InterruptibleStore<Base: OperationStore>: StoreLayer {
    public enum Connection: Hashable, Sendable {
        case up
        /// Nothing reaches the store.
        case down
        /// Everything reaches the store, and no answer comes back.
        case losesAnswers
    }

    public let base: Base
    private let connection = Locked(Connection.up)
    private let declared: StoreCapabilities?
    private let refusals = Locked(0)

    /// - Parameter capabilities: what it says of itself; by default what the base does.
    public init(_ base: Base, declaring capabilities: StoreCapabilities? = nil) {
        self.base = base
        declared = capabilities
    }

    public func set(_ connection: Connection) { self.connection.withLock { $0 = connection } }

    /// How many calls were cut off: a fault test must see that its fault fired.
    public var interruptions: Int { refusals.withLock { $0 } }

    public var capabilities: StoreCapabilities { declared ?? base.capabilities }

    private func through<Value>(_ body: () async throws(StoreError) -> Value) async throws(StoreError) -> Value {
        let connection = connection.withLock { $0 }
        if connection != .up { refusals.withLock { $0 += 1 } }
        if connection == .down { throw StoreError(.unavailable, "cut off by the test") }
        let value = try await body()
        if connection == .losesAnswers { throw StoreError(.indeterminate, "the answer was cut off by the test") }
        return value
    }

    public func claim(_ requests: [ClaimRequest]) async throws(StoreError) -> [ClaimResult] {
        try await through { () async throws(StoreError) in try await base.claim(requests) }
    }
    public func apply(_ transitions: [Transition]) async throws(StoreError) -> [TransitionResult] {
        try await through { () async throws(StoreError) in try await base.apply(transitions) }
    }
    public func record(of id: OperationID) async throws(StoreError) -> Record? {
        try await through { () async throws(StoreError) in try await base.record(of: id) }
    }
    public func leaseRemaining(of record: Record) async throws(StoreError) -> Duration {
        try await through { () async throws(StoreError) in try await base.leaseRemaining(of: record) }
    }
    public func verify(_ id: OperationID, owner: Owner, lease: Duration) async throws(StoreError) -> Grant? {
        try await through { () async throws(StoreError) in try await base.verify(id, owner: owner, lease: lease) }
    }
    public func operations(_ query: OperationQuery) async throws(StoreError) -> OperationPage {
        try await through { () async throws(StoreError) in try await base.operations(query) }
    }
    public func operation(_ reference: OperationReference) async throws(StoreError) -> StoredOperation? {
        try await through { () async throws(StoreError) in try await base.operation(reference) }
    }
    public func resolve(
        _ id: OperationID, as resolution: Resolution, by act: OperatorAct, expecting epoch: Epoch?
    ) async throws(StoreError) -> TransitionResult {
        try await through { () async throws(StoreError) in try await base.resolve(id, as: resolution, by: act, expecting: epoch) }
    }
    public func forget(_ id: OperationID, by act: OperatorAct, expecting epoch: Epoch?) async throws(StoreError) -> TransitionResult {
        try await through { () async throws(StoreError) in try await base.forget(id, by: act, expecting: epoch) }
    }
    public func audit(after sequence: Int64, limit: Int) async throws(StoreError) -> [AuditEntry] {
        try await through { () async throws(StoreError) in try await base.audit(after: sequence, limit: limit) }
    }
    public func policy(_ hash: PolicyHash) async throws(StoreError) -> PinnedPolicy? {
        try await through { () async throws(StoreError) in try await base.policy(hash) }
    }
    public func purge(limit: Int) async throws(StoreError) -> PurgeReport {
        try await through { () async throws(StoreError) in try await base.purge(limit: limit) }
    }
    public func health() async -> StoreHealth {
        guard connection.withLock({ $0 }) == .up else { return StoreHealth(isReady: false, detail: "cut off by the test") }
        return await base.health()
    }
}

extension InterruptibleStore: RelocatableStore where Base: RelocatableStore {
    public func relocatable(
        where isIncluded: @escaping @Sendable (OperationID) -> Bool, after cursor: String?, limit: Int
    ) async throws(StoreError) -> RelocationPage {
        try await through { () async throws(StoreError) in try await base.relocatable(where: isIncluded, after: cursor, limit: limit) }
    }
    public func relocatable(_ ids: [OperationID]) async throws(StoreError) -> [RelocatableRecord] {
        try await through { () async throws(StoreError) in try await base.relocatable(ids) }
    }
    public func adopt(_ records: [RelocatableRecord], above floor: Epoch) async throws(StoreError) {
        try await through { () async throws(StoreError) in try await base.adopt(records, above: floor) }
    }
    public func relinquish(_ ids: [OperationID]) async throws(StoreError) {
        try await through { () async throws(StoreError) in try await base.relinquish(ids) }
    }
    public func highestEpoch() async throws(StoreError) -> Epoch {
        try await through { () async throws(StoreError) in try await base.highestEpoch() }
    }
}
