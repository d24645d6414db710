/// Where an operation stands. *Absent* is the lack of a record; *tombstone* is a completed record without its outcome.
public enum RecordState: UInt8, Sendable, CaseIterable {
    /// Somebody holds it and may be at work.
    case claimed = 1
    /// Somebody holds it and is asking the target whether the last holder's effect happened.
    case verifying = 2
    /// The response is too large to keep and is being sent.
    case streaming = 3
    /// Whether the effect happened is unknown; nothing runs until it is resolved.
    case uncertain = 4
    /// Finished; the outcome is kept until the response retention ends, the fact until the key retention ends.
    case completed = 5
}

/// What becomes of a claim whose lease lapsed, fixed when it was claimed.
public enum LapseRule: UInt8, Sendable, CaseIterable {
    /// The next claimant runs, under a higher epoch: the target can bear a second run.
    case reclaim = 1
    /// The next claimant asks the target first, under a higher epoch.
    case verify = 2
    /// Nobody runs: the record becomes uncertain.
    case uncertain = 3
}

/// How a policy treats the operations it covers.
public enum Mode: UInt8, Sendable, CaseIterable {
    /// Passes through; nothing is recorded.
    case off = 0
    /// Records and counts what enforcing would have done, and lets every request through.
    case observe = 1
    case enforce = 2
}

/// How long a record answers: with its outcome, and after that with the bare fact that the key was used.
public struct Retention: Hashable, Sendable {
    /// From completion; until then the outcome is replayed.
    public var response: Duration
    /// From completion; until then the key cannot run again. Never shorter than ``response``.
    public var key: Duration

    public init(response: Duration, key: Duration) {
        self.response = response
        self.key = max(response, key)
    }

    public static let standard = Retention(response: .seconds(24 * 3600), key: .seconds(30 * 24 * 3600))
}

/// What a store keeps for one key: everything the rules need to decide about the next request.
///
/// A value: it is changed only by ``RecordMachine``, and only through an epoch.
public struct Record: Hashable, Sendable {
    public var state: RecordState
    public var epoch: Epoch
    public var owner: Owner
    public var fingerprint: Fingerprint
    /// The policy in force when the key was first claimed; a reload does not change it (H57).
    public var policy: PolicyHash
    public var mode: Mode
    public var onLapse: LapseRule
    public var retention: Retention
    /// How often the operation was started.
    public var attempt: UInt32
    /// On the store's lease clock: until when its holder is left alone. In an uncertain record, when the last holder's right
    /// to send anything ended, from which a bounded time in flight is waited out. Meaningless once the record is completed.
    public var leaseUntil: Timestamp
    public var createdAt: Timestamp
    /// When the state was last entered; the retentions of a completed record count from here.
    public var changedAt: Timestamp
    public var traceID: TraceID?
    /// The operation this one belongs to (a saga, a batch).
    public var parent: OperationReference?
    /// Why the record is uncertain.
    public var reason: String?
    /// `nil` unless completed, and once the response retention has ended.
    public var outcome: Outcome?

    public init(
        state: RecordState, epoch: Epoch, owner: Owner, fingerprint: Fingerprint, policy: PolicyHash, mode: Mode,
        onLapse: LapseRule, retention: Retention, attempt: UInt32, leaseUntil: Timestamp, createdAt: Timestamp,
        changedAt: Timestamp, traceID: TraceID? = nil, parent: OperationReference? = nil, reason: String? = nil,
        outcome: Outcome? = nil
    ) {
        self.state = state
        self.epoch = epoch
        self.owner = owner
        self.fingerprint = fingerprint
        self.policy = policy
        self.mode = mode
        self.onLapse = onLapse
        self.retention = retention
        self.attempt = attempt
        self.leaseUntil = leaseUntil
        self.createdAt = createdAt
        self.changedAt = changedAt
        self.traceID = traceID
        self.parent = parent
        self.reason = reason
        self.outcome = outcome
    }

    public var token: FencingToken { FencingToken(epoch: epoch, owner: owner) }

    /// Claimed, verifying, streaming or uncertain: never removed by retention, and counted against the tenant's limit.
    public var isLive: Bool { state != .completed }

    /// When the outcome stops being replayed.
    public var responseUntil: Timestamp { changedAt + retention.response }

    /// When the key is forgotten.
    public var keyUntil: Timestamp { changedAt + retention.key }
}

/// A W3C trace id.
public struct TraceID: Hashable, Sendable {
    public let high: UInt64
    public let low: UInt64

    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }
}

/// The first 128 bits of the SHA-256 of a policy's canonical text; stores keep the text by it.
public struct PolicyHash: Hashable, Sendable {
    public let high: UInt64
    public let low: UInt64

    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }
}
