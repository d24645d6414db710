internal import HTTPTypes
internal import NIOCore
internal import NIOHTTP1
internal import SemelHTTP

/// Decides whether whoever sent a request may see what came of it.
enum ReplayAuthorizer: Sendable {
    /// Asks a service, with the client's own fields: 2xx allows; its 401 or 403 is passed on; anything else refuses for now.
    case subrequest(UpstreamClient, String)
    /// Whoever has a valid token may.
    case token

    private static let refusalLimit = 64 << 10

    var client: UpstreamClient? {
        if case .subrequest(let client, _) = self { client } else { nil }
    }

    /// The answer to send instead; `nil` when the request is allowed.
    /// - Parameter hasValidToken: `nil` where the scene verifies none. Where it does, no service is asked about a request
    ///   without one.
    func refusal(of head: HTTPRequestHead, _ fields: HTTPHeaders, hasValidToken: Bool?) async -> HTTPAnswer? {
        if hasValidToken == false { return Self.unauthenticated }
        switch self {
        case .token:
            return nil
        case .subrequest(let client, let target):
            var fields = fields
            fields.replaceOrAdd(name: "Host", value: client.upstream.authority)
            for name in ["content-type", "content-encoding", "idempotency-key"] { fields.remove(name: name) }
            fields.replaceOrAdd(name: "X-Forwarded-Method", value: head.method.rawValue)
            fields.replaceOrAdd(name: "X-Forwarded-Uri", value: head.uri)
            do {
                let response = try await client.send(UpstreamRequest(.GET, target, headers: fields))
                let body = try await response.collect(upTo: Self.refusalLimit)
                switch response.status.code {
                case 200..<300: return nil
                case 401, 403:
                    var kept = HTTPFields(ForwardedFields.response(response.headers))
                    kept[.contentLength] = nil
                    return HTTPAnswer(HTTPResponse(status: .init(code: Int(response.status.code)), headerFields: kept), .bytes(body ?? ByteBuffer()))
                default: return ProblemDocument.authorizationUnavailable.answer
                }
            } catch {
                return ProblemDocument.authorizationUnavailable.answer
            }
        }
    }

    /// For a token that is not valid.
    static let unauthenticated: HTTPAnswer = {
        var answer = ProblemDocument.unauthenticated.answer
        answer.head.headerFields[.wwwAuthenticate] = "Bearer"
        return answer
    }()
}
