import SemelCore
import SemelHTTP
import Testing

@testable import SemelServer

/// One wrong configuration, and what must be said about it.
struct MistakeCase: CustomTestStringConvertible, Sendable {
    var name: String
    var text: String
    var line: Int
    var path: String
    var problem: String
    var remedy: String
    var isWarning = false

    init(_ name: String, _ text: String, line: Int, path: String, _ problem: String, remedy: String, isWarning: Bool = false) {
        self.name = name
        self.text = text
        self.line = line
        self.path = path
        self.problem = problem
        self.remedy = remedy
        self.isWarning = isWarning
    }

    var testDescription: String { name }

    /// In the scene's tenth line.
    static func scene(_ name: String, _ lines: String..., line: Int = 10, path: String, _ problem: String, remedy: String, isWarning: Bool = false) -> MistakeCase {
        var text = configuration()
        for line in lines { text += "    \(line)\n" }
        if !lines.contains(where: { $0.hasPrefix("effect") }) { text += "    effect: unknown\n" }
        return MistakeCase(name, text, line: line, path: path.isEmpty ? "scenes.payment.capture" : "scenes.payment.capture.\(path)", problem, remedy: remedy, isWarning: isWarning)
    }

    /// With another scope, on line 8, and a token that is verified.
    static func scoped(_ name: String, _ scope: String, _ line: String, path: String, _ problem: String, remedy: String, isWarning: Bool = false) -> MistakeCase {
        let text = configuration(scene: line, "jwt: { secret: \(String(repeating: "s", count: 32)) }").replacing("scope: none", with: "scope: \(scope)")
        return MistakeCase(name, text, line: 10, path: "scenes.payment.capture.\(path)", problem, remedy: remedy, isWarning: isWarning)
    }

    static let all: [MistakeCase] = [
        // The text as such.
        MistakeCase("broken YAML", "listen: 127.0.0.1:80\nstore: [a", line: 3, path: "", "not valid YAML", remedy: "bracket"),
        MistakeCase("a tab", "listen: 127.0.0.1:80\n\tstore: memory", line: 2, path: "", "not valid YAML", remedy: "spaces"),
        MistakeCase("a colon in text", "log: a: b", line: 1, path: "", "not valid YAML", remedy: "quotes"),
        MistakeCase("two documents", "store: memory\n---\nstore: memory\n", line: 2, path: "", "another document", remedy: "one document"),
        MistakeCase("a list", "- a\n", line: 1, path: "", "is a list", remedy: "listen"),
        MistakeCase("a name twice", "store: memory\nlisten: 127.0.0.1:80\nstore: sqlite:a\n", line: 3, path: "store", "first on line 1", remedy: "keep one"),
        MistakeCase("a quoted name twice in one line", "log: { level: info, 'level': debug }\n", line: 1, path: "level", "given twice", remedy: "keep one"),
        MistakeCase("a list as a name", "[a]: b\n", line: 1, path: "", "a name is expected", remedy: "quotes"),
        MistakeCase("a control character", "store: me\u{1}mory\n", line: 1, path: "", "control characters", remedy: "UTF-8"),
        MistakeCase("an undefined alias", "store: *here\n", line: 1, path: "", "undefined alias", remedy: "quotes"),
        MistakeCase("too large", "# " + String(repeating: "x", count: 300_000), line: 1, path: "", "larger than 256 KiB", remedy: "check"),
        MistakeCase("too deep", "a: " + String(repeating: "[", count: 40) + String(repeating: "]", count: 40), line: 1, path: "", "nested", remedy: "smaller"),
        MistakeCase("far too deep", "a: " + String(repeating: "[", count: 100_000), line: 1, path: "", "not valid YAML", remedy: "check"),

        // The server.
        MistakeCase("an unknown key", "\nlistn: 127.0.0.1:8080\n", line: 2, path: "listn", "no such key", remedy: "did you mean `listen`?"),
        MistakeCase("a far-off key", "colour: blue\n", line: 1, path: "colour", "no such key", remedy: "use one of admin, claims"),
        MistakeCase("a synonym", "port: 80\n", line: 1, path: "port", "no such key", remedy: "did you mean `listen`?"),
        MistakeCase("a bare port", "listen: 8080\n", line: 1, path: "listen", "without a host", remedy: "127.0.0.1:8080"),
        MistakeCase("a bad port", "listen: 127.0.0.1:99999\n", line: 1, path: "listen", "99999 is not between", remedy: "8080"),
        MistakeCase("no address", "listen: localhost\n", line: 1, path: "listen", "not an address", remedy: "HOST:PORT"),
        MistakeCase("a mapping as an address", "listen: { port: 80 }\n", line: 1, path: "listen", "a mapping stands where one value", remedy: "127.0.0.1:8080"),
        MistakeCase("one port for both", "listen: 127.0.0.1:8081\nadmin: 127.0.0.1:8081\n", line: 2, path: "admin", "both listen", remedy: "different ports"),
        MistakeCase("an open control plane", "admin: 0.0.0.0:8081\n", line: 1, path: "admin", "without tokens and TLS", remedy: "127.0.0.1"),
        MistakeCase(
            "a control plane without TLS", "admin:\n  listen: 0.0.0.0:8081\n  tokens: [{ name: a, token: 0123456789abcdef, role: viewer }]\n", line: 2, path: "admin",
            "without TLS", remedy: "127.0.0.1"),
        MistakeCase("a weak token", "admin:\n  tokens:\n    - { name: a, token: short, role: viewer }\n", line: 3, path: "admin.tokens.a.token", "5 bytes", remedy: "openssl"),
        MistakeCase("a token without a role", "admin:\n  tokens:\n    - { name: a, token: 0123456789abcdef }\n", line: 3, path: "admin.tokens.a", "no `role`", remedy: "viewer"),
        MistakeCase("an unknown role", "admin:\n  tokens:\n    - { name: a, token: 0123456789abcdef, role: opertor }\n", line: 3, path: "admin.tokens.a.role", "not one of", remedy: "did you mean `operator`?"),
        MistakeCase("a token file that is missing", "admin:\n  tokens:\n    - { name: a, tokenFile: ./no-such-file, role: viewer }\n", line: 3, path: "admin.tokens.a.tokenFile", "cannot read", remedy: "name a file"),
        MistakeCase(
            "claims tokens beside an open control plane", "claims:\n  tokens:\n    - { name: a, token: 0123456789abcdef, scopes: [orders] }\n", line: 3,
            path: "claims.tokens", "everybody on this machine may list, resolve and forget", remedy: "role: operator", isWarning: true),
        MistakeCase("a claims token without scopes", "claims:\n  tokens:\n    - { name: a, token: 0123456789abcdef }\n", line: 3, path: "claims.tokens.a", "no `scopes`", remedy: "scopes"),
        MistakeCase("a certificate without its key", "admin: { listen: 127.0.0.1:1, tls: { certificate: ./none.pem } }\n", line: 1, path: "admin.tls.key", "no `key`", remedy: "key.pem"),
        MistakeCase("a Redis URL without a host", "store: redis://\n", line: 1, path: "store", "names no host", remedy: "redis+cluster://HOST:PORT"),
        MistakeCase("a PostgreSQL store with a wrong URL", "store: postgres://127.0.0.1/semel?no_such=1\n", line: 1, path: "store", "cannot be understood", remedy: "postgres://"),
        MistakeCase("a misspelt store", "store: sqlit:./a.db\n", line: 1, path: "store", "not a store", remedy: "did you mean `sqlite:PATH`?"),
        MistakeCase("a store without a path", "store: 'sqlite:'\n", line: 1, path: "store", "names no file", remedy: "sqlite:PATH"),
        MistakeCase("an upstream without a scheme", "upstreams:\n  a: 127.0.0.1:9000\n", line: 2, path: "upstreams.a", "does not begin with http", remedy: "http://127.0.0.1:9000"),
        MistakeCase("an upstream with credentials", "upstreams:\n  a: http://user:pw@host/\n", line: 2, path: "upstreams.a", "credentials", remedy: "leave them out"),
        MistakeCase("an upstream with a bad port", "upstreams:\n  a: http://host:0/\n", line: 2, path: "upstreams.a", "not a host and a port", remedy: "http://"),
        MistakeCase("an upstream without a URL", "upstreams:\n  a: { timeout: 5s }\n", line: 2, path: "upstreams.a", "no `url`", remedy: "url:"),
        MistakeCase("TLS settings for http", "upstreams:\n  a: { url: http://h, tls: { } }\n", line: 2, path: "upstreams.a.tls", "has no TLS", remedy: "https"),
        MistakeCase("no number of connections", "upstreams:\n  a: { url: http://h, connections: many }\n", line: 2, path: "upstreams.a.connections", "not a whole number", remedy: "number"),
        MistakeCase("an unknown upstream for the rest", "upstreams: { payments: http://h }\nunmatched: payment\n", line: 2, path: "unmatched", "no upstream `payment`", remedy: "did you mean `payments`?"),
        MistakeCase("an unknown log level", "log: { level: warn }\n", line: 1, path: "log.level", "not one of", remedy: "warning"),
        MistakeCase("a bad range", "trusted: [10.0.0.0/33]\n", line: 1, path: "trusted", "not a range", remedy: "CIDR"),
        MistakeCase("a bare drain time", "drain: 30\n", line: 1, path: "drain", "unit is missing", remedy: "30s"),
        MistakeCase("a short secret", "secret: abc\n", line: 1, path: "secret", "can be guessed", remedy: "at least 32"),
        MistakeCase("scenes as a mapping", "scenes: { a: b }\n", line: 1, path: "scenes", "list of scenes", remedy: "- name"),
        MistakeCase("a scene that is text", "scenes: [a]\n", line: 1, path: "scenes.[0]", "where a mapping", remedy: "name: value"),
        MistakeCase("a scene without a name", "scenes:\n  - { effect: unknown }\n", line: 2, path: "scenes.[0]", "no `name`", remedy: "name:"),
        MistakeCase("a scene named with a space", "scenes:\n  - { name: 'a b' }\n", line: 2, path: "scenes.a b.name", "cannot name a scene", remedy: "letters"),
        MistakeCase("a scene without an upstream", "scenes:\n  - { name: a }\n", line: 2, path: "scenes.a.upstream", "no `upstream`", remedy: "upstreams"),
        MistakeCase("a scene that matches nothing", "scenes:\n  - { name: a }\n", line: 2, path: "scenes.a.match", "matches nothing", remedy: "methods"),
        MistakeCase("a scene without an effect", "scenes:\n  - { name: a }\n", line: 2, path: "scenes.a.effect", "guessing would be unsafe", remedy: "effect: unknown"),
        MistakeCase("two scenes of one name", configuration(scene: "effect: unknown") + "  - name: payment.capture\n", line: 11, path: "scenes.payment.capture", "two scenes", remedy: "its own name"),

        // A scene.
        .scene("an unknown key of a scene", "leese: 30s", path: "leese", "no such key", remedy: "did you mean `lease`?"),
        .scene("a key of a nested mapping", "retention: { respose: 24h }", path: "retention.respose", "no such key", remedy: "did you mean `response`?"),
        .scene("a duration without a unit (R3)", "lease: 3600", path: "lease", "unit is missing", remedy: "3600s"),
        .scene("a quoted duration without a unit (R3)", "lease: '3600'", path: "lease", "unit is missing", remedy: "3600s"),
        .scene("an unknown unit", "lease: 30 parsecs", path: "lease", "space before the unit", remedy: "250ms"),
        .scene("a lease of nothing", "lease: 0s", path: "lease", "no time at all", remedy: "above zero"),
        .scene("a lease too short to renew", "lease: 10ms", path: "lease", "too short", remedy: "50ms"),
        .scene("a size without a unit", "limits: { request: 1000 }", path: "limits.request", "unit is missing", remedy: "1000B"),
        .scene("an unknown size", "limits: { request: lots }", path: "limits.request", "begins with a whole number", remedy: "KiB"),
        .scene("a size too large", "limits: { response: 1GiB }", path: "limits.response", "more than the most", remedy: "64MiB"),
        .scene("no live keys", "limits: { liveKeys: 0 }", path: "limits.liveKeys", "not a whole number", remedy: "number"),
        .scene("an unknown effect", "effect: dedupes", path: "effect", "not an effect", remedy: "deduplicates"),
        .scene("a local effect behind a gateway", "effect: localTransaction", path: "effect", "cannot share a transaction", remedy: "library"),
        .scene("two effects", "effect: { deduplicates: { keeps: 1d }, queryable: { get: '/{key}', inFlight: 1s } }", path: "effect", "both", remedy: "keep the stronger"),
        .scene("an effect that keeps for an unknown time", "effect: { deduplicates: { header: K } }", path: "effect.deduplicates", "`keeps` is missing", remedy: "keeps: 24h"),
        .scene("a derived key without a secret", "effect: { deduplicates: { keeps: 1d, derive: true } }", path: "effect.deduplicates.derive", "needs a secret", remedy: "secretFile"),
        .scene("a query without a bound", "effect: { queryable: { get: '/{key}' } }", path: "effect.queryable", "`inFlight` is missing", remedy: "30s"),
        .scene("a query without the key", "effect: { queryable: { get: /payments, inFlight: 1s } }", path: "effect.queryable.get", "does not contain {key}", remedy: "{key}"),
        .scene("a question about a derived key without a secret", "effect: { queryable: { get: '/{derived}', inFlight: 1s } }", path: "effect.queryable.get", "needs a secret", remedy: "secretFile"),
        .scene("a question about something unknown", "effect: { queryable: { get: '/{tenant}/{key}', inFlight: 1s } }", path: "effect.queryable.get", "braces around something else", remedy: "{scope}"),
        .scoped("a question that cannot carry the token", "{ claim: sub }", "effect: { queryable: { get: '/{key}', inFlight: 1s } }", path: "effect.queryable.get", "cannot carry the client's token", remedy: "{scope}"),
        .scoped("a question that does not name the route", "{ header: X-Tenant, byRoute: true }", "effect: { queryable: { get: '/{key}', inFlight: 1s } }", path: "effect.queryable.get", "which route is meant", remedy: "{scope}"),
        .scoped("a question without a field that not every request brings", "{ header: X-Forwarded-User }", "effect: { queryable: { get: '/{key}', inFlight: 1s } }", path: "effect.queryable.get", "does not reach the target with every request", remedy: "{scope}"),
        .scene("a status that is both", "effect: { queryable: { get: '/{key}', inFlight: 1s, applied: [200, 404] } }", path: "effect.queryable.absent", "404 is listed as applied and as absent", remedy: "once"),
        .scene("an error taken for absent", "effect: { queryable: { get: '/{key}', inFlight: 1s, absent: [404, 503] } }", path: "effect.queryable.absent", "503 tells that the question was not answered", remedy: "404"),
        .scene("an over-claimed guarantee", "guarantee: deduplicatedByTarget", path: "guarantee", "more than its parts can keep, which is atMostOnce", remedy: "effect: deduplicates"),
        .scene("an unknown guarantee", "guarantee: exactlyOnce", path: "guarantee", "not one of", remedy: "atLeastOnce"),
        .scene("a rerun of the unknown", "onError: rerun", path: "onError", "can bear a second run", remedy: "declare the effect"),
        .scene("a wait without a time", "onConcurrent: wait", path: "onConcurrent", "wait for ever", remedy: "waiters"),
        .scene("waiters without a wait", "onConcurrent: { waiters: 5 }", path: "onConcurrent", "no `wait`", remedy: "wait: 10s"),
        .scene("a fallback without a second store", "onStoreFailure: fallback", path: "onStoreFailure", "no second store", remedy: "fallback: sqlite:./fallback.db"),
        .scene("a misspelt rule for a store that is away", "onStoreFailure: fallbak", path: "onStoreFailure", "not one of", remedy: "did you mean `fallback`?"),
        MistakeCase("a server as the second store", "fallback: postgres://me:pw@127.0.0.1/semel\n", line: 1, path: "fallback", "cannot be the second store", remedy: "sqlite:PATH"),
        MistakeCase("a Redis as the second store", "fallback: redis://127.0.0.1\n", line: 1, path: "fallback", "cannot be the second store", remedy: "sqlite:PATH"),
        MistakeCase("a second store of no kind", "fallback: true\n", line: 1, path: "fallback", "not a second store", remedy: "or memory"),
        MistakeCase("a second store without a path", "fallback: 'sqlite:'\n", line: 1, path: "fallback", "names no file", remedy: "fallback.db"),
        MistakeCase("a mapping as a second store", "fallback: { sqlite: a.db }\n", line: 1, path: "fallback", "a mapping", remedy: "sqlite:./fallback.db"),
        MistakeCase("the store as its own second", "store: sqlite:./a.db\nfallback: sqlite:x/../a.db\n", line: 2, path: "fallback", "the file of the store itself", remedy: "another path"),
        MistakeCase("a second store behind memory", "store: memory\nfallback: sqlite:a.db\n", line: 2, path: "fallback", "never away", remedy: "remove"),
        MistakeCase(
            "more than two stores can keep", "fallback: sqlite:./fallback.db\n" + configuration(scene: "effect: unknown", "onStoreFailure: fallback", "guarantee: atMostOnce"),
            line: 13, path: "scenes.payment.capture.guarantee", "more than its parts can keep, which is bestEffort", remedy: "onStoreFailure: closed"),
        MistakeCase(
            "more than any of the stores could keep", "fallback: sqlite:./fallback.db\n" + configuration(scene: "effect: unknown", "onStoreFailure: fallback", "guarantee: verified"),
            line: 13, path: "scenes.payment.capture.guarantee", "more than its parts can keep, which is bestEffort", remedy: "declare effect: queryable"),
        .scene("a mode", "mode: enforced", path: "mode", "not one of", remedy: "did you mean `enforce`?"),
        .scene("a key kept for less than its response", "retention: { response: 24h, key: 1h }", path: "retention.key", "cannot outlive", remedy: "at least as long"),
        .scene("a key kept for less than requests are repeated (H22)", "retention: { response: 1h, key: 1d }", "redelivery: 7d", path: "retention.key", "would run again", remedy: "at least as long"),
        .scene("a selector", "key: { body: [order_id] }", path: "key.body", "wrong at character 1", remedy: "$.order_id"),
        .scene("two sources of the key", "key: { header: A, body: [$.a] }", path: "key", "both `header` and `body`", remedy: "keep the one"),
        .scene("no header's name", "key: { header: 'a b' }", path: "key.header", "not the name of a header field", remedy: "Idempotency-Key"),
        .scene("neither true nor false", "key: { required: maybe }", path: "key.required", "neither true nor false", remedy: "true or false"),
        .scene("selected fields of raw bytes", "fingerprint: { body: raw, select: [$.a] }", path: "fingerprint", "taken raw", remedy: "body: json"),
        .scene("a token without a key", "jwt: { issuer: me }", path: "jwt", "no key to verify", remedy: "keySet"),
        .scene("a replayed cookie", "replay: [Set-Cookie]", path: "replay.fields", "never replayed", remedy: "remove"),
        .scene("a replayed length", "replay: [X-Receipt, Content-Length]", path: "replay.fields", "never replayed", remedy: "remove"),
        .scene("a replayed field of ours", "replay: [Idempotent-Replayed]", path: "replay.fields", "never replayed", remedy: "remove"),
        .scene("a token path with a wildcard", "tokens: /v1/*", path: "tokens", "not one path", remedy: "/v1/payments/tokens"),
        .scene("a status that is none", "notStarted: [42]", path: "notStarted", "not a whole number from 400 to 599", remedy: "400"),
        MistakeCase("a GET", configuration(scene: "effect: unknown").replacing("[POST]", with: "[GET]"), line: 6, path: "scenes.payment.capture.match.methods", "changes nothing", remedy: "pass through"),
        MistakeCase("a small method", configuration(scene: "effect: unknown").replacing("[POST]", with: "[post]"), line: 6, path: "scenes.payment.capture.match.methods", "not a method", remedy: "POST"),
        MistakeCase("a pattern", configuration(scene: "effect: unknown").replacing("/v1/payments/**", with: "/v1/**/x"), line: 6, path: "scenes.payment.capture.match.path", "** before its end", remedy: "/v1/*/capture"),
        MistakeCase("an unknown upstream", configuration(scene: "effect: unknown").replacing("upstream: payments", with: "upstream: payment"), line: 7, path: "scenes.payment.capture.upstream", "no upstream `payment`", remedy: "did you mean `payments`?"),
        MistakeCase("a bearer token as a scope", configuration(scene: "effect: unknown").replacing("scope: none", with: "scope: { header: Authorization }"), line: 8, path: "scenes.payment.capture.scope", "rotate", remedy: "stable identity"),
        MistakeCase("a claim without a token", configuration(scene: "effect: unknown").replacing("scope: none", with: "scope: { claim: sub }"), line: 8, path: "scenes.payment.capture.scope", "verifies none", remedy: "jwt"),

        // Warnings.
        .scene("a key with a time in it (H31)", "key: { body: [$.order_id, $.meta.timestamp] }", path: "key", "minted anew", remedy: "order's number", isWarning: true),
        .scene("a key that is a fresh id (R4)", "key: { body: [$.request_id] }", path: "key", "minted anew", remedy: "order's number", isWarning: true),
        .scene("a key from a request id (H31)", "key: { header: X-Request-Id }", path: "key", "differs between a request and its retry", remedy: "Idempotency-Key", isWarning: true),
        .scene("running while the store is down", "onStoreFailure: open", path: "onStoreFailure", "unprotected", remedy: "closed", isWarning: true),
        MistakeCase("a second store for nobody", "fallback: sqlite:./fallback.db\n", line: 1, path: "fallback", "no scene falls back", remedy: "onStoreFailure: fallback", isWarning: true),
        MistakeCase(
            "a second store that forgets", "fallback: memory\n" + configuration(scene: "effect: deduplicates", "onStoreFailure: fallback"), line: 1, path: "fallback", "forgotten when the process ends",
            remedy: "sqlite:PATH", isWarning: true),
        MistakeCase(
            "a level that a second store lowers", "fallback: sqlite:./fallback.db\n" + configuration(scene: "effect: unknown", "onStoreFailure: fallback"), line: 12,
            path: "scenes.payment.capture.onStoreFailure", "lowered to bestEffort", remedy: "onStoreFailure: closed", isWarning: true),
        .scene("only observing", "mode: observe", path: "mode", "nothing is promised", remedy: "enforce", isWarning: true),
        .scoped("tenants that a target may take for one", "{ header: X-Tenant }", "effect: deduplicates", path: "effect", "unless it tells tenants apart itself", remedy: "derive: true", isWarning: true),
        .scene("a target that forgets early", "effect: { deduplicates: { keeps: 1h } }", path: "effect", "the level is lowered to atLeastOnce", remedy: "redelivery", isWarning: true),
        MistakeCase("a store that forgets", configuration(scene: "effect: unknown").replacing("sqlite:./semel.db", with: "memory"), line: 5, path: "scenes.payment.capture.guarantee", "lowered to bestEffort", remedy: "durable store", isWarning: true),
        MistakeCase("an unauthorised replay", configuration(scene: "effect: unknown").replacing("    authorize: http://127.0.0.1:9000/authorize\n", with: ""), line: 5, path: "scenes.payment.capture.authorize", "unauthorised replay", remedy: "jwt", isWarning: true),
        MistakeCase("no scope (H33)", configuration(scene: "effect: unknown").replacing("    scope: none\n", with: ""), line: 5, path: "scenes.payment.capture.scope", "another's result", remedy: "scope: none", isWarning: true),
        MistakeCase("keys in the log", "log: { keys: plain }\n", line: 1, path: "log.keys", "in full", remedy: "reference", isWarning: true),
        MistakeCase("nowhere to go", "upstreams:\n  a: http://a\n  b: http://b\n", line: 2, path: "unmatched", "404", remedy: "unmatched: a", isWarning: true),
        MistakeCase(
            "a scene that is never reached", configuration(scene: "effect: unknown") + "  - name: later\n    upstream: payments\n    scope: none\n    authorize: http://a\n    effect: unknown\n    match: { methods: [POST], path: /v1/payments/*/capture }\n",
            line: 16, path: "scenes.later.match", "no request ever reaches", remedy: "before `payment.capture`", isWarning: true),
    ]
}

@Suite("Mistakes in a configuration")
struct ConfigurationMistakeTests {
    @Test("each is found on its line, with what is wrong and what to do", arguments: MistakeCase.all)
    func found(_ mistake: MistakeCase) throws {
        let reading = ConfigurationReader.read(text: mistake.text, file: "semel.yaml")
        let found = try #require(
            reading.diagnostics.first { $0.path == mistake.path && $0.problem.contains(mistake.problem) }, "\(reading.diagnostics)")
        guard case .position("semel.yaml", let line, let column) = found.place else {
            Issue.record("no position: \(found)")
            return
        }
        #expect(line == mistake.line, "\(found)")
        #expect(column >= 1)
        #expect(found.remedy.contains(mistake.remedy), "\(found)")
        #expect(found.severity == (mistake.isWarning ? .warning : .mistake))
        if mistake.isWarning {
            #expect(reading.mistakes.isEmpty && reading.configuration != nil, "\(reading.diagnostics)")
        } else {
            #expect(reading.configuration == nil)
        }
    }

    @Test("all of them are said at once, in the order of the file")
    func atOnce() {
        let reading = ConfigurationReader.read(
            text: """
                listen: 127.0.0.1:99999
                store: redis://x
                store: memory
                upstreams: { payments: http://127.0.0.1:9000 }
                scenes:
                  - name: a
                    match: { methods: [POST], path: /a }
                    upstream: paymens
                    effect: unknown
                    lease: 3600
                    onError: rerun
                    guarantee: atomic
                    colour: red
                """, file: "semel.yaml")
        #expect(
            reading.mistakes.map { "\($0.place) \($0.path)" } == [
                "semel.yaml:1:9 listen", "semel.yaml:3:1 store", "semel.yaml:8:15 scenes.a.upstream", "semel.yaml:10:12 scenes.a.lease",
                "semel.yaml:11:14 scenes.a.onError", "semel.yaml:12:16 scenes.a.guarantee", "semel.yaml:13:5 scenes.a.colour",
            ])
        #expect(reading.mistakes[0].description == "semel.yaml:1:9: error: listen: the port 99999 is not between 0 and 65535. Remedy: write a port such as 8080.")
    }

    @Test("aliases that stand for more than fits into memory are refused in no time")
    func aliasBomb() {
        var text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        for level in 1...30 { text += "a\(level): &a\(level) [\((0..<10).map { _ in "*a\(level - 1)" }.joined(separator: ", "))]\n" }
        #expect(ConfigurationReader.read(text: text, file: "f").mistakes.first?.problem.contains("aliases") == true)
        // Few enough to be let through, many enough to be large: bounded by the number of values.
        var key = "a0: &a0 [" + String(repeating: "x, ", count: 2000) + "x]\n"
        for level in 1...5 { key += "a\(level): &a\(level) [*a\(level - 1), *a\(level - 1), *a\(level - 1)]\n" }
        key += "? *a5\n: 1\n"
        #expect(ConfigurationReader.read(text: key, file: "f").configuration == nil)
    }

    @Test("a few aliases are what they stand for")
    func aliases() throws {
        let text = configuration(scene: "effect: unknown", "retention: &keep { response: 1h, key: 2d }").replacing("drain", with: "drain")
        let second = "  - name: second\n    match: /second\n    upstream: payments\n    effect: unknown\n    scope: none\n    authorize: http://a\n    retention: *keep\n"
        let reading = ConfigurationReader.read(text: text + second, file: "f")
        #expect(reading.configuration?.scenes.map(\.http.policy.retention.key) == [.seconds(172_800), .seconds(172_800)], "\(reading.diagnostics)")
    }

    @Test("whatever bytes a file holds, reading it ends with an answer", arguments: 0..<40)
    func noise(_ seed: Int) {
        var state = UInt64(seed) &* 0x9E37_79B9_7F4A_7C15 &+ 1
        func next(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % bound
        }
        var bytes = Array(exampleConfiguration.utf8)
        for _ in 0..<1 + next(30) {
            let position = next(bytes.count)
            switch next(3) {
            case 0: bytes[position] = UInt8(next(256))
            case 1: bytes.remove(at: position)
            default: bytes.insert(contentsOf: Array("{}[]:,&*!|>'\"%@`#?- \n\t".utf8)[next(22)...].prefix(1 + next(3)), at: position)
            }
        }
        let reading = ConfigurationReader.read(text: String(decoding: bytes, as: UTF8.self), file: "f")
        #expect((reading.configuration == nil) == !reading.mistakes.isEmpty)
    }

    @Test("a file that is missing, a directory, too large or no text is said so")
    func files() throws {
        #expect(ConfigurationReader.read(file: "/no/such/file.yaml", environment: [:]).mistakes[0].problem.contains("No such file"))
        #expect(ConfigurationReader.read(file: "/", environment: [:]).mistakes[0].problem.contains("not a file"))
        #expect(ConfigurationReader.read(file: "/dev/zero", environment: [:]).mistakes[0].problem.contains("larger than 256 KiB"))
    }
}
