public import Semel

/// Is told what the rules did, for metrics and logs. Called on the request's path: return at once.
public protocol HTTPObserver: Sendable {
    func observe(_ event: HTTPEvent, scene: Scene, operation: OperationID?)
}

/// What the rules did with a request.
public enum HTTPEvent: Sendable {
    /// A claim was granted. One of `recorded`, `released`, `suspended` and `unrecorded` follows.
    case started(Attempt)
    /// The outcome is recorded, and is replayed from now on.
    case recorded(status: Int, Attempt)
    /// Nothing was applied, or the level bears a second run: the key may run again.
    case released(status: Int, Attempt)
    /// Whether it was applied is unknown; nothing runs until it is resolved.
    case suspended(reason: String, Attempt)
    /// The attempt was superseded or its end could not be recorded.
    case unrecorded(reason: String, Attempt)
    case replayed(status: Int)
    case rejected(ProblemCode, status: Int)
    /// `mode: observe`: enforcing would have rejected it.
    case wouldReject(ProblemCode)
    /// `mode: observe`: enforcing would have replayed it.
    case wouldReplay
    /// It runs unprotected because the store cannot be reached.
    case degraded(StoreError)
    case storeFailed(StoreError)
}

/// Tells nobody.
public struct NoHTTPObserver: HTTPObserver {
    public init() {}
    public func observe(_ event: HTTPEvent, scene: Scene, operation: OperationID?) {}
}
