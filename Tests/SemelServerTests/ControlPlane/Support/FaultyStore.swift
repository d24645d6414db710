import Semel

/// A memory store whose audit log somebody has changed, whose answers are lost, or which cannot be reached; on request with
/// the capabilities of one that is durable, so that levels are those of production.
final class FaultyStore: OperationStore {
    let inner: MemoryStore
    private let tamper: @Sendable ([AuditEntry]) -> [AuditEntry]
    private let failures: Locked<[StoreError]>
    private let outage = Locked<StoreError?>(nil)
    private let isDurable: Bool
    private let readHook = Locked<(@Sendable (OperationID) async throws -> Void)?>(nil)

    /// - Parameter failures: thrown by the next claims and changes, *after* they were done.
    init(
        _ inner: MemoryStore = MemoryStore(), isDurable: Bool = false, failures: [StoreError] = [], tamper: @escaping @Sendable ([AuditEntry]) -> [AuditEntry] = { $0 }
    ) {
        self.inner = inner
        self.isDurable = isDurable
        self.failures = Locked(failures)
        self.tamper = tamper
    }

    var capabilities: StoreCapabilities {
        isDurable ? StoreCapabilities(engine: "durable", durability: .durable, isTransactional: true) : inner.capabilities
    }

    /// From now on nothing can be claimed or changed, until it is called with `nil`.
    func fail(with error: StoreError?) { outage.withLock { $0 = error } }

    private func loseAnswer() throws(StoreError) {
        if let failure = failures.withLock({ $0.isEmpty ? nil : $0.removeFirst() }) { throw failure }
    }

    func claim(_ requests: [ClaimRequest]) async throws(StoreError) -> [ClaimResult] {
        if let outage = outage.withLock({ $0 }) { throw outage }
        let results = try await inner.claim(requests)
        try loseAnswer()
        return results
    }

    func apply(_ transitions: [Transition]) async throws(StoreError) -> [TransitionResult] {
        if let outage = outage.withLock({ $0 }) { throw outage }
        let results = try await inner.apply(transitions)
        try loseAnswer()
        return results
    }

    func record(of id: OperationID) async throws(StoreError) -> Record? {
        let record = try await inner.record(of: id)
        let hook = readHook.withLock { hook in
            defer { hook = nil }
            return hook
        }
        try? await hook?(id)
        return record
    }

    /// Does something once, between the next reading of a record and its answer.
    func afterNextRead(_ hook: @escaping @Sendable (OperationID) async throws -> Void) { readHook.withLock { $0 = hook } }

    var hasReadHook: Bool { readHook.withLock { $0 != nil } }

    func leaseRemaining(of record: Record) async throws(StoreError) -> Duration { try await inner.leaseRemaining(of: record) }
    func observe(_ id: OperationID) -> Observation { inner.observe(id) }
    func verify(_ id: OperationID, owner: Owner, lease: Duration) async throws(StoreError) -> Grant? {
        try await inner.verify(id, owner: owner, lease: lease)
    }
    func operations(_ query: OperationQuery) async throws(StoreError) -> OperationPage { try await inner.operations(query) }
    func operation(_ reference: OperationReference) async throws(StoreError) -> StoredOperation? { try await inner.operation(reference) }
    func resolve(_ id: OperationID, as resolution: Resolution, by act: OperatorAct) async throws(StoreError) -> TransitionResult {
        try await inner.resolve(id, as: resolution, by: act)
    }
    func forget(_ id: OperationID, by act: OperatorAct) async throws(StoreError) -> TransitionResult { try await inner.forget(id, by: act) }
    func audit(after sequence: Int64, limit: Int) async throws(StoreError) -> [AuditEntry] {
        let entries = tamper(try await inner.audit(after: 0, limit: .max))
        return Array(entries.filter { $0.sequence > sequence }.prefix(limit))
    }
    func policy(_ hash: PolicyHash) async throws(StoreError) -> PinnedPolicy? { try await inner.policy(hash) }
    func purge(limit: Int) async throws(StoreError) -> PurgeReport { try await inner.purge(limit: limit) }
    func health() async -> StoreHealth { await inner.health() }
}
