internal import Foundation
internal import HTTPTypes
internal import Logging
internal import Semel
internal import SemelCore
internal import SemelMySQL
internal import SemelPostgres
internal import SemelRedis

extension ConfigurationReader {
    func server(_ root: Section) -> ServerConfiguration {
        var configuration = ServerConfiguration()
        configuration.listen = address(root, "listen", default: .defaultGateway)
        configuration.admin = admin(root)
        configuration.store = store(root) ?? configuration.store
        configuration.fallback = fallback(root, behind: configuration.store)
        configuration.upstreams = upstreams(root)
        configuration.unmatched = unmatched(root, configuration.upstreams)
        configuration.claims = claims(root)
        warnAboutOpenOperators(root, configuration)
        configuration.log = log(root)
        configuration.trustedPeers = trustedPeers(root)
        configuration.drain = duration(root, "drain", isZeroAllowed: true) ?? configuration.drain
        let derivation = secret(root, "secret", "secretFile", atLeast: 32).map { Secret(bytes: $0.bytes) }
        configuration.scenes = scenes(
            root, configuration.upstreams, store: configuration.store.capabilities, pair: configuration.pairCapabilities, derivation: derivation)
        if let node = root["fallback"], !(root["scenes"]?.elements ?? []).contains(where: { $0["onStoreFailure"]?.scalar == "fallback" }) {
            warning(node.place, "fallback", "no scene falls back to it: only what it still holds is merged", "write `onStoreFailure: fallback` in a scene, or remove it once nothing is left to merge")
        }

        if configuration.listen == configuration.admin.listen, configuration.listen.port != 0 {
            mistake(root["admin"]?.place ?? root.place, "admin", "gateway and control plane both listen on \(configuration.listen)", "give them different ports")
        }
        return configuration
    }

    private func store(_ root: Section) -> StoreLocation? {
        guard let node = root["store"], let text = text(node, path: "store", example: "sqlite:./semel.db") else { return nil }
        if text == "memory" { return .memory }
        let scheme = String(text.prefix { $0 != ":" })
        switch scheme {
        case "sqlite": return sqlite(text, node, "store")
        #if Postgres
        case "postgres", "postgresql":
            do throws(StoreError) {
                return .postgres(url: text, place: try PostgresStore.place(of: text))
            } catch {
                mistake(node.place, "store", error.message, "write postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full")
            }
        #else
        case "postgres", "postgresql": mistake(node.place, "store", "this build of semel has no \(scheme) store", "build it with `make build`, which takes every optional part")
        #endif
        #if MySQL
        case "mysql", "mariadb":
            do throws(StoreError) {
                return .mysql(url: text, place: try MySQLStore.place(of: text))
            } catch {
                mistake(node.place, "store", error.message, "write mysql://USER@HOST:PORT/DATABASE?tls=verify")
            }
        #else
        case "mysql", "mariadb": mistake(node.place, "store", "this build of semel has no \(scheme) store", "build it with `make build`, which takes every optional part")
        #endif
        case "redis", "rediss", "redis+cluster", "rediss+cluster":
            do throws(StoreError) {
                return .redis(url: text, place: "\(try RedisLocation(text))")
            } catch {
                mistake(node.place, "store", error.message, "write redis://USER:PASSWORD@HOST:PORT or redis+cluster://HOST:PORT,HOST:PORT")
            }
        default:
            let meant = Spelling.suggestion(for: scheme, among: ["sqlite", "memory"])
            mistake(node.place, "store", "`\(text.withoutCredentials)` is not a store", meant.map { "did you mean `\($0 == "sqlite" ? "sqlite:PATH" : $0)`?" } ?? "use sqlite:PATH or memory")
        }
        return nil
    }

    private func sqlite(_ text: String, _ node: Node, _ key: String) -> StoreLocation? {
        let path = String(text.dropFirst("sqlite:".count))
        let example = key == "store" ? "semel.db" : "fallback.db"
        if path.hasPrefix("//") {
            mistake(node.place, key, "`\(text)` is written as a URL", "write sqlite:PATH, such as sqlite:./\(example) or sqlite:/var/lib/semel/\(example)")
        } else if path.isEmpty || path.hasSuffix("/") || path == ":memory:" {
            mistake(node.place, key, "`\(text)` names no file", path == ":memory:" ? "write memory" : "write sqlite:PATH, such as sqlite:./\(example)")
        } else {
            return .sqlite(path: path)
        }
        return nil
    }

    /// The second store. It is this process's own, so it cannot be a server that others share or that may be away as well.
    private func fallback(_ root: Section, behind store: StoreLocation) -> StoreLocation? {
        guard let node = root["fallback"], let text = text(node, path: "fallback", example: "sqlite:./fallback.db") else { return nil }
        let location: StoreLocation?
        switch text.prefix(while: { $0 != ":" }) {
        case "memory" where text == "memory":
            location = .memory
            warning(
                node.place, "fallback", "what the second store decides is forgotten when the process ends before it is merged, and runs again",
                "write sqlite:PATH, such as sqlite:./fallback.db")
        case "sqlite": location = sqlite(text, node, "fallback")
        case "postgres", "postgresql", "mysql", "mariadb", "redis", "rediss", "redis+cluster", "rediss+cluster":
            location = nil
            // The URL may carry a password.
            mistake(
                node.place, "fallback", "a server cannot be the second store: it must be this process's own, and there while the network is not",
                "write sqlite:PATH, such as sqlite:./fallback.db, or memory")
        default:
            location = nil
            mistake(node.place, "fallback", "`\(text)` is not a second store", "use sqlite:PATH, such as sqlite:./fallback.db, or memory")
        }
        guard let location else { return nil }
        if store == .memory {
            mistake(node.place, "fallback", "the store is memory, which is never away, so nothing falls back from it", "remove `fallback`, or use another store")
        }
        if case (.sqlite(let first), .sqlite(let second)) = (store, location), Self.file(first) == Self.file(second) {
            mistake(node.place, "fallback", "it is the file of the store itself: what is wrong with the one is wrong with the other", "write another path, such as sqlite:./fallback.db")
        }
        return location
    }

    /// The file that a path means, however it is written.
    private static func file(_ path: String) -> String { URL(fileURLWithPath: path).resolvingSymlinksInPath().standardizedFileURL.path }

    // MARK: Upstreams

    private func upstreams(_ root: Section) -> [String: Upstream] {
        guard let section = section(root, "upstreams") else { return [:] }
        var upstreams: [String: Upstream] = [:]
        for member in section.node.members ?? [] {
            upstreams[member.name] = upstream(member.name, member.value, path: section.path(member.name))
        }
        return upstreams
    }

    private func upstream(_ name: String, _ node: Node, path: String) -> Upstream? {
        guard let section = section(node, path: path, short: "url") else { return nil }
        guard let urlNode = section["url"] else {
            mistake(node.place, path, "the upstream has no `url`", "write `url: http://127.0.0.1:9000`")
            return nil
        }
        let url = url(urlNode, path: path)
        var upstream = Upstream(
            name: name, transport: url?.transport ?? .http, host: url?.address.host ?? "", port: url?.address.port ?? 80,
            basePath: String((url?.path ?? "").reversed().drop { $0 == "/" }.reversed()))
        upstream.connectTimeout = duration(section, "connect", example: "5s") ?? upstream.connectTimeout
        upstream.responseTimeout = duration(section, "timeout", example: "60s") ?? upstream.responseTimeout
        upstream.idleTimeout = duration(section, "idle", example: "60s") ?? upstream.idleTimeout
        upstream.connections = integer(section, "connections", in: 1...65_535) ?? upstream.connections
        if let tls = self.section(section, "tls") {
            upstream.trustRoots = readableFile(tls, "authorities")
            if upstream.transport == .http {
                mistake(tls.place, tls.path, "the upstream's URL is http, which has no TLS", "write https in the URL, or remove `tls`")
            }
        }
        return url == nil ? nil : upstream
    }

    private func unmatched(_ root: Section, _ upstreams: [String: Upstream]) -> Upstream? {
        if root["unmatched"] != nil { return upstream(named: "unmatched", in: root, among: upstreams, declared: root) }
        let declared = root["upstreams"]?.members ?? []
        if declared.count > 1, let place = root["upstreams"]?.place {
            warning(place, "unmatched", "there are several upstreams, and requests that match no scene have none: they are answered with 404", "write `unmatched: \(declared[0].name)`")
        }
        return declared.count == 1 ? upstreams[declared[0].name] : nil
    }

    /// The upstream that a key names.
    func upstream(named key: String, in section: Section, among upstreams: [String: Upstream], declared root: Section) -> Upstream? {
        guard let name = text(section, key, example: "payments"), let place = section[key]?.place else { return nil }
        if let upstream = upstreams[name] { return upstream }
        let names = (root["upstreams"]?.members ?? []).map(\.name)
        // One that is declared with mistakes has had them said already.
        guard !names.contains(name) else { return nil }
        let meant = Spelling.suggestion(for: name, among: names).map { "did you mean `\($0)`?" }
        mistake(
            place, section.path(key), "there is no upstream `\(name)`",
            meant ?? (names.isEmpty ? "declare it: `upstreams: { \(name): http://127.0.0.1:9000 }`" : "declare it under `upstreams`, or use one of \(names.sorted().joined(separator: ", "))"))
        return nil
    }

    // MARK: Access

    private func admin(_ root: Section) -> AdminConfiguration {
        guard let section = section(root, "admin", short: "listen") else { return AdminConfiguration() }
        // With a bare address, the key is `admin` itself.
        let isShort = root["admin"]?.members == nil
        let listen = isShort ? address(root, "admin", default: .defaultAdmin) : address(section, "listen", default: .defaultAdmin)
        var admin = AdminConfiguration(listen: listen, tokens: roleTokens(section))
        if let tls = self.section(section, "tls") {
            for name in ["certificate", "key"] where tls[name] == nil {
                mistake(tls.place, tls.path(name), "TLS needs a certificate and its key, and there is no `\(name)`", "write `\(name): ./\(name).pem`")
            }
            if let certificate = readableFile(tls, "certificate"), let key = readableFile(tls, "key") {
                admin.tls = TLSFiles(certificate: certificate, key: key)
            }
        }
        if !admin.listen.isLoopback {
            let missing = [section["tokens"] == nil ? "tokens" : nil, section["tls"] == nil ? "TLS" : nil].compactMap(\.self)
            if !missing.isEmpty {
                mistake(
                    section["listen"]?.place ?? section.place, section.path, "the control plane would listen on \(admin.listen), beyond this machine, without \(missing.joined(separator: " and "))",
                    "listen on 127.0.0.1, or set `admin: { listen, tokens, tls }`")
            }
        }
        return admin
    }

    private func roleTokens(_ admin: Section) -> [RoleToken] {
        tokens(admin).compactMap { section, name, digest in
            if section["role"] == nil {
                mistake(section.place, section.path, "the token has no `role`", "write `role: viewer` to read, or `role: operator` to resolve and forget as well")
            }
            guard let digest, let role = choice(section, "role", among: ["viewer": Role.viewer, "operator": .operator]) else { return nil }
            return RoleToken(name: name, digest: digest, role: role)
        }
    }

    private func claims(_ root: Section) -> ClaimsConfiguration {
        guard let claims = section(root, "claims") else { return ClaimsConfiguration() }
        return ClaimsConfiguration(tokens: tokens(claims).compactMap { section, name, digest in
            guard let nodes = list(section, "scopes") else {
                if section["scopes"] == nil { mistake(section.place, section.path, "the token has no `scopes`", "write `scopes: [NAME]`, or `scopes: [\"*\"]` for all") }
                return nil
            }
            let scopes = nodes.compactMap { text($0, path: section.path("scopes"), example: "transfers") }
            if nodes.isEmpty { mistake(section.place, section.path("scopes"), "the list is empty, so the token allows nothing", "name a scope, or remove the token") }
            return digest.map { ScopeToken(name: name, digest: $0, scopes: scopes.contains("*") ? .all : .named(Set(scopes.map { ExactText($0) }))) }
        })
    }

    /// On loopback no tokens are needed. But where the claims API has some, its callers are told apart, and without tokens
    /// of the control plane each of them is an operator too, who sees and decides about the others' operations.
    private func warnAboutOpenOperators(_ root: Section, _ configuration: ServerConfiguration) {
        guard configuration.admin.listen.isLoopback, root["admin"]?["tokens"] == nil, let tokens = root["claims"]?["tokens"], !(tokens.elements ?? []).isEmpty
        else { return }
        warning(
            tokens.place, "claims.tokens",
            "the claims API binds its callers to scopes, but everybody on this machine may list, resolve and forget the operations of all scopes, as the control plane has no tokens",
            "set `admin: { listen: \(configuration.admin.listen), tokens: [{ name, tokenFile, role: operator }] }`")
    }

    /// The tokens under a section, each with its name and what it must match.
    private func tokens(_ parent: Section) -> [(section: Section, name: String, digest: TokenDigest?)] {
        guard let nodes = list(parent, "tokens") else { return [] }
        var names: Set<String> = []
        return nodes.enumerated().compactMap { index, node in
            guard let section = section(node, path: "\(parent.path("tokens")).\(node["name"]?.scalar ?? "[\(index)]")") else { return nil }
            let name = text(section, "name", example: "alice")
            if section["name"] == nil { mistake(section.place, section.path, "the token has no `name`", "write who holds it: `name: alice`") }
            if let name, !names.insert(name).inserted { mistake(section["name"]?.place ?? section.place, section.path, "the name is given to two tokens", "give each its own") }
            if section["token"] == nil && section["tokenFile"] == nil {
                mistake(section.place, section.path, "there is no `token`", "write `tokenFile: PATH`, or `token: sha256:DIGEST`")
            }
            return (section, name ?? "", digest(section))
        }
    }

    private func digest(_ section: Section) -> TokenDigest? {
        if let node = section["token"], let text = node.scalar, text.hasPrefix("sha256:") {
            if let digest = TokenDigest(hexadecimal: text.dropFirst("sha256:".count)) { return digest }
            mistake(node.place, section.path("token"), "what follows sha256: is not 64 hexadecimal digits in small letters", "write the output of `printf %s TOKEN | sha256sum`")
            return nil
        }
        guard let (bytes, place) = secret(section, "token", "tokenFile", atLeast: 16) else { return nil }
        guard bytes.allSatisfy({ (0x21...0x7E).contains($0) }) else {
            mistake(place, section.path, "the token has characters that a header field cannot carry", "use letters and digits")
            return nil
        }
        return TokenDigest(of: String(decoding: bytes, as: UTF8.self))
    }

    private func trustedPeers(_ root: Section) -> [AddressRange] {
        (list(root, "trusted") ?? []).compactMap { node in
            guard let text = text(node, path: "trusted", example: "10.0.0.0/8") else { return nil }
            let range = AddressRange(text)
            if range == nil { mistake(node.place, "trusted", "`\(text)` is not a range of addresses", "write CIDR notation, such as 10.0.0.0/8 or ::1") }
            return range
        }
    }

    private func log(_ root: Section) -> LogConfiguration {
        var log = LogConfiguration()
        guard let section = section(root, "log", short: "level") else { return log }
        log.level = choice(section, "level", among: ["trace": Logger.Level.trace, "debug": .debug, "info": .info, "notice": .notice, "warning": .warning, "error": .error, "critical": .critical]) ?? log.level
        log.keys = choice(section, "keys", among: ["reference": .reference, "plain": .plain]) ?? log.keys
        log.destination = choice(section, "to", among: ["stderr": .standardError, "stdout": .standardOutput]) ?? log.destination
        if log.keys == .plain { warning(section["keys"]?.place ?? section.place, section.path("keys"), "clients' keys are written to the log in full", "use `keys: reference`") }
        return log
    }
}
