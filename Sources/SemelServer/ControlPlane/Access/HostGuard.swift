internal import HTTPTypes

/// Keeps web pages away from a control plane on loopback. A page whose name was made to resolve to 127.0.0.1 (DNS
/// rebinding) sends its own name as the host; it is refused. A page of another origin cannot send JSON without asking
/// first, which is never granted (no CORS), and nothing that changes anything takes any other content type.
enum HostGuard {
    static func check(_ authority: String?) throws(APIProblem) {
        guard let authority, !authority.isEmpty else {
            throw APIProblem(.hostMissing, "Send a Host field with the name of this machine's loopback, such as localhost.")
        }
        guard isLoopback(authority) else {
            throw APIProblem(.hostRefused, "This control plane is on loopback: ask it as localhost, 127.0.0.1 or [::1].")
        }
    }

    private static func isLoopback(_ authority: String) -> Bool {
        var name = authority[...]
        if let colon = name.lastIndex(of: ":"), name[name.index(after: colon)...].allSatisfy({ $0.isASCII && $0.isNumber }) {
            name = name[..<colon]
        }
        if name.hasPrefix("["), name.hasSuffix("]") { name = name.dropFirst().dropLast() }
        return ListenAddress(host: name.lowercased(), port: 0).isLoopback
    }
}
