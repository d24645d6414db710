import Semel
import SemelTesting

/// A memory store that *says* what a test needs it to be, so that the levels of other stores can be tried without a disk;
/// that can be cut off, and that counts.
class StoreDouble: OperationStore, @unchecked Sendable {
    let inner: MemoryStore
    let isDown: Bool
    let capabilities: StoreCapabilities
    let claims = Locked(0)
    /// How many of the next answers to transitions get lost after they took effect.
    let lostAnswers = Locked(0)

    init(_ inner: MemoryStore, _ capabilities: StoreCapabilities, isDown: Bool = false) {
        self.inner = inner
        self.isDown = isDown
        self.capabilities = capabilities
    }

    private func check() throws(StoreError) {
        if isDown { throw StoreError(.unavailable, "cut off by the test") }
    }

    func claim(_ requests: [ClaimRequest]) async throws(StoreError) -> [ClaimResult] {
        try check()
        claims.withLock { $0 += 1 }
        return try await inner.claim(requests)
    }

    func apply(_ transitions: [Transition]) async throws(StoreError) -> [TransitionResult] {
        try check()
        let results = try await inner.apply(transitions)
        let isLost = lostAnswers.withLock { count in
            defer { count = max(0, count - 1) }
            return count > 0
        }
        if isLost { throw StoreError(.indeterminate, "the answer was lost by the test") }
        return results
    }

    func record(of id: OperationID) async throws(StoreError) -> Record? { try await inner.record(of: id) }
    func leaseRemaining(of record: Record) async throws(StoreError) -> Duration { try await inner.leaseRemaining(of: record) }
    func observe(_ id: OperationID) -> Observation { inner.observe(id) }
    func verify(_ id: OperationID, owner: Owner, lease: Duration) async throws(StoreError) -> Grant? {
        try await inner.verify(id, owner: owner, lease: lease)
    }
    func operations(_ query: OperationQuery) async throws(StoreError) -> OperationPage { try await inner.operations(query) }
    func operation(_ reference: OperationReference) async throws(StoreError) -> StoredOperation? { try await inner.operation(reference) }
    func resolve(_ id: OperationID, as resolution: Resolution, by act: OperatorAct, expecting epoch: Epoch?) async throws(StoreError) -> TransitionResult {
        try await inner.resolve(id, as: resolution, by: act, expecting: epoch)
    }
    func forget(_ id: OperationID, by act: OperatorAct, expecting epoch: Epoch?) async throws(StoreError) -> TransitionResult {
        try await inner.forget(id, by: act, expecting: epoch)
    }
    func audit(after sequence: Int64, limit: Int) async throws(StoreError) -> [AuditEntry] { try await inner.audit(after: sequence, limit: limit) }
    func policy(_ hash: PolicyHash) async throws(StoreError) -> PinnedPolicy? { try await inner.policy(hash) }
    func purge(limit: Int) async throws(StoreError) -> PurgeReport { try await inner.purge(limit: limit) }
    func health() async -> StoreHealth { await inner.health() }
}

final class DurableInName: StoreDouble, @unchecked Sendable {
    init(_ inner: MemoryStore, isDown: Bool = false) {
        super.init(inner, StoreCapabilities(engine: "double", durability: .durable, isTransactional: false), isDown: isDown)
    }
}

final class TransactionalInName: StoreDouble, @unchecked Sendable {
    init(_ inner: MemoryStore) {
        super.init(inner, StoreCapabilities(engine: "double", durability: .durable, isTransactional: true))
    }
}

final class CountingStore: StoreDouble, @unchecked Sendable {
    init(_ inner: MemoryStore) { super.init(inner, inner.capabilities) }
}

/// A store clock that is moved by hand.
final class SteppedStoreClock: StoreClock {
    private let time = Locked(Timestamp(microseconds: 1_700_000_000_000_000))

    func now() -> StoreTime { StoreTime(time.withLock { $0 }) }

    func advance(by duration: Duration) {
        time.withLock { $0 = $0 + duration }
    }
}
