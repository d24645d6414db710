internal import HTTPTypes
internal import Semel
internal import SemelHTTP

/// Where requests go, and under which rules: what one configuration comes to. Never changed; a reload makes another, and
/// requests under way keep theirs.
// A class, as a scene's route is: every request holds them, and a copy would take kilobytes of each of its tasks.
final class RoutingTable: Sendable {
    enum Route: Sendable {
        case scene(SceneRoute)
        case unmatched(UpstreamClient)
        case none
        /// It depends on how the path is read.
        case ambiguous
    }

    let configuration: ServerConfiguration
    let scenes: [SceneRoute]
    private let unmatched: UpstreamClient?

    /// - Parameter previous: the table before, whose connections to upstreams that have not changed are kept.
    /// - Throws: when a policy cannot be kept, or a file of keys or authorities cannot be used.
    init(
        _ configuration: ServerConfiguration, operations: Operations, pairOperations: Operations? = nil, observer: any HTTPObserver,
        previous: RoutingTable? = nil
    ) async throws {
        self.configuration = configuration
        var clients: [Upstream: UpstreamClient] = [:]
        for client in previous?.clients ?? [] { clients[client.upstream] = client }
        func client(_ upstream: Upstream) throws -> UpstreamClient {
            if let client = clients[upstream] { return client }
            let client = try UpstreamClient(upstream)
            clients[upstream] = client
            return client
        }
        var scenes: [SceneRoute] = []
        for scene in configuration.scenes {
            guard let operations = scene.usesFallback ? pairOperations : operations else {
                throw GatewayError.unusable("\(scene.name): there is no second store to fall back to. Restart with `fallback` in the configuration.")
            }
            let tokens: TokenVerifier? = if let settings = scene.jwt { try await TokenVerifier(settings) } else { nil }
            scenes.append(
                try SceneRoute(
                    scene, operations: operations, observer: observer, tokens: tokens, upstreams: Array(configuration.upstreams.values),
                    client: client))
        }
        self.scenes = scenes
        unmatched = try configuration.unmatched.map(client)
    }

    private var clients: [UpstreamClient] {
        scenes.flatMap(\.clients) + (unmatched.map { [$0] } ?? [])
    }

    /// The route of a request. A scene that matches under either reading of the path holds, so that none can be evaded by
    /// writing a path differently.
    func route(_ method: HTTPRequest.Method, target: String) throws(RequestPathError) -> Route {
        let byAll = scene(method, try RequestPath(target: target))
        // Another reading is possible only where the path has such bytes.
        if target.utf8.contains(where: { $0 == UInt8(ascii: "%") || $0 == UInt8(ascii: "\\") }) || target.contains("//") {
            let literal = scene(method, RequestPath(literal: target))
            if let byAll, let literal, byAll.name != literal.name { return .ambiguous }
            if let scene = byAll ?? literal { return .scene(scene) }
        }
        if let byAll { return .scene(byAll) }
        return unmatched.map(Route.unmatched) ?? .none
    }

    private func scene(_ method: HTTPRequest.Method, _ path: RequestPath) -> SceneRoute? {
        scenes.first { $0.configuration.match.matches(method, path) || $0.isTokenRequest(method, path) }
    }
}

extension RequestPath {
    /// The other reading: only a slash as such separates segments, an encoded one belongs to its segment, and empty
    /// segments count.
    init(literal target: String) {
        var parts = target.utf8.prefix { $0 != UInt8(ascii: "?") && $0 != UInt8(ascii: "#") }.dropFirst()
            .split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        if parts.last?.isEmpty == true { parts.removeLast() }
        self.init(segments: parts.map { Self.decoded($0) })
    }

    private static func decoded(_ text: Substring.UTF8View) -> [UInt8] {
        var bytes: [UInt8] = []
        var rest = text
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "%"), let high = rest.popFirst()?.hexadecimalValue, let low = rest.popFirst()?.hexadecimalValue {
                bytes.append(high << 4 | low)
            } else {
                bytes.append(byte)
            }
        }
        return bytes
    }
}
