/// A change the holder of a claim asks for. It happens only while the record still carries the holder's epoch and nonce.
public struct Transition: Hashable, Sendable {
    public enum Change: Hashable, Sendable {
        /// Record what came of it. Said twice with the same outcome, it is applied once and answered *applied* both times.
        case complete(Outcome, retention: Retention? = nil)
        /// Forget the claim. Only for an effect that is *proven not applied*.
        case release
        /// Leave the record uncertain, and say why.
        case suspend(reason: String)
        /// The response is too large to keep; from here on only *complete* or *suspend* may follow.
        case stream
        /// Keep the lease alive for this long from now.
        case renew(Duration)
        /// The target was asked and the effect had not happened: run it, under the epoch of the verification.
        case proceed(lease: Duration)
    }

    public var id: OperationID
    public var token: FencingToken
    public var change: Change

    public init(id: OperationID, token: FencingToken, change: Change) {
        self.id = id
        self.token = token
        self.change = change
    }
}

/// Whether a transition took effect.
public enum TransitionResult: Hashable, Sendable {
    case applied
    /// The record is no longer the caller's, or is in a state that does not allow the change: nothing was changed.
    case superseded
}

/// What an operator or a resolver found out about an uncertain operation.
public enum Resolution: Hashable, Sendable {
    /// The effect happened; the outcome when it is known.
    case applied(Outcome?)
    /// The effect did not happen: the key may run once more.
    case notApplied
}
