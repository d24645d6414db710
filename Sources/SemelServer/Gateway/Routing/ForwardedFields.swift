internal import HTTPTypes
internal import NIOHTTP1

/// What of a message's fields goes on to the other side (RFC 9110, 7.6).
enum ForwardedFields {
    /// About one connection only, whether `Connection` names them or not.
    private static let hopByHop: Set<String> = [
        "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "transfer-encoding", "upgrade",
    ]

    /// The fields of a request, for an upstream.
    ///
    /// What only Semel, or a proxy in front of it, may say is believed only from a trusted peer.
    /// - Parameters:
    ///   - fence: the field in which this scene's upstream is told the epoch; nobody else may raise its fence.
    ///   - hasTrailers: whether the fields behind the body go on too.
    static func request(
        _ head: HTTPRequestHead, peer: String, isTrusted: Bool, authority: String, fence: String? = nil, hasTrailers: Bool = false
    ) -> HTTPHeaders {
        var fields = HTTPHeaders()
        fields.reserveCapacity(head.headers.count + 6)
        fields.add(name: "Host", value: authority)
        let options = connectionOptions(head.headers)
        var forwardedFor: [String] = []
        var (hasProto, hasHost) = (false, false)
        let fence = fence?.lowercased()
        for (name, value) in head.headers {
            let lowercased = name.lowercased()
            switch lowercased {
            // The body is sent anew, and whoever waits for 100 (Continue) gets it from here.
            case "host", "content-length", "expect", DispatchRegistry.field: continue
            case "trailer" where !hasTrailers: continue
            case _ where hopByHop.contains(lowercased) || options.contains(lowercased): continue
            case _ where isForTrustedPeers(lowercased) || lowercased == fence:
                guard isTrusted else { continue }
                if lowercased == "x-forwarded-for" {
                    forwardedFor.append(value)
                    continue
                }
                hasProto = hasProto || lowercased == "x-forwarded-proto"
                hasHost = hasHost || lowercased == "x-forwarded-host"
            default: break
            }
            fields.add(name: name, value: value)
        }
        // About this connection too, and true of it: the answer's trailers are passed on (RFC 9110, 10.1.4).
        if head.headers[canonicalForm: "te"].contains(where: { $0.lowercased() == "trailers" }) {
            fields.add(name: "TE", value: "trailers")
            fields.add(name: "Connection", value: "TE")
        }
        fields.add(name: "X-Forwarded-For", value: (forwardedFor + [peer]).joined(separator: ", "))
        if !hasProto { fields.add(name: "X-Forwarded-Proto", value: "http") }
        if !hasHost, let host = head.headers.first(name: "host") { fields.add(name: "X-Forwarded-Host", value: host) }
        fields.add(name: "Via", value: "\(head.version.major).\(head.version.minor) semel")
        return fields
    }

    /// What only Semel, or a proxy in front of it, says.
    private static func isForTrustedPeers(_ lowercased: String) -> Bool {
        lowercased.hasPrefix("x-forwarded-") || lowercased == "forwarded" || lowercased.hasPrefix("semel-")
    }

    /// Whether a request may reach its upstream without this field of the client's, or with another value in it.
    static func mayBeWithheld(_ name: HTTPField.Name) -> Bool {
        let lowercased = name.canonicalName
        return isForTrustedPeers(lowercased) || hopByHop.contains(lowercased) || lowercased == "host" || lowercased == "via"
    }

    /// The fields of a response, for the client.
    static func response(_ headers: HTTPHeaders) -> HTTPHeaders {
        let options = connectionOptions(headers)
        guard headers.contains(where: { isDropped($0.name, options) }) else { return headers }
        return HTTPHeaders(headers.filter { !isDropped($0.name, options) }.map { ($0.name, $0.value) })
    }

    /// The fields behind a body, for the other side. What frames, routes or authenticates a message, or says how its body is to
    /// be read, counts only before it (RFC 9110, 6.5.1): a recipient that merges the two would be deceived.
    static func trailers(_ trailers: HTTPHeaders?) -> HTTPHeaders? {
        guard let trailers else { return nil }
        let kept = trailers.filter { name, _ in
            let name = name.lowercased()
            return !hopByHop.contains(name) && !notTrailing.contains(name) && !isForTrustedPeers(name)
        }
        return kept.isEmpty ? nil : HTTPHeaders(kept.map { ($0.name, $0.value) })
    }

    private static let notTrailing: Set<String> = [
        "authorization", "cache-control", "content-encoding", "content-length", "content-range", "content-type", "cookie", "expect", "host",
        "idempotency-key", "max-forwards", "range", "set-cookie", "trailer", "via", "www-authenticate",
    ]

    private static func isDropped(_ name: String, _ options: Set<String>) -> Bool {
        let lowercased = name.lowercased()
        return hopByHop.contains(lowercased) || options.contains(lowercased)
    }

    /// The fields that `Connection` names.
    private static func connectionOptions(_ headers: HTTPHeaders) -> Set<String> {
        let options = headers[canonicalForm: "connection"]
        return options.isEmpty ? [] : Set(options.map { $0.lowercased() })
    }
}
