internal import Foundation
public import Semel

/// Where a Redis is and how to enter it, as a URL says it.
///
/// ```
/// redis://[[user:]password@]host[:port][/database][?prefix=semel:]
/// rediss://…                         the same over TLS; ca=FILE names the authority's certificate
/// redis+cluster://host:port[,host:port…]
/// rediss+cluster://…
/// ```
///
/// Other parameters: `wait=REPLICAS` and `waitTimeout=MILLISECONDS` (``RedisStore/Configuration/waitForReplicas``),
/// `connections=NUMBER` a node. User and password are percent-encoded.
public struct RedisLocation: Hashable, Sendable, CustomStringConvertible {
    public struct Endpoint: Hashable, Sendable, CustomStringConvertible {
        public var host: String
        public var port: Int

        public init(host: String, port: Int = 6379) {
            self.host = host
            self.port = port
        }

        public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
    }

    /// One for a single server; any nodes of it for a cluster.
    public var endpoints: [Endpoint]
    public var isCluster = false
    public var usesTLS = false
    public var user: String?
    public var password: String?
    public var database = 0
    /// All keys begin with it; letters, digits and `: . _ -`.
    public var prefix = "semel:"
    /// The file with the certificate of the authority that the server's certificate is checked against, in PEM; the
    /// system's authorities otherwise.
    public var certificateAuthority: String?
    public var connections = 1
    /// See ``RedisStore/Configuration/waitForReplicas``.
    public var waitForReplicas: Int?
    public var waitTimeout: Duration = .seconds(1)

    public init(endpoints: [Endpoint], isCluster: Bool = false) {
        self.endpoints = endpoints
        self.isCluster = isCluster
    }

    /// - Throws: `misconfigured`, saying what is wrong and how it is written.
    public init(_ url: String) throws(StoreError) {
        func wrong(_ what: String) -> StoreError {
            StoreError(
                .misconfigured,
                "The Redis URL \(Self.shown(url)) \(what): write redis://[user:password@]host:port[/database], rediss:// for TLS, or redis+cluster://host:port,host:port"
            )
        }
        guard let separator = url.range(of: "://") else { throw wrong("has no scheme") }
        let scheme = url[..<separator.lowerBound]
        guard ["redis", "rediss", "redis+cluster", "rediss+cluster"].contains(scheme) else {
            throw wrong("has the scheme \(scheme), which is not Redis'")
        }
        var rest = url[separator.upperBound...]
        var parameters: Substring = ""
        if let mark = rest.firstIndex(of: "?") {
            parameters = rest[rest.index(after: mark)...]
            rest = rest[..<mark]
        }
        var path: Substring = ""
        if let slash = rest.firstIndex(of: "/") {
            path = rest[rest.index(after: slash)...]
            rest = rest[..<slash]
        }
        var user: String?
        var password: String?
        if let at = rest.lastIndex(of: "@") {
            let credentials = rest[..<at]
            rest = rest[rest.index(after: at)...]
            let parts = credentials.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            guard let first = String(parts[0]).removingPercentEncoding, let last = String(parts.last ?? "").removingPercentEncoding else {
                throw wrong("has a user or password that is not percent-encoded as it should")
            }
            password = last
            user = parts.count == 2 && !first.isEmpty ? first : nil
        }
        guard !rest.isEmpty else { throw wrong("names no host") }
        var endpoints: [Endpoint] = []
        for text in rest.split(separator: ",", omittingEmptySubsequences: false) {
            guard let endpoint = Endpoint(text) else { throw wrong("names a host and port that are none (and \"/\", \"@\" or \":\" in a password must be percent-encoded)") }
            endpoints.append(endpoint)
        }
        self.init(endpoints: endpoints, isCluster: scheme.hasSuffix("+cluster"))
        usesTLS = scheme.hasPrefix("rediss")
        self.user = user
        self.password = password
        if !isCluster, endpoints.count > 1 { throw wrong("names \(endpoints.count) hosts, which only a cluster has") }
        if !path.isEmpty {
            guard let number = Int(path), number >= 0 else { throw wrong("has the database \"\(path)\", which is no number") }
            guard !isCluster || number == 0 else { throw wrong("names a database, and a cluster has only one") }
            database = number
        }
        for parameter in parameters.split(separator: "&") {
            let sides = parameter.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard sides.count == 2, let value = String(sides[1]).removingPercentEncoding else {
                throw wrong("has the parameter \"\(parameter)\" without a value")
            }
            switch (sides[0], Int(value)) {
            case ("prefix", _):
                guard Self.isPrefix(value) else {
                    throw wrong("has the prefix \"\(value)\"; it may hold letters, digits and : . _ -, at most 32")
                }
                prefix = value
            case ("ca", _): certificateAuthority = value
            case ("connections", .some(let number)) where (1...64).contains(number): connections = number
            case ("wait", .some(let number)) where (1...100).contains(number): waitForReplicas = number
            case ("waitTimeout", .some(let number)) where number > 0: waitTimeout = .milliseconds(number)
            default: throw wrong("has the parameter \(sides[0])=\(value), which means nothing here")
            }
        }
    }

    static func isPrefix(_ text: String) -> Bool {
        text.utf8.count <= 32
            && text.utf8.allSatisfy { byte in
                (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte) || ":._-".utf8.contains(byte)
            }
    }

    /// A URL as it may be shown: without what stands before the @.
    private static func shown(_ url: String) -> String {
        guard let at = url.lastIndex(of: "@") else { return "\"\(url)\"" }
        let scheme = url.range(of: "://").map { url[..<$0.upperBound] } ?? ""
        return "\"\(scheme)…@\(url[url.index(after: at)...])\""
    }

    /// The URL without credentials.
    public var description: String {
        "redis\(usesTLS ? "s" : "")\(isCluster ? "+cluster" : "")://" + endpoints.map(\.description).joined(separator: ",")
            + (database == 0 ? "" : "/\(database)")
    }
}

extension RedisLocation.Endpoint {
    /// `host`, `host:port`, `[address]:port`.
    init?(_ text: some StringProtocol) {
        var host = String(text)
        var port = 6379
        if host.hasPrefix("["), let end = host.firstIndex(of: "]") {
            let tail = host[host.index(after: end)...]
            host = String(host[host.index(after: host.startIndex)..<end])
            if !tail.isEmpty {
                guard tail.hasPrefix(":"), let number = Int(tail.dropFirst()) else { return nil }
                port = number
            }
        } else if let colon = host.lastIndex(of: ":") {
            guard let number = Int(host[host.index(after: colon)...]) else { return nil }
            port = number
            host = String(host[..<colon])
        }
        guard !host.isEmpty, (1...65535).contains(port), !host.contains(where: { $0 == " " || $0 == "@" || $0 == "/" }) else { return nil }
        self.init(host: host, port: port)
    }
}
