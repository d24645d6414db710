internal import Foundation
internal import HTTPTypes
internal import SemelCore
internal import SemelHTTP

/// Reads one scene.
struct SceneReader {
    let reader: ConfigurationReader
    let root: Section
    let section: Section
    let upstreams: [String: Upstream]
    let plainStore: StoreCapabilities
    /// The store and the second one behind it; `nil` without a second one.
    let pair: StoreCapabilities?
    let derivation: Secret?

    var usesFallback: Bool { section["onStoreFailure"]?.scalar == "fallback" }

    /// The store that the scene's records go to.
    var store: StoreCapabilities { usesFallback ? pair ?? plainStore : plainStore }

    func scene(named name: String) -> SceneConfiguration? {
        let match = match()
        if section["upstream"] == nil {
            mistake("upstream", at: section.place, "the scene has no `upstream`", "write the name of one under `upstreams`")
        }
        let upstream = reader.upstream(named: "upstream", in: section, among: upstreams, declared: root)
        let effect = effect()
        let jwt = jwt()
        var http = HTTPPolicy(policy: policy(named: name, effect: effect?.effect ?? .unknown), scopeSource: .none)
        http.methods = match?.methods ?? http.methods
        readKey(into: &http)
        readScope(into: &http, hasTokens: jwt != nil || section["jwt"] != nil)
        readFingerprint(into: &http)
        readAnswers(into: &http)
        let authorization = authorization(jwt)
        let tokensPath = tokensPath()
        check(&http.policy)
        if let effect { checkScope(of: http, reaches: effect) }
        guard let match, let upstream, let effect else { return nil }
        let scene = try? SceneConfiguration(
            match: match, upstream: upstream, http: http, effectQuery: effect.query, downstreamKey: effect.downstreamKey,
            replayAuthorization: authorization, jwt: jwt, tokensPath: tokensPath, usesFallback: usesFallback, store: store)
        if let scene { warn(about: scene) }
        return scene
    }

    func mistake(_ key: String, at place: ConfigurationNode.Place? = nil, _ problem: String, _ remedy: String) {
        reader.mistake(place ?? section[key]?.place ?? section.place, section.path(key), problem, remedy)
    }

    func warning(_ key: String, at place: ConfigurationNode.Place? = nil, _ problem: String, _ remedy: String) {
        reader.warning(place ?? section[key]?.place ?? section.place, section.path(key), problem, remedy)
    }

    // MARK: Which requests

    private func match() -> RouteMatch? {
        guard section["match"] != nil else {
            mistake("match", "the scene matches nothing", "write `match: { methods: [POST], path: /v1/payments/** }`")
            return nil
        }
        guard let match = reader.section(section, "match", short: "path") else { return nil }
        let methods = reader.list(match, "methods").map(methods)
        guard let node = match["path"] else {
            reader.mistake(match.place, match.path, "there is no `path`", "write `path: /v1/payments/**`")
            return nil
        }
        guard let text = reader.text(node, path: match.path("path"), example: "/v1/payments/**") else { return nil }
        do {
            let path = try PathPattern(text)
            return RouteMatch(methods: methods ?? [.post, .patch], path: path)
        } catch {
            reader.mistake(node.place, match.path("path"), "`\(text)` \(error)", "write a path such as /v1/payments/** or /v1/*/capture")
            return nil
        }
    }

    private func methods(_ nodes: [ConfigurationNode]) -> Set<HTTPRequest.Method> {
        let path = section.path("match.methods")
        if nodes.isEmpty { mistake("match", "the list of methods is empty", "write `methods: [POST]`") }
        return Set(nodes.compactMap { node in
            guard let text = reader.text(node, path: path, example: "POST") else { return nil }
            guard let method = HTTPRequest.Method(rawValue: text), text == text.uppercased() else {
                reader.mistake(node.place, path, "`\(text)` is not a method", "write it in capitals: \(text.uppercased())")
                return nil
            }
            guard ![.get, .head, .options, .trace, .connect].contains(method) else {
                reader.mistake(node.place, path, "\(text) changes nothing, so there is nothing to make happen once", "remove it; such requests pass through")
                return nil
            }
            return method
        })
    }

    // MARK: Key, scope, fingerprint

    private func readKey(into http: inout HTTPPolicy) {
        guard let key = reader.section(section, "key") else { return }
        http.keyRequired = reader.boolean(key, "required") ?? http.keyRequired
        http.keySyntax = reader.choice(key, "syntax", among: ["strict": .strict, "lenient": .lenient]) ?? http.keySyntax
        if let body = key["body"] {
            if key["header"] != nil { mistake("key", at: body.place, "both `header` and `body` are given", "keep the one the key comes from") }
            if let syntax = key["syntax"] { mistake("key", at: syntax.place, "`syntax` is about a header field, and the key is taken from the body", "remove `syntax`") }
            let selectors = selectors(key, "body")
            http.keySource = .body(selectors.map(\.selector))
            for (selector, node) in selectors where KeyStability.isUnstable(selector: node.scalar ?? selector.description) {
                warning("key", at: node.place, "`\(node.scalar ?? "")` looks like a value that is minted anew at each attempt; a key with it never finds its first request", "use fields that a retry repeats, such as an order's number")
            }
        } else if let name = reader.fieldName(key, "header", example: "Idempotency-Key") {
            http.keySource = .header(name)
            if KeyStability.isUnstable(field: name) {
                warning("key", at: key["header"]?.place, "\(name.rawName) usually differs between a request and its retry; a key from it never finds its first request", "use Idempotency-Key, or fields of the body")
            }
        }
    }

    private func readScope(into http: inout HTTPPolicy, hasTokens: Bool) {
        guard let node = section["scope"] else {
            warning("scope", "there is no `scope`: all clients share one space of keys, and one may be answered with another's result", "write `scope: { header: X-Tenant }` or `scope: { claim: sub }`, or say so with `scope: none`")
            return
        }
        if node.scalar == "none" { return }
        guard let scope = reader.section(section, "scope") else { return }
        http.scopesByRoute = reader.boolean(scope, "byRoute") ?? false
        if let status = reader.integer(scope, "missing", in: 400...499) {
            if status != 401 && status != 403 { mistake("scope", at: scope["missing"]?.place, "`missing: \(status)` is neither 401 nor 403", "write 403, or 401 where clients can then authenticate") }
            http.scopeMissingStatus = status
        }
        switch (scope["header"], scope["claim"]) {
        case (.some, .some(let claim)): mistake("scope", at: claim.place, "both `header` and `claim` are given", "keep one of the two")
        case (.some(let header), nil):
            guard let name = reader.fieldName(scope, "header", example: "X-Tenant") else { return }
            if name == .authorization || name == .cookie || name == .proxyAuthorization {
                mistake("scope", at: header.place, "\(name.rawName) carries credentials that rotate: a retry with new ones would be a new operation", "use a stable identity: `scope: { claim: sub }` with `jwt`, or a header that the network sets")
            }
            http.scopeSource = .header(name)
        case (nil, .some(let claim)):
            guard let name = reader.text(claim, path: scope.path("claim"), example: "sub") else { return }
            if !hasTokens { mistake("scope", at: claim.place, "the scope is a claim of a token, and the scene verifies none", "add `jwt: { keySet: ./keys.json }` to the scene") }
            if ["jti", "iat", "exp", "nbf", "nonce"].contains(name) {
                mistake("scope", at: claim.place, "the claim `\(name)` differs from token to token: a retry with a new one would be a new operation", "use a stable claim, such as sub")
            }
            http.scopeSource = .tokenClaim(name)
        case (nil, nil):
            if scope["byRoute"] == nil { mistake("scope", at: scope.place, "the scope has no source", "write `header`, `claim` or `scope: none`") }
        }
    }

    private func readFingerprint(into http: inout HTTPPolicy) {
        guard let fingerprint = reader.section(section, "fingerprint", short: "body") else { return }
        let body = reader.choice(fingerprint, "body", among: ["raw": HTTPPolicy.BodyFingerprint.raw, "json": .canonicalJSON])
        if let select = fingerprint["select"] {
            if fingerprint["body"] != nil, body == .raw { mistake("fingerprint", at: select.place, "`select` names fields of JSON, and the body is taken raw", "write `body: json`, or remove `select`") }
            http.fingerprint = .selected(selectors(fingerprint, "select").map(\.selector))
        } else {
            http.fingerprint = body ?? http.fingerprint
        }
    }

    private func selectors(_ parent: Section, _ name: String) -> [(selector: JSONSelector, node: ConfigurationNode)] {
        guard let nodes = reader.list(parent, name) else { return [] }
        let path = parent.path(name)
        if nodes.isEmpty { reader.mistake(parent[name]?.place ?? parent.place, path, "the list is empty", "name at least one field, such as $.order_id") }
        var seen: Set<JSONSelector> = []
        return nodes.compactMap { node in
            guard let text = reader.text(node, path: path, example: "$.order_id") else { return nil }
            do throws(JSONSelectorError) {
                let selector = try JSONSelector(text)
                if !seen.insert(selector).inserted { reader.mistake(node.place, path, "`\(text)` is listed twice", "list it once") }
                return (selector, node)
            } catch {
                reader.mistake(node.place, path, "`\(text)` is wrong at character \(error.column): \(error.problem)", error.remedy)
                return nil
            }
        }
    }

    // MARK: Answers

    private func readAnswers(into http: inout HTTPPolicy) {
        http.notStarted = reader.statuses(section, "notStarted", in: 400...599) ?? http.notStarted
        if let replay = reader.section(section, "replay", short: "fields"), let nodes = reader.list(replay, "fields") {
            http.replayedFields = Set(nodes.compactMap { node in
                guard let name = reader.fieldName(node, path: replay.path("fields"), example: "X-Receipt") else { return nil }
                if HTTPPolicy.neverReplayed.contains(name) {
                    reader.mistake(node.place, replay.path("fields"), "\(name.rawName) belongs to one client, one connection or one answer, and is never replayed", "remove it")
                }
                return name
            })
        }
        guard let limits = reader.section(section, "limits") else { return }
        http.requestLimit = reader.size(limits, "request", upTo: 1 << 30) ?? http.requestLimit
        http.responseLimit = reader.size(limits, "response", upTo: 64 << 20) ?? http.responseLimit
    }

    private func tokensPath() -> String? {
        guard let tokens = reader.section(section, "tokens", short: "path"), let text = reader.text(tokens, "path", example: "/v1/payments/tokens") else { return nil }
        if let pattern = try? PathPattern(text), !pattern.isOpen, !pattern.segments.contains(.any) { return text }
        mistake("tokens", "`\(text)` is not one path", "write a path such as /v1/payments/tokens")
        return nil
    }

    // MARK: Who may see a replay

    private func authorization(_ jwt: JWTSettings?) -> ReplayAuthorization {
        if let authorize = reader.section(section, "authorize", short: "url") {
            guard let node = authorize["url"] else {
                mistake("authorize", "there is no `url`", "write `authorize: { url: http://127.0.0.1:9000/authorize }`")
                return .none
            }
            return reader.url(node, path: authorize.path).map { .subrequest(url: "\($0.transport.rawValue)://\($0.address)\($0.path.isEmpty ? "/" : $0.path)") } ?? .none
        }
        return jwt == nil ? .none : .token
    }

    private func jwt() -> JWTSettings? {
        guard let jwt = reader.section(section, "jwt") else { return nil }
        #if !JWT
        mistake("jwt", "this build of semel cannot verify tokens", "build it with the trait JWT")
        #endif
        let issuer = jwt["issuer"] == nil ? nil : reader.text(jwt, "issuer", example: "https://issuer.example")
        let audience = jwt["audience"] == nil ? nil : reader.text(jwt, "audience", example: "payments")
        let hasSecret = jwt["secret"] != nil || jwt["secretFile"] != nil
        if let keySet = jwt["keySet"] {
            if hasSecret { mistake("jwt", at: keySet.place, "both a secret and a key set are given", "keep one of the two") }
            guard let contents = reader.contents(of: keySet, path: jwt.path("keySet")) else { return nil }
            struct KeySet: Decodable {
                struct Key: Decodable { var kty: String }
                var keys: [Key]
            }
            guard let set = try? JSONDecoder().decode(KeySet.self, from: Data(contents)), !set.keys.isEmpty else {
                mistake("jwt", at: keySet.place, "\(keySet.scalar ?? "the file") is not a JSON Web Key Set with at least one key", "save the issuer's `jwks_uri` as this file")
                return nil
            }
            return JWTSettings(issuer: issuer, audience: audience, key: .keySet(String(decoding: contents, as: UTF8.self)))
        }
        guard hasSecret else {
            mistake("jwt", "there is no key to verify tokens with", "write `keySet: ./keys.json`, or `secretFile: PATH` for HS256")
            return nil
        }
        return reader.secret(jwt, "secret", "secretFile", atLeast: 32).map { JWTSettings(issuer: issuer, audience: audience, key: .secret(Secret(bytes: $0.bytes))) }
    }
}
