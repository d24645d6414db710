internal import HTTPTypes
internal import Semel

/// One entry of the control plane: how it is reached, who may, what it does, and how the description tells of it. What is
/// served and what is described come from the same list, so neither can be without the other.
struct Route: Sendable {
    var method: HTTPRequest.Method
    /// Segments; `{name}` stands for any one.
    var path: String
    var access: Access
    /// The largest body taken, in bytes.
    var bodyLimit: Int
    var documentation: RouteDocumentation
    var handler: @Sendable (APIRequest) async throws -> APIResponse

    private let segments: [Substring]

    init(
        _ method: HTTPRequest.Method, _ path: String, _ access: Access, bodyLimit: Int = 1 << 20, _ documentation: RouteDocumentation,
        handler: @escaping @Sendable (APIRequest) async throws -> APIResponse
    ) {
        self.method = method
        self.path = path
        self.access = access
        self.bodyLimit = bodyLimit
        self.documentation = documentation
        self.handler = handler
        segments = path.split(separator: "/", omittingEmptySubsequences: false)
    }

    /// What stands for the path's names, or `nil` when this is not the route's path.
    func match(_ path: Substring) -> [String: String]? {
        let given = path.split(separator: "/", omittingEmptySubsequences: false)
        guard given.count == segments.count else { return nil }
        var parameters: [String: String] = [:]
        for (segment, value) in zip(segments, given) {
            if segment.hasPrefix("{") {
                guard !value.isEmpty else { return nil }
                parameters[String(segment.dropFirst().dropLast())] = String(value)
            } else if segment != value {
                return nil
            }
        }
        return parameters
    }
}

/// Who may use a route.
enum Access: Sendable {
    /// Everybody who can connect.
    case open
    /// A token of any role.
    case viewer
    /// A token of the role *operator*.
    case `operator`
    /// A token of the claims API; the scope is checked item by item.
    case claims
}

/// What the description says about a route.
struct RouteDocumentation: Sendable {
    struct Parameter: Sendable {
        var name: String
        var isInPath = false
        var mayRepeat = false
        var schema: JSONValue
        var text: String
    }

    struct Answer: Sendable {
        var status: Int
        var text: String
        var contentType = "application/json"
        /// A schema; `nil` for text.
        var schema: JSONValue?
    }

    var name: String
    var summary: String
    var text: String?
    var parameters: [Parameter] = []
    var request: JSONValue?
    var answers: [Answer]
    /// The problems this route answers beyond those that any route may.
    var problems: [APIProblem.Code] = []
}

/// All routes. What is asked for is found by its path first, then by its method.
struct RouteTable: Sendable {
    let routes: [Route]

    func find(_ method: HTTPRequest.Method, _ path: Substring) throws(APIProblem) -> (route: Route, parameters: [String: String]) {
        let matches = routes.compactMap { route in route.match(path).map { (route, $0) } }
        guard !matches.isEmpty else {
            throw APIProblem(.notFound, "There is no such path on the control plane. /openapi.json lists those there are.")
        }
        // HEAD is GET without the body (RFC 9110 §9.3.2).
        let wanted = method == .head ? .get : method
        guard let found = matches.first(where: { $0.0.method == wanted }) else {
            var allowed = matches.map(\.0.method)
            if allowed.contains(.get) { allowed.append(.head) }
            var problem = APIProblem(.methodNotAllowed, "Use \(allowed.map(\.rawValue).joined(separator: " or ")) here.")
            problem.allowed = allowed
            throw problem
        }
        return found
    }
}
