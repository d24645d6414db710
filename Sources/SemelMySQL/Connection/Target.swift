#if MySQL
import CMariaDB
import Foundation
import Semel

/// Where the database is and who we are there, from `mysql://user:password@host:port/database?tls=…`.
struct Target: Hashable, Sendable {
    enum Encryption: Hashable, Sendable {
        case off
        /// Encrypted, but with whomever: only against those who listen.
        case required
        /// Encrypted, and the certificate must be the host's.
        case verified(authority: String?)

        func apply(to handle: UnsafeMutablePointer<MYSQL>) {
            var yes: my_bool = 1
            var no: my_bool = 0
            switch self {
            case .off:
                mysql_options(handle, MYSQL_OPT_SSL_ENFORCE, &no)
            case .required:
                mysql_options(handle, MYSQL_OPT_SSL_ENFORCE, &yes)
                mysql_options(handle, MYSQL_OPT_SSL_VERIFY_SERVER_CERT, &no)
            case .verified(let authority):
                mysql_options(handle, MYSQL_OPT_SSL_ENFORCE, &yes)
                mysql_options(handle, MYSQL_OPT_SSL_VERIFY_SERVER_CERT, &yes)
                if let authority { mysql_options(handle, MYSQL_OPT_SSL_CA, authority) }
            }
        }
    }

    var host: String
    var port: Int
    var socket: String?
    var user: String
    var password: String
    var database: String
    var encryption: Encryption

    /// The place, for messages: never the password.
    var description: String { socket.map { "\($0)/\(database)" } ?? "\(host):\(port)/\(database)" }

    /// - Throws: `misconfigured`, with what is wrong and what to write.
    init(url text: String) throws(StoreError) {
        func wrong(_ what: String) -> StoreError {
            StoreError(
                .misconfigured,
                "the MySQL URL \(what). Remedy: write mysql://USER:PASSWORD@HOST:3306/DATABASE, if need be with ?tls=verify, ?tls=require or ?tls=off, ?ca=FILE, ?socket=PATH")
        }
        guard let url = URLComponents(string: text), let scheme = url.scheme?.lowercased() else { throw wrong("cannot be read") }
        guard scheme == "mysql" || scheme == "mariadb" else { throw wrong("has the scheme \(scheme)") }
        var options: [String: String] = [:]
        for item in url.queryItems ?? [] {
            guard ["tls", "ca", "socket"].contains(item.name) else { throw wrong("has the unknown option \(item.name)") }
            guard let value = item.value, !value.isEmpty, options[item.name] == nil else { throw wrong("says nothing, or too much, for the option \(item.name)") }
            options[item.name] = value
        }
        guard url.fragment == nil else { throw wrong("has a fragment") }
        socket = options["socket"]
        // An IPv6 address stands in brackets.
        host = (url.host ?? "").trimmingCharacters(in: ["[", "]"])
        guard !host.isEmpty || socket != nil else { throw wrong("names no host") }
        port = url.port ?? 3306
        guard (1...65_535).contains(port) else { throw wrong("has the port \(port)") }
        guard let user = url.user, !user.isEmpty else { throw wrong("names no user") }
        self.user = user
        password = url.password ?? ""
        database = String(url.path.dropFirst())
        guard !database.isEmpty, !database.contains("/") else { throw wrong("names no database") }
        let isNear = socket != nil || ["localhost", "::1"].contains(host) || host.hasPrefix("127.")
        switch options["tls"] {
        case "off": encryption = .off
        case "require": encryption = .required
        case "verify": encryption = .verified(authority: options["ca"])
        // What leaves the machine is encrypted unless somebody says otherwise.
        case nil: encryption = isNear && options["ca"] == nil ? .off : .verified(authority: options["ca"])
        case let other?: throw wrong("has the option tls=\(other)")
        }
        // The client library takes the name `localhost` for a socket.
        if host == "localhost", socket == nil { host = "127.0.0.1" }
    }
}
#endif
