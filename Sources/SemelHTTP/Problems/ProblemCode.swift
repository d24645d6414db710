/// What is wrong, for programs: the last part of a problem's `type`.
///
/// A client branches on `type`, so an application's own 409 or 422 is never mistaken for one of these.
public enum ProblemCode: String, Hashable, Sendable, CaseIterable {
    case keyMissing = "key-missing"
    case keyMalformed = "key-malformed"
    case bodyMalformed = "body-malformed"
    case requestTooLarge = "request-too-large"
    case keyReused = "key-reused"
    case inProgress = "in-progress"
    case outcomeUncertain = "outcome-uncertain"
    case outcomeExpired = "outcome-expired"
    case outcomeUnavailable = "outcome-unavailable"
    case tooLate = "too-late"
    case storeUnavailable = "store-unavailable"
    case scopeMissing = "scope-missing"
    case upstreamRefused = "upstream-refused"
    case upstreamLost = "upstream-lost"
    case tooManyKeys = "too-many-keys"

    public var type: String { "urn:semel:\(rawValue)" }

    /// The status it usually comes with.
    public var status: Int {
        switch self {
        case .keyMissing, .keyMalformed, .bodyMalformed: 400
        case .scopeMissing: 403
        case .inProgress, .outcomeUncertain, .outcomeExpired, .outcomeUnavailable: 409
        case .tooLate: 412
        case .requestTooLarge: 413
        case .keyReused: 422
        case .tooManyKeys: 429
        case .upstreamRefused, .upstreamLost: 502
        case .storeUnavailable: 503
        }
    }

    public var title: String {
        switch self {
        case .keyMissing: "This request needs an idempotency key"
        case .keyMalformed: "The idempotency key cannot be read"
        case .bodyMalformed: "The request's body cannot be read"
        case .requestTooLarge: "The request's body is too large"
        case .keyReused: "The key was used for another request"
        case .inProgress: "The first request with this key is still running"
        case .outcomeUncertain: "Whether the request was applied is unknown"
        case .outcomeExpired: "The request was applied; its response is no longer kept"
        case .outcomeUnavailable: "The request was applied; its response was not kept"
        case .tooLate: "The request is repeated too late"
        case .storeUnavailable: "Requests cannot be recorded at the moment"
        case .scopeMissing: "The request does not say whose key this is"
        case .upstreamRefused: "The service behind did not take the request"
        case .upstreamLost: "The service behind did not answer"
        case .tooManyKeys: "Too many unfinished requests"
        }
    }
}
