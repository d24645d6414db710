import Semel

/// The memory store with the capabilities of one that is durable, so that levels are those of production; and with faults.
final class DurableStore: OperationStore {
    struct Faults {
        var claim: StoreError?
        var apply: StoreError?
        /// Changes what is applied: for a zombie's view, and for races.
        var beforeApply: (@Sendable (Transition) async -> Void)?
    }

    let memory: MemoryStore
    private let faults = Locked(Faults())
    let capabilities = StoreCapabilities(engine: "durable", durability: .durable, isTransactional: true)

    init(clock: any StoreClock = SystemStoreClock()) {
        memory = MemoryStore(clock: clock)
    }

    func set(_ change: (inout Faults) -> Void) { faults.withLock { change(&$0) } }

    func claim(_ requests: [ClaimRequest]) async throws(StoreError) -> [ClaimResult] {
        if let fault = faults.withLock({ $0.claim }) { throw fault }
        return try await memory.claim(requests)
    }

    func apply(_ transitions: [Transition]) async throws(StoreError) -> [TransitionResult] {
        let (fault, hook) = faults.withLock { ($0.apply, $0.beforeApply) }
        if let hook { for transition in transitions { await hook(transition) } }
        if let fault { throw fault }
        return try await memory.apply(transitions)
    }

    func record(of id: OperationID) async throws(StoreError) -> Record? { try await memory.record(of: id) }
    func leaseRemaining(of record: Record) async throws(StoreError) -> Duration { try await memory.leaseRemaining(of: record) }
    func observe(_ id: OperationID) -> Observation { memory.observe(id) }
    func verify(_ id: OperationID, owner: Owner, lease: Duration) async throws(StoreError) -> Grant? {
        try await memory.verify(id, owner: owner, lease: lease)
    }
    func operations(_ query: OperationQuery) async throws(StoreError) -> OperationPage { try await memory.operations(query) }
    func operation(_ reference: OperationReference) async throws(StoreError) -> StoredOperation? { try await memory.operation(reference) }
    func resolve(_ id: OperationID, as resolution: Resolution, by act: OperatorAct, expecting epoch: Epoch?) async throws(StoreError) -> TransitionResult {
        try await memory.resolve(id, as: resolution, by: act, expecting: epoch)
    }
    func forget(_ id: OperationID, by act: OperatorAct, expecting epoch: Epoch?) async throws(StoreError) -> TransitionResult {
        try await memory.forget(id, by: act, expecting: epoch)
    }
    func audit(after sequence: Int64, limit: Int) async throws(StoreError) -> [AuditEntry] { try await memory.audit(after: sequence, limit: limit) }
    func policy(_ hash: PolicyHash) async throws(StoreError) -> PinnedPolicy? { try await memory.policy(hash) }
    func purge(limit: Int) async throws(StoreError) -> PurgeReport { try await memory.purge(limit: limit) }
    func health() async -> StoreHealth { await memory.health() }
}

extension DurableStore {
    func record(_ key: String = "key-1", _ scope: String...) async throws -> Record? {
        try await record(of: OperationID(scope: Scope(parts: ["http"] + scope), key: try OperationKey(key)))
    }
}
