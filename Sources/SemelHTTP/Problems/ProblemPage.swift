public import HTTPTypes
internal import NIOCore

/// The page of documentation of a problem code: what happened, and what clients and operators do about it.
public struct ProblemPage: Sendable {
    /// Where Semel serves the pages itself; see ``HTTPPolicy/problemPages``.
    public static let defaultPrefix = "/.well-known/semel/problems/"

    public let code: ProblemCode

    public init(_ code: ProblemCode) {
        self.code = code
    }

    /// The page in Markdown; `docs/problems` holds the same.
    public var markdown: String {
        """
        # \(code.title)

        `\(code.type)` · usual status \(code.status)

        ## What happened

        \(explanation)

        ## What a client does

        \(advice)

        ## What an operator does

        \(operation)

        """
    }

    /// The page that a request asks for; `nil` for all other requests.
    public static func answer(to request: HTTPRequest) -> HTTPAnswer? {
        guard request.method == .get || request.method == .head else { return nil }
        let path = request.pathWithoutQuery
        guard path.hasPrefix(defaultPrefix), let code = ProblemCode(rawValue: String(path.dropFirst(defaultPrefix.count))) else { return nil }
        let fields: HTTPFields = [.contentType: "text/markdown; charset=utf-8", .cacheControl: "public, max-age=3600"]
        let body = ByteBuffer(string: ProblemPage(code).markdown)
        return HTTPAnswer(HTTPResponse(status: .ok, headerFields: fields), .bytes(body))
    }

    private var explanation: String {
        switch code {
        case .keyMissing:
            "The route requires an idempotency key, and the request has none. Nothing was run."
        case .keyMalformed:
            "The key could not be read. A key is exactly one `Idempotency-Key` field with one quoted string (an RFC 8941 String) of 1 to 255 printable ASCII characters, such as `Idempotency-Key: \"8e03978e-40d5-43dd-bc93-6894a57f9324\"`. Two fields, a list, a missing quote, control characters and the empty string are refused, and so is a `Repeatability-First-Sent` that is no HTTP-date. Nothing was run."
        case .bodyMalformed:
            "The route compares bodies by their JSON content, and this one is not JSON, repeats a name within one object, or is not in the content coding it names. Nothing was run."
        case .requestTooLarge:
            "The body is larger than the route compares. A body that was not compared in full is never let through, because another request could then be taken for a repetition of it. Nothing was run, and the connection is closed."
        case .keyReused:
            "The key was used before, for a request with another method, path, query, media type or body. This is reported whatever became of that request. This request was not run."
        case .inProgress:
            "The first request with this key has not finished. This one was not run."
        case .outcomeUncertain:
            "The request was started, and whether it was applied is unknown: its process was lost, the service behind did not answer, or what it answered could not be recorded. Nothing runs under this key until that is resolved. (With status 503 the record could not be written or read just now, and may say more a moment later.)"
        case .outcomeExpired:
            "The request was applied. Its response was kept for a while and is gone; the key is still remembered, so that the request is not run again."
        case .outcomeUnavailable:
            "The request was applied. Its response was not kept, because it was larger than the route keeps, was a stream of events, or became known only as the fact that the request was applied. The detail gives status, length and SHA-256 of the response where they are known."
        case .tooLate:
            "The request says itself when it was first sent (by `Repeatability-First-Sent`, or by a key that Semel issued), and that is longer ago than keys are remembered. It may have been applied and forgotten, so it is not run."
        case .storeUnavailable:
            "The store that remembers requests cannot be reached, is full, or holds something under this key that this version cannot read. A request that cannot be recorded is not run."
        case .scopeMissing:
            "Keys belong to whoever sends them, so that nobody meets another one's response. The request does not carry the identity that the route needs for that, or carries it more than once. Nothing was run."
        case .upstreamRefused:
            "The service behind could not be connected to, or the connection failed before the first byte of the request was written. Nothing was sent, and the key was given back."
        case .upstreamLost:
            "The request was sent to the service behind, and the response did not come, or not all of it. The request may have been applied."
        case .tooManyKeys:
            "As many requests as the tenant may have are running or uncertain. Unfinished requests are never forgotten to make room. This one was not run."
        }
    }

    private var advice: String {
        switch code {
        case .keyMissing: "Make a random key (a UUID) for each new request, keep it with the request, and send the same key whenever the request is repeated."
        case .keyMalformed: "Correct how the key is written, and send the request again."
        case .bodyMalformed: "Correct the body, and send the request again."
        case .requestTooLarge: "Send a smaller body."
        case .keyReused: "To repeat a request, send it byte for byte as it was. For a new request make a new key. If a repetition differs by accident (a time stamp, a trace number in the body), do not answer with a new key: that could apply it twice."
        case .inProgress: "Wait for the time of `Retry-After`, and repeat the request with the same key; it then gets the response of the first one."
        case .outcomeUncertain: "Keep the key. Repeat the request later with the same key: once the outcome is resolved, the response tells it. Do not make a new key; the `operation` of the problem identifies the case to support."
        case .outcomeExpired, .outcomeUnavailable: "Do not send it again with a new key: it was applied. Read the resource it created or changed."
        case .tooLate: "Find out whether the request was applied, for instance by reading the resource. Only if it was not, send it with a new key."
        case .storeUnavailable: "Wait for the time of `Retry-After`, and repeat the request with the same key."
        case .scopeMissing: "Send the credentials or the field that identifies the caller, and repeat the request with the same key."
        case .upstreamRefused: "Repeat the request with the same key. When `safe_new_key` is true, a new key is safe too."
        case .upstreamLost: "Repeat the request with the same key. Where the route's level allows, it runs again or is verified; otherwise the answer is `outcome-uncertain` until it is resolved."
        case .tooManyKeys: "Send fewer requests at once, and repeat this one later with the same key."
        }
    }

    private var operation: String {
        switch code {
        case .keyMissing: "Set `key: { required: false }` if requests without a key may run unprotected."
        case .keyMalformed: "For clients that cannot quote, set `key: { syntax: lenient }`."
        case .bodyMalformed: "Set `fingerprint: { body: raw }` if bodies need not be JSON."
        case .requestTooLarge: "Raise `limits: { request: … }` if such bodies are wanted."
        case .keyReused: "If clients change something harmless at each attempt, compare only what matters: `fingerprint: { body: json }`, or `select`."
        case .inProgress: "To let repetitions wait for the response, set `onConcurrent: { wait: 10s, waiters: 100 }`."
        case .outcomeUncertain: "Ask the service whether the operation was applied, and tell it: `semel ops list --state uncertain`, `semel ops resolve`. A service that can be asked by key resolves such cases by itself (`effect: queryable`)."
        case .outcomeExpired: "Raise `retention: { response: … }` if clients repeat requests later than this."
        case .outcomeUnavailable: "Raise `limits: { response: … }` if such responses should be replayed."
        case .tooLate: "Raise `retention: { key: … }` if requests are repeated later than this."
        case .storeUnavailable: "Look at `/readyz` for what is wrong with the store. `onStoreFailure: fallback` would let a second store decide meanwhile, and `open` would run requests unprotected, both at a lower level."
        case .scopeMissing: "Check that what authenticates requests stands in front, and passes the identity on."
        case .upstreamRefused: "Check that the service runs and can be reached."
        case .upstreamLost: "Check the service's health and its time-outs. Declare what it can do (`effect: deduplicates` or `queryable`), so that lost requests need no person."
        case .tooManyKeys: "Resolve uncertain operations (`semel ops list --state uncertain`), or raise `limits: { liveKeys: … }`."
        }
    }
}
