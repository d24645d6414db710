public import SemelCore

/// Keeps the records. What a store must do is defined by the store laws (`SemelTesting`), which every store passes on its
/// real engine.
///
/// - **Atomic claim.** Of any number of concurrent claims of one key exactly one is granted.
/// - **Fencing.** Every transition takes effect only while the record carries the caller's epoch and nonce.
/// - **Persist before reply.** An answer is given when what it says is as durable as ``capabilities`` declares.
/// - **The store's clock** decides leases and retentions.
///
/// Batches are the primitive: one is a batch of one. Items are answered in order, each by itself; an item may repeat the
/// key of an earlier one and then meets what that left. A batch is not a transaction: after an error, any of its items
/// may have taken effect (`StoreError.Code.indeterminate`), and the caller finds out by saying the same again.
///
/// Cancelling the calling task does not take back what was submitted.
public protocol OperationStore: Sendable {
    var capabilities: StoreCapabilities { get }

    /// The store that keeps the records: this one, or the one that this one only passes its calls on to.
    var unwrapped: any OperationStore { get }

    func claim(_ requests: [ClaimRequest]) async throws(StoreError) -> [ClaimResult]
    func apply(_ transitions: [Transition]) async throws(StoreError) -> [TransitionResult]

    /// The record as it stands now, or `nil` when the key is absent.
    func record(of id: OperationID) async throws(StoreError) -> Record?

    /// How long the lease of a record that was read here still runs, by the store's own clock (H9); not above zero once it
    /// has lapsed.
    func leaseRemaining(of record: Record) async throws(StoreError) -> Duration

    /// Begins to watch a key. What happens to its record after this call returns is not missed, so a caller that
    /// observes first and reads then loses no wake-up.
    func observe(_ id: OperationID) -> Observation

    /// Takes an uncertain or lapsed operation over for asking its target; the epoch rises first. `nil` when there is
    /// nothing to verify.
    func verify(_ id: OperationID, owner: Owner, lease: Duration) async throws(StoreError) -> Grant?

    // What operators and resolvers need.

    func operations(_ query: OperationQuery) async throws(StoreError) -> OperationPage
    func operation(_ reference: OperationReference) async throws(StoreError) -> StoredOperation?
    /// Decides about an uncertain operation; the audit entry is written in the same transaction.
    /// - Parameter epoch: that of the record the decision is about. It is compared in the same atomic step: when the record
    ///   is at another by then, nothing is changed or written, and the answer is *superseded*. `nil` decides about whatever
    ///   there is.
    func resolve(
        _ id: OperationID, as resolution: Resolution, by act: OperatorAct, expecting epoch: Epoch?
    ) async throws(StoreError) -> TransitionResult
    /// Lets a finished key run again; the audit entry is written in the same transaction.
    /// - Parameter epoch: as for ``resolve(_:as:by:expecting:)``.
    func forget(_ id: OperationID, by act: OperatorAct, expecting epoch: Epoch?) async throws(StoreError) -> TransitionResult
    func audit(after sequence: Int64, limit: Int) async throws(StoreError) -> [AuditEntry]
    /// The text of a policy that a record is pinned to.
    func policy(_ hash: PolicyHash) async throws(StoreError) -> PinnedPolicy?

    /// Removes what has outlived its retentions, at most about `limit` records. Never a live one.
    @discardableResult
    func purge(limit: Int) async throws(StoreError) -> PurgeReport

    /// Whether the store can take a claim now, and what is known about it.
    func health() async -> StoreHealth
}

extension OperationStore {
    public var unwrapped: any OperationStore { self }

    public func claim(_ request: ClaimRequest) async throws(StoreError) -> ClaimResult {
        try await claim([request])[0]
    }

    public func apply(_ change: Transition.Change, to id: OperationID, token: FencingToken) async throws(StoreError) -> TransitionResult {
        try await apply([Transition(id: id, token: token, change: change)])[0]
    }

    /// Decides about an uncertain operation, whatever epoch it is at.
    public func resolve(_ id: OperationID, as resolution: Resolution, by act: OperatorAct) async throws(StoreError) -> TransitionResult {
        try await resolve(id, as: resolution, by: act, expecting: nil)
    }

    /// Lets a finished key run again, whatever epoch it is at.
    public func forget(_ id: OperationID, by act: OperatorAct) async throws(StoreError) -> TransitionResult {
        try await forget(id, by: act, expecting: nil)
    }
}

public struct PurgeReport: Hashable, Sendable {
    /// Outcomes removed; their records became tombstones.
    public var outcomes: Int
    /// Keys forgotten.
    public var keys: Int

    public init(outcomes: Int, keys: Int) {
        self.outcomes = outcomes
        self.keys = keys
    }
}

public struct StoreHealth: Hashable, Sendable {
    public var isReady: Bool
    /// One sentence for a person: what is wrong and what to do, or what the store is.
    public var detail: String
    public var liveRecords: Int?

    public init(isReady: Bool, detail: String, liveRecords: Int? = nil) {
        self.isReady = isReady
        self.detail = detail
        self.liveRecords = liveRecords
    }
}
