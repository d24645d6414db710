package import HTTPTypes
package import Logging
package import Semel

/// Everything `semel serve` was told, checked: whoever holds one need not doubt it. A pure value, compared to find out
/// what a reload changed.
package struct ServerConfiguration: Hashable, Sendable {
    /// The data plane: the gateway.
    package var listen: ListenAddress
    /// The control plane: console, claims API, metrics, health.
    package var admin: AdminConfiguration
    package var store: StoreLocation
    /// The second store, for scenes that fall back to it while ``store`` is away; `nil` for none. SQLite or memory.
    package var fallback: StoreLocation?
    package var upstreams: [String: Upstream]
    /// Where requests that match no scene go, untouched; the only upstream when there is one. `nil` refuses them (404).
    package var unmatched: Upstream?
    /// In the order in which they are tried: the first that matches decides.
    package var scenes: [SceneConfiguration]
    package var claims: ClaimsConfiguration
    package var log: LogConfiguration
    /// The peers whose `Semel-*` and `X-Forwarded-*` fields are believed.
    package var trustedPeers: [AddressRange]
    /// How long requests in flight may take to finish after SIGTERM.
    package var drain: Duration

    package init(
        listen: ListenAddress = .defaultGateway, admin: AdminConfiguration = AdminConfiguration(),
        store: StoreLocation = .sqlite(path: "./semel.db"), fallback: StoreLocation? = nil, upstreams: [String: Upstream] = [:], unmatched: Upstream? = nil,
        scenes: [SceneConfiguration] = [], claims: ClaimsConfiguration = ClaimsConfiguration(), log: LogConfiguration = LogConfiguration(),
        trustedPeers: [AddressRange] = [], drain: Duration = .seconds(30)
    ) {
        self.listen = listen
        self.admin = admin
        self.store = store
        self.fallback = fallback
        self.upstreams = upstreams
        self.unmatched = unmatched
        self.scenes = scenes
        self.claims = claims
        self.log = log
        self.trustedPeers = trustedPeers
        self.drain = drain
    }

    /// The first scene that matches; `nil` for a request that passes through untouched.
    package func scene(for method: HTTPRequest.Method, path: RequestPath) -> SceneConfiguration? {
        scenes.first { $0.match.matches(method, path) }
    }

    /// What ``store`` and ``fallback`` together declare; `nil` without a second store.
    package var pairCapabilities: StoreCapabilities? {
        fallback.map { Fallback.capabilities(primary: store.capabilities, second: $0.capabilities) }
    }

    /// The names of the scenes whose records the second store may decide about.
    package var fallbackScenes: [String] { scenes.filter(\.usesFallback).map(\.name) }

    package func trusts(_ peer: String) -> Bool { trustedPeers.contains { $0.contains(peer) } }
}

/// The control plane's own settings.
package struct AdminConfiguration: Hashable, Sendable {
    package var listen: ListenAddress
    /// Empty only on loopback, where everybody on the machine is an operator.
    package var tokens: [RoleToken]
    package var tls: TLSFiles?

    package init(listen: ListenAddress = .defaultAdmin, tokens: [RoleToken] = [], tls: TLSFiles? = nil) {
        self.listen = listen
        self.tokens = tokens
        self.tls = tls
    }
}

/// The files of a server's certificate chain and its private key, PEM.
package struct TLSFiles: Hashable, Sendable {
    package var certificate: String
    package var key: String

    package init(certificate: String, key: String) {
        self.certificate = certificate
        self.key = key
    }
}

/// What the claims API asks of its callers.
package struct ClaimsConfiguration: Hashable, Sendable {
    /// Empty only when the control plane is on loopback, where every caller may use every scope.
    package var tokens: [ScopeToken]

    package init(tokens: [ScopeToken] = []) {
        self.tokens = tokens
    }
}

package struct LogConfiguration: Hashable, Sendable {
    package enum Keys: String, Hashable, Sendable, CaseIterable {
        /// Operations appear as references; no key is ever written.
        case reference
        /// The client's key is written too.
        case plain
    }

    package enum Destination: String, Hashable, Sendable, CaseIterable {
        case standardError = "stderr"
        case standardOutput = "stdout"
    }

    package var level: Logger.Level
    package var keys: Keys
    package var destination: Destination

    package init(level: Logger.Level = .info, keys: Keys = .reference, destination: Destination = .standardError) {
        self.level = level
        self.keys = keys
        self.destination = destination
    }
}
