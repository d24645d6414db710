internal import HTTPTypes
internal import Semel
internal import SemelHTTP

/// One scene with everything that answers its requests.
final class SceneRoute: Sendable {
    let configuration: SceneConfiguration
    let http: HTTPScene
    let upstream: UpstreamClient
    let verifier: EffectVerifier?
    let replayAuthorizer: ReplayAuthorizer?
    let tokens: TokenVerifier?
    private let tokensPath: RequestPath?

    var name: String { configuration.name }
    var clients: [UpstreamClient] { [upstream] + (replayAuthorizer?.client.map { [$0] } ?? []) }

    init(
        _ configuration: SceneConfiguration, operations: Operations, observer: any HTTPObserver, tokens: TokenVerifier?, upstreams: [Upstream],
        client: (Upstream) throws -> UpstreamClient
    ) throws {
        var policy = configuration.http
        if policy.tokens == nil { policy.tokens = configuration.tokensPath.map { HTTPPolicy.Tokens(path: $0) } }
        let upstream = try client(configuration.upstream)
        self.configuration = configuration
        self.upstream = upstream
        self.tokens = tokens
        http = try HTTPScene(policy, operations: operations, text: configuration.pinned.text, observer: observer)
        verifier = configuration.effectQuery.map { query in
            EffectVerifier(
                .init(query, basePath: configuration.upstream.basePath, scopeField: configuration.http.scopeField), pinned: configuration.pinned.hash,
                downstreamKey: configuration.downstreamKey, client: upstream, store: operations.store, responseLimit: policy.responseLimit)
        }
        switch configuration.replayAuthorization {
        case .none: replayAuthorizer = tokens == nil ? nil : .token
        case .subrequest(let url):
            guard let (address, target) = Upstream.reading(url: url) else { throw GatewayError.unusable("authorize: \(url) is no URL") }
            var service = address
            // It is trusted as the upstream of the same address is; its connections are its own, so that it never waits behind
            // what it is asked about.
            service.trustRoots = upstreams.first { $0.transport == service.transport && $0.host == service.host && $0.port == service.port }?.trustRoots
            replayAuthorizer = .subrequest(try client(service), target)
        case .token: replayAuthorizer = .token
        }
        tokensPath = policy.tokens.flatMap { try? RequestPath(target: $0.path) }
    }

    /// Whether a request asks for a key, which the scene answers itself.
    func isTokenRequest(_ method: HTTPRequest.Method, _ path: RequestPath) -> Bool { method == .post && path == tokensPath }
}

extension Upstream {
    /// The service and the target of a URL that the configuration has checked; `nil` when it is none.
    static func reading(url: String) -> (upstream: Upstream, target: String)? {
        let parts = url.split(separator: "://", maxSplits: 1)
        guard parts.count == 2, let transport = Transport(rawValue: String(parts[0])) else { return nil }
        let slash = parts[1].firstIndex(of: "/") ?? parts[1].endIndex
        let authority = String(parts[1][..<slash])
        let standardPort = transport == .http ? 80 : 443
        guard let address = ListenAddress(authority) ?? ListenAddress("\(authority):\(standardPort)") else { return nil }
        let upstream = Upstream(name: authority, transport: transport, host: address.host, port: address.port)
        return (upstream, slash == parts[1].endIndex ? "/" : String(parts[1][slash...]))
    }
}
