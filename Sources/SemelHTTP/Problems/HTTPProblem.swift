internal import HTTPTypes
internal import NIOCore
public import Semel

/// A request that was not answered by its handler, as a problem document (RFC 9457).
public struct HTTPProblem: Error, Sendable {
    public var code: ProblemCode
    public var status: Int
    /// What happened to this request, and what to do.
    public var detail: String
    public var operation: OperationReference?
    /// True only where it is proven that nothing was applied and nothing will be, so that a new key cannot double anything.
    public var isSafeForNewKey: Bool
    public var retryAfter: Int?

    public init(
        _ code: ProblemCode, status: Int? = nil, _ detail: String, operation: OperationReference? = nil,
        isSafeForNewKey: Bool = false, retryAfter: Int? = nil
    ) {
        self.code = code
        self.status = status ?? code.status
        self.detail = detail
        self.operation = operation
        self.isSafeForNewKey = isSafeForNewKey
        self.retryAfter = retryAfter
    }

    /// - Parameter pages: where the page of a code is found: this prefix and the code.
    public func answer(pages: String) -> HTTPAnswer {
        var document: JSONObject = JSONObject()
        document["type"] = .string(code.type)
        document["title"] = .string(code.title)
        document["status"] = JSONValue(status)
        document["detail"] = .string(detail)
        document["code"] = .string(code.rawValue)
        if let operation { document["operation"] = .string(operation.description) }
        document["safe_new_key"] = .bool(isSafeForNewKey)
        var fields: HTTPFields = [
            .contentType: "application/problem+json", .cacheControl: "no-store",
            .link: "<\(pages)\(code.rawValue)>; rel=\"describedby\"",
        ]
        if let retryAfter { fields[.retryAfter] = String(retryAfter) }
        // What is left of a body that is too large is not read.
        if code == .requestTooLarge { fields[.connection] = "close" }
        let body = ByteBuffer(bytes: JSONValue.object(document).serialized())
        return HTTPAnswer(HTTPResponse(status: .init(code: status), headerFields: fields), .bytes(body))
    }
}
