public import SemelCore

/// A store whose records can be moved into another of its kind as they are: epoch, nonce, times and outcome.
///
/// For moving a range of keys between shards (``Sharded/move(_:to:)``). These calls decide nothing and are not audited:
/// whoever makes them sees to it that nobody works on those keys meanwhile, and that a key is never in use in two stores.
public protocol RelocatableStore: OperationStore {
    /// A page of all records whose key is included, oldest change first.
    /// - Throws: `damaged` when one of them cannot be read: it must not be left behind in silence (H58).
    func relocatable(
        where isIncluded: @escaping @Sendable (OperationID) -> Bool, after cursor: String?, limit: Int
    ) async throws(StoreError) -> RelocationPage

    /// The records of these keys, as far as they have any.
    func relocatable(_ ids: [OperationID]) async throws(StoreError) -> [RelocatableRecord]

    /// Keeps records, each in place of whatever is under its key. Every later epoch is above `floor`, the
    /// ``highestEpoch()`` of where they come from, and above those of the records.
    func adopt(_ records: [RelocatableRecord], above floor: Epoch) async throws(StoreError)

    /// Removes whatever is under these keys: their records live elsewhere now.
    func relinquish(_ ids: [OperationID]) async throws(StoreError)

    /// No epoch above this one was given so far.
    func highestEpoch() async throws(StoreError) -> Epoch
}

/// A record on its way from one store to another.
public struct RelocatableRecord: Hashable, Sendable {
    public var id: OperationID
    public var record: Record
    public var policy: PinnedPolicy
    /// What is left of its lease, because stores have lease clocks of their own. Not above zero once it has lapsed.
    public var leaseRemaining: Duration

    public init(id: OperationID, record: Record, policy: PinnedPolicy, leaseRemaining: Duration) {
        self.id = id
        self.record = record
        self.policy = policy
        self.leaseRemaining = leaseRemaining
    }

    /// The record as another store keeps it.
    public func record(at now: StoreTime) -> Record {
        var record = record
        record.leaseUntil = record.state == .completed ? .distantPast : now.lease + leaseRemaining
        return record
    }
}

public struct RelocationPage: Sendable {
    public var records: [RelocatableRecord]
    /// `nil` when there are no more.
    public var cursor: String?

    public init(records: [RelocatableRecord], cursor: String?) {
        self.records = records
        self.cursor = cursor
    }
}
