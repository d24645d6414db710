internal import HTTPTypes
internal import Semel

/// Why a request to the control plane was not done, as a problem document (RFC 9457): what, where, and what to do.
struct APIProblem: Error, Sendable {
    enum Code: String, Sendable, CaseIterable {
        case malformedJSON = "malformed-json"
        case invalidRequest = "invalid-request"
        case hostMissing = "host-missing"
        case unauthenticated
        case forbidden
        case scopeForbidden = "scope-forbidden"
        case notFound = "not-found"
        case operationUnknown = "operation-unknown"
        case methodNotAllowed = "method-not-allowed"
        case operationChanged = "operation-changed"
        case operationNotResolvable = "operation-not-resolvable"
        case operationNotForgettable = "operation-not-forgettable"
        case requestTooLarge = "request-too-large"
        case contentTypeUnsupported = "content-type-unsupported"
        case hostRefused = "host-refused"
        case tooManyWaiters = "too-many-waiters"
        case internalError = "internal-error"
        case storeUnavailable = "store-unavailable"
        case storeIndeterminate = "store-indeterminate"
        case recordUnreadable = "record-unreadable"
        case storeFull = "store-full"

        var status: Int {
            switch self {
            case .malformedJSON, .invalidRequest, .hostMissing: 400
            case .unauthenticated: 401
            case .forbidden, .scopeForbidden: 403
            case .notFound, .operationUnknown: 404
            case .methodNotAllowed: 405
            case .operationChanged, .operationNotResolvable, .operationNotForgettable: 409
            case .requestTooLarge: 413
            case .contentTypeUnsupported: 415
            case .hostRefused: 421
            case .tooManyWaiters: 429
            case .internalError: 500
            case .storeUnavailable, .storeIndeterminate, .recordUnreadable: 503
            case .storeFull: 507
            }
        }

        var title: String {
            switch self {
            case .malformedJSON: "The body is not JSON"
            case .invalidRequest: "The request cannot be understood"
            case .hostMissing: "The request names no host"
            case .unauthenticated: "A token is needed"
            case .forbidden: "The token does not allow this"
            case .scopeForbidden: "The token is not bound to this scope"
            case .notFound: "There is nothing here"
            case .operationUnknown: "There is no such operation"
            case .methodNotAllowed: "The method is not allowed here"
            case .operationChanged: "The operation has changed"
            case .operationNotResolvable: "The operation does not wait for a decision"
            case .operationNotForgettable: "The operation is not finished"
            case .requestTooLarge: "The request is too large"
            case .contentTypeUnsupported: "The body must be JSON"
            case .hostRefused: "This server does not answer for that host"
            case .tooManyWaiters: "Too many callers wait"
            case .internalError: "The server failed"
            case .storeUnavailable: "The store cannot be reached"
            case .storeIndeterminate: "The store's answer was lost"
            case .recordUnreadable: "The record cannot be read by this version"
            case .storeFull: "The store is full"
            }
        }
    }

    var code: Code
    /// What is wrong with this request, and what to do instead.
    var detail: String
    /// Where in the body: a JSON pointer (RFC 6901).
    var pointer: String?
    var line: Int?
    var column: Int?
    /// In whole seconds.
    var retryAfter: Int?
    /// The methods that are, for `methodNotAllowed`.
    var allowed: [HTTPRequest.Method] = []

    init(_ code: Code, _ detail: String, at pointer: String? = nil) {
        self.code = code
        self.detail = detail
        self.pointer = pointer
    }

    init(_ error: JSONError) {
        self.init(.malformedJSON, "The body is not JSON at \(error).")
        (line, column) = (error.line, error.column)
    }

    init(_ error: StoreError) {
        switch error.code {
        case .refused: self.init(.invalidRequest, error.message)
        case .indeterminate:
            self.init(.storeIndeterminate, "\(error.message) Say the same again to find out whether it happened.")
        case .full: self.init(.storeFull, error.message)
        default: self.init(.storeUnavailable, error.message)
        }
        if error.code != .refused { retryAfter = 1 }
    }

    var document: JSONValue {
        var document: JSONObject = JSONObject()
        document["type"] = .string("urn:semel:\(code.rawValue)")
        document["title"] = .string(code.title)
        document["status"] = JSONValue(code.status)
        document["detail"] = .string(detail)
        document["code"] = .string(code.rawValue)
        document["pointer"] = pointer.map(JSONValue.string)
        document["line"] = line.map { JSONValue($0) }
        document["column"] = column.map { JSONValue($0) }
        return .object(document)
    }

    var response: APIResponse {
        var response = APIResponse(status: code.status, "application/problem+json", document.serialized())
        if let retryAfter { response.fields[.retryAfter] = String(retryAfter) }
        if !allowed.isEmpty { response.fields[.allow] = allowed.map(\.rawValue).joined(separator: ", ") }
        if code == .unauthenticated { response.fields[.wwwAuthenticate] = "Bearer realm=\"semel\"" }
        return response
    }
}
