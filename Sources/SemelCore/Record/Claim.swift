/// A request to become the one who runs an operation.
public struct ClaimRequest: Hashable, Sendable {
    public var id: OperationID
    public var fingerprint: Fingerprint
    public var owner: Owner
    public var lease: Duration
    public var onLapse: LapseRule
    public var policy: PinnedPolicy
    public var mode: Mode
    public var retention: Retention
    /// The most live records the scope may hold; `nil` for no limit.
    public var liveLimit: Int?
    public var traceID: TraceID?
    public var parent: OperationReference?

    public init(
        id: OperationID, fingerprint: Fingerprint, owner: Owner, lease: Duration, onLapse: LapseRule,
        policy: PinnedPolicy, mode: Mode = .enforce, retention: Retention = .standard, liveLimit: Int? = nil,
        traceID: TraceID? = nil, parent: OperationReference? = nil
    ) {
        self.id = id
        self.fingerprint = fingerprint
        self.owner = owner
        self.lease = lease
        self.onLapse = onLapse
        self.policy = policy
        self.mode = mode
        self.retention = retention
        self.liveLimit = liveLimit
        self.traceID = traceID
        self.parent = parent
    }
}

/// What a claim was answered.
// Records are passed on as references: a suspended task keeps room for each copy that it may hold.
public enum ClaimResult: Hashable, Sendable {
    /// The caller holds the operation and must run it, or verify it first.
    case granted(Grant)
    /// Somebody else holds it.
    case inProgress(leaseRemaining: Duration)
    /// It ran; this is what came of it. The outcome may be without a body (``Outcome/isReplayable``).
    indirect case completed(Record)
    /// It ran; its outcome is no longer kept.
    case expired
    /// The key was used with another fingerprint. Reported in every state, before anything else.
    case mismatch
    /// Nobody knows whether it ran; it must be resolved. The record tells since when and why.
    indirect case uncertain(Record)
    /// The scope holds as many live keys as it may. Live keys are never evicted.
    case tooManyKeys
    /// The stored record is of a form this version does not know; nothing may run (H58).
    case unreadable(String)
}

/// The right to act on an operation, until its lease lapses and somebody else is granted a higher epoch.
public struct Grant: Hashable, Sendable {
    public enum Kind: Hashable, Sendable {
        /// The key was absent.
        case first
        /// The holder before let its lease lapse, and its effect may be run again.
        case reclaimed
        /// The holder before let its lease lapse, or left it uncertain: ask the target before running.
        case verify
        /// The caller's own claim, given again because its answer may have been lost.
        case again
    }

    public var kind: Kind
    public var token: FencingToken
    public var leaseRemaining: Duration
    public var attempt: UInt32
    /// When the last holder's right ended, for waiting out a bounded time in flight.
    public var previousChange: Timestamp?
    /// When the operation was first claimed.
    public var createdAt: Timestamp
    /// When this grant was given, on the store's retention clock.
    public var grantedAt: Timestamp
    /// The policy that holds for this operation: the one it was first claimed under.
    public var policy: PolicyHash
    /// The trace in which the operation was first claimed.
    public var traceID: TraceID?

    public init(
        kind: Kind, token: FencingToken, leaseRemaining: Duration, attempt: UInt32, previousChange: Timestamp? = nil,
        createdAt: Timestamp, grantedAt: Timestamp, policy: PolicyHash, traceID: TraceID? = nil
    ) {
        self.kind = kind
        self.token = token
        self.leaseRemaining = leaseRemaining
        self.attempt = attempt
        self.previousChange = previousChange
        self.createdAt = createdAt
        self.grantedAt = grantedAt
        self.policy = policy
        self.traceID = traceID
    }
}
