public import Semel

/// A store for tests in front of another one: it says to be what a test needs, fails as it is told, and counts.
///
/// Without instructions every call goes through to ``inner`` unchanged. What it *says* of its durability is not so: levels
/// are those of the capabilities it was given, and its records are as durable as those of ``inner``.
public final class StoreDouble: OperationStore {
    /// What happens to the calls from now on.
    public struct Behaviour: Sendable {
        /// Thrown by every claim, of which nothing happens.
        public var claim: StoreError?
        /// Thrown by every call that applies transitions, of which nothing happens.
        public var apply: StoreError?
        /// Thrown by the next claims and transitions, one each, *after* they were done: their answers are lost.
        public var lostAnswers: [StoreError] = []
        /// Called with each transition before it is applied: for a zombie's view, and for races.
        public var beforeApply: (@Sendable (Transition) async -> Void)?
        /// Called once, between the next reading of a record and its answer.
        public var afterNextRead: (@Sendable (OperationID) async throws -> Void)?
        /// What the whole audit log is shown as.
        public var audit: (@Sendable ([AuditEntry]) -> [AuditEntry])?
        /// In place of the inner store's own.
        public var health: StoreHealth?

        public init() {}
    }

    public let inner: any OperationStore
    public let capabilities: StoreCapabilities
    private let behaviour: Locked<Behaviour>
    private let claimCount = Locked(0)

    /// - Parameter capabilities: in place of the inner store's own.
    public init(
        _ inner: any OperationStore = MemoryStore(), saying capabilities: StoreCapabilities? = nil,
        _ change: (inout Behaviour) -> Void = { _ in }
    ) {
        self.inner = inner
        self.capabilities = capabilities ?? inner.capabilities
        var initial = Behaviour()
        change(&initial)
        behaviour = Locked(initial)
    }

    /// A memory store that says to be durable, so that levels are those of production.
    public static func durable(clock: any StoreClock = SystemStoreClock(), isTransactional: Bool = false) -> StoreDouble {
        durable(MemoryStore(clock: clock), isTransactional: isTransactional)
    }

    /// A store that says to be durable.
    public static func durable(
        _ inner: any OperationStore, isTransactional: Bool = false, _ change: (inout Behaviour) -> Void = { _ in }
    ) -> StoreDouble {
        StoreDouble(inner, saying: StoreCapabilities(engine: "double", durability: .durable, isTransactional: isTransactional), change)
    }

    /// Changes what happens to the calls from now on.
    public func set(_ change: (inout Behaviour) -> Void) { behaviour.withLock { change(&$0) } }

    /// How many calls claimed something, those that failed included.
    public var claims: Int { claimCount.withLock { $0 } }

    /// Whether ``Behaviour/afterNextRead`` still waits for its reading.
    public var hasReadHook: Bool { behaviour.withLock { $0.afterNextRead != nil } }

    private func loseAnswer() throws(StoreError) {
        if let error = behaviour.withLock({ $0.lostAnswers.isEmpty ? nil : $0.lostAnswers.removeFirst() }) { throw error }
    }

    public func claim(_ requests: [ClaimRequest]) async throws(StoreError) -> [ClaimResult] {
        claimCount.withLock { $0 += 1 }
        if let error = behaviour.withLock({ $0.claim }) { throw error }
        let results = try await inner.claim(requests)
        try loseAnswer()
        return results
    }

    public func apply(_ transitions: [Transition]) async throws(StoreError) -> [TransitionResult] {
        // The hook may change what follows; this call goes by what was said before it.
        let (error, hook) = behaviour.withLock { ($0.apply, $0.beforeApply) }
        if let hook { for transition in transitions { await hook(transition) } }
        if let error { throw error }
        let results = try await inner.apply(transitions)
        try loseAnswer()
        return results
    }

    public func record(of id: OperationID) async throws(StoreError) -> Record? {
        let record = try await inner.record(of: id)
        let hook = behaviour.withLock { behaviour in
            defer { behaviour.afterNextRead = nil }
            return behaviour.afterNextRead
        }
        do { try await hook?(id) } catch { throw StoreError(.refused, "the test's own hook failed: \(error)", underlying: error) }
        return record
    }

    public func leaseRemaining(of record: Record) async throws(StoreError) -> Duration { try await inner.leaseRemaining(of: record) }

    public func observe(_ id: OperationID) -> Observation { inner.observe(id) }

    public func verify(_ id: OperationID, owner: Owner, lease: Duration) async throws(StoreError) -> Grant? {
        try await inner.verify(id, owner: owner, lease: lease)
    }

    public func operations(_ query: OperationQuery) async throws(StoreError) -> OperationPage { try await inner.operations(query) }

    public func operation(_ reference: OperationReference) async throws(StoreError) -> StoredOperation? {
        try await inner.operation(reference)
    }

    public func resolve(
        _ id: OperationID, as resolution: Resolution, by act: OperatorAct, expecting epoch: Epoch?
    ) async throws(StoreError) -> TransitionResult {
        try await inner.resolve(id, as: resolution, by: act, expecting: epoch)
    }

    public func forget(_ id: OperationID, by act: OperatorAct, expecting epoch: Epoch?) async throws(StoreError) -> TransitionResult {
        try await inner.forget(id, by: act, expecting: epoch)
    }

    public func audit(after sequence: Int64, limit: Int) async throws(StoreError) -> [AuditEntry] {
        guard let show = behaviour.withLock({ $0.audit }) else { return try await inner.audit(after: sequence, limit: limit) }
        let entries = show(try await inner.audit(after: 0, limit: .max))
        return Array(entries.filter { $0.sequence > sequence }.prefix(limit))
    }

    public func policy(_ hash: PolicyHash) async throws(StoreError) -> PinnedPolicy? { try await inner.policy(hash) }

    public func purge(limit: Int) async throws(StoreError) -> PurgeReport { try await inner.purge(limit: limit) }

    public func health() async -> StoreHealth {
        if let health = behaviour.withLock({ $0.health }) { return health }
        return await inner.health()
    }
}
