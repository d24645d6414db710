/// A service behind the gateway.
package struct Upstream: Hashable, Sendable {
    package enum Transport: String, Hashable, Sendable { case http, https }

    package var name: String
    package var transport: Transport
    package var host: String
    package var port: Int
    /// Put in front of every path; empty, or begins with `/` and does not end with one.
    package var basePath: String
    /// How long opening a connection may take.
    package var connectTimeout: Duration
    /// How long the upstream may take for the head of its answer, and then for each further part.
    package var responseTimeout: Duration
    /// How long an unused connection is kept.
    package var idleTimeout: Duration
    /// The most connections at one time; requests beyond wait for one.
    package var connections: Int
    /// A PEM file of the authorities to trust instead of the system's.
    package var trustRoots: String?

    package init(
        name: String, transport: Transport = .http, host: String, port: Int, basePath: String = "",
        connectTimeout: Duration = .seconds(5), responseTimeout: Duration = .seconds(60), idleTimeout: Duration = .seconds(4),
        connections: Int = 256, trustRoots: String? = nil
    ) {
        self.name = name
        self.transport = transport
        self.host = host
        self.port = port
        self.basePath = basePath
        self.connectTimeout = connectTimeout
        self.responseTimeout = responseTimeout
        self.idleTimeout = idleTimeout
        self.connections = connections
        self.trustRoots = trustRoots
    }

    /// `http://host:port/base`, without a slash at the end.
    package var url: String { "\(transport.rawValue)://\(authority)\(basePath)" }

    /// Host and port as in a `Host` field; the scheme's own port is left out.
    package var authority: String {
        let name = host.contains(":") ? "[\(host)]" : host
        let isStandard = transport == .http ? port == 80 : port == 443
        return isStandard ? name : "\(name):\(port)"
    }
}
