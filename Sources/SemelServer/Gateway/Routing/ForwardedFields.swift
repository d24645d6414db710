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
    static func request(_ head: HTTPRequestHead, peer: String, isTrusted: Bool, authority: String) -> HTTPHeaders {
        var fields = HTTPHeaders()
        fields.reserveCapacity(head.headers.count + 6)
        fields.add(name: "Host", value: authority)
        let options = connectionOptions(head.headers)
        var forwardedFor: [String] = []
        var (hasProto, hasHost) = (false, false)
        for (name, value) in head.headers {
            let lowercased = name.lowercased()
            switch lowercased {
            // The body is sent anew, and whoever waits for 100 (Continue) gets it from here.
            case "host", "content-length", "expect", "trailer", DispatchRegistry.field: continue
            case _ where hopByHop.contains(lowercased) || options.contains(lowercased): continue
            case _ where isForTrustedPeers(lowercased):
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
        fields.add(name: "X-Forwarded-For", value: (forwardedFor + [peer]).joined(separator: ", "))
        if !hasProto { fields.add(name: "X-Forwarded-Proto", value: "http") }
        if !hasHost, let host = head.headers.first(name: "host") { fields.add(name: "X-Forwarded-Host", value: host) }
        fields.add(name: "Via", value: "\(head.version.major).\(head.version.minor) semel")
        return fields
    }

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
