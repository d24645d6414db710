/// A host and a port to listen on. Port 0 asks the system for a free one.
package struct ListenAddress: Hashable, Sendable, CustomStringConvertible {
    package var host: String
    package var port: Int

    package init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    package static let defaultGateway = ListenAddress(host: "127.0.0.1", port: 8080)
    package static let defaultAdmin = ListenAddress(host: "127.0.0.1", port: 8081)

    /// Whether only this machine can connect. A name other than `localhost` counts as reachable: nobody knows what it
    /// resolves to tomorrow.
    package var isLoopback: Bool {
        host == "localhost" || AddressRange.loopback.contains { $0.contains(host) }
    }

    /// Reads `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`; `nil` for anything else.
    package init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":") else { return nil }
        let digits = text[text.index(after: colon)...]
        var name = text[..<colon]
        if name.hasPrefix("["), name.hasSuffix("]") {
            name = name.dropFirst().dropLast()
            guard IPAddress(String(name)) != nil else { return nil }
        } else if name.contains(":") {
            return nil
        }
        guard !name.isEmpty, !name.utf8.contains(where: { $0 <= 0x20 || $0 == 0x2F || $0 == 0x40 }),
            !digits.isEmpty, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let port = Int(digits), port <= 65535
        else { return nil }
        self.init(host: String(name), port: port)
    }

    package var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}
