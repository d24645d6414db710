public import HTTPTypes
public import Semel

/// One request under a policy, and what the surface that received it knows and can do.
// A class, because every step of answering a request passes it on, and it is large.
public final class HTTPExchange: Sendable {
    public let request: HTTPRequest
    /// The verified identity whose keys these are, for a policy whose scope is a token's claim or the application's word;
    /// `nil` when it is missing. Never a credential: it must be the same for a retry.
    public let identity: String?
    /// The span of this request; `nil` for the current task's. While the request is answered it is ``TraceContext/current``.
    public let trace: TraceContext?
    public let parent: OperationReference?
    /// Asked before the key is looked up; an answer is sent instead of everything else, so that nobody sees a replay, or a
    /// conflict, that is not meant for them (H39, H42).
    public let authorize: (@Sendable (HTTPRequest) async -> HTTPAnswer?)?
    /// For an effect that can be asked: whether it happened, and with what outcome where that is known. Called once nothing
    /// of the last holder can still be under way.
    public let verify: (@Sendable (Attempt) async throws -> Verification<Outcome?>)?
    /// Waits until nothing of the last holder can still be under way, by the rules the operation was claimed under (H57);
    /// ``Scene/waitOutFlight(of:)`` when `nil`. For a surface that pins more than a ``Policy``.
    public let waitOutFlight: (@Sendable (Attempt) async throws -> Void)?
    /// Waits for the handler's turn, for a surface that lets only so many run at a time. Called once the operation is claimed
    /// and before its handler is called, unless the target is asked first: then the handler has to wait by itself. The
    /// handler's own task is not made before it returns, so requests that wait for their turn are cheap.
    public let admission: (@Sendable () async -> Void)?

    public init(
        _ request: HTTPRequest, identity: String? = nil, trace: TraceContext? = nil, parent: OperationReference? = nil,
        authorize: (@Sendable (HTTPRequest) async -> HTTPAnswer?)? = nil,
        verify: (@Sendable (Attempt) async throws -> Verification<Outcome?>)? = nil,
        waitOutFlight: (@Sendable (Attempt) async throws -> Void)? = nil, admission: (@Sendable () async -> Void)? = nil
    ) {
        self.request = request
        self.identity = identity
        self.trace = trace
        self.parent = parent
        self.authorize = authorize
        self.verify = verify
        self.waitOutFlight = waitOutFlight
        self.admission = admission
    }
}

/// What a handler is given to run.
public struct HTTPRun: Sendable {
    /// The request's body, as often as it is needed.
    public let body: SpooledBody
    /// The operation, where the request has a key: for deriving a key for a target that deduplicates.
    public let id: OperationID?
    /// The claim under which the handler runs; `nil` where it runs unprotected (no key, `mode: observe` on a repeated key,
    /// or `onStoreFailure: open` while the store is down).
    public let attempt: Attempt?
}
