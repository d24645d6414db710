internal import HTTPTypes
internal import NIOCore
internal import NIOHTTP1
internal import SemelHTTP

/// A problem (RFC 9457) that has nothing to do with a scene: a request that cannot be read or has nowhere to go.
/// Problems of scenes are `HTTPProblem`s.
struct ProblemDocument {
    let status: Int
    /// The last part of the problem's type.
    let code: String
    let title: String
    let detail: String
    /// True only where nothing was sent on.
    var isSafeForNewKey = true

    static func ambiguousPath(_ detail: String) -> ProblemDocument {
        ProblemDocument(status: 400, code: "path-ambiguous", title: "The path can be read in more than one way", detail: detail)
    }

    static let noRoute = ProblemDocument(
        status: 404, code: "no-route", title: "There is nothing behind this path",
        detail: "No scene matches the request, and there is no upstream for requests without one.")

    static let unauthenticated = ProblemDocument(
        status: 401, code: "unauthenticated", title: "The token is missing or not valid",
        detail: "The JSON Web Token of the request is missing, expired, or not one that is accepted here. Nothing was run.")

    static let authorizationUnavailable = ProblemDocument(
        status: 503, code: "authorization-unavailable", title: "Nobody can say whether this is allowed",
        detail: "The service that authorises requests did not answer. Nothing was run; repeat the request later.")

    var headers: HTTPHeaders {
        [
            "content-type": "application/problem+json", "cache-control": "no-store",
            "link": "<\(ProblemPages.prefix)\(code)>; rel=\"describedby\"",
        ]
    }

    var body: ByteBuffer {
        let fields = [
            ("type", "\"urn:semel:\(code)\""), ("title", Self.quoted(title)), ("status", String(status)),
            ("detail", Self.quoted(detail)), ("code", Self.quoted(code)), ("safe_new_key", String(isSafeForNewKey)),
        ]
        return ByteBuffer(string: "{" + fields.map { "\"\($0)\":\($1)" }.joined(separator: ",") + "}")
    }

    var answer: HTTPAnswer {
        HTTPAnswer(HTTPResponse(status: .init(code: status), headerFields: HTTPFields(headers)), .bytes(body))
    }

    private static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": result += "\\\(scalar)"
            case _ where scalar.value < 0x20: result += " "
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}
