import HTTPTypes
import Logging
import SemelCore
import SemelHTTP
import Testing

@testable import SemelServer

@Suite("Reading a configuration")
struct ConfigurationReaderTests {
    private func read(_ text: String, _ environment: [String: String] = [:]) throws -> ServerConfiguration {
        let reading = ConfigurationReader.read(text: text, file: "semel.yaml", environment: environment)
        return try #require(reading.configuration, "\(reading.diagnostics)")
    }

    @Test("the documented example is read in full, without a warning")
    func example() throws {
        let reading = ConfigurationReader.read(text: exampleConfiguration, file: "semel.yaml")
        #expect(reading.diagnostics.isEmpty, "\(reading.diagnostics)")
        let configuration = try #require(reading.configuration)
        #expect(configuration.listen == ListenAddress(host: "127.0.0.1", port: 8080))
        #expect(configuration.admin.listen == ListenAddress(host: "127.0.0.1", port: 8081))
        #expect(configuration.store == .sqlite(path: "./semel.db"))
        #expect(configuration.unmatched?.url == "http://127.0.0.1:9000")
        let scene = try #require(configuration.scenes.first)
        #expect(scene.name == "payment.capture")
        #expect(scene.http.keySource == .header(.idempotencyKey))
        #expect(scene.http.keyRequired)
        #expect(scene.http.scopeSource == .header(HTTPField.Name("X-Tenant")!))
        #expect(scene.http.policy.minimum == .atMostOnce)
        #expect(scene.http.policy.retention == .standard)
        #expect(scene.http.policy.lease == .seconds(30))
        #expect(scene.http.policy.liveKeys == 1_000_000)
        #expect(scene.http.requestLimit == 1 << 20)
        #expect(scene.http.responseLimit == 256 << 10)
        #expect(scene.assessment.level == .atMostOnce)
        #expect(scene.replayAuthorization == .subrequest(url: "http://127.0.0.1:9000/authorize"))
    }

    @Test("an empty configuration is the default: a gateway on loopback that has nowhere to go")
    func empty() throws {
        #expect(try read("") == ServerConfiguration())
    }

    @Test("a second store lowers the level of the scenes that fall back to it, and of no other")
    func fallback() throws {
        let second = "  - name: second\n    match: /second\n    upstream: payments\n    effect: unknown\n    scope: none\n    authorize: http://a\n    guarantee: atMostOnce\n"
        let configuration = try read("fallback: sqlite:./fallback.db\n" + configuration(scene: "effect: unknown", "onStoreFailure: fallback") + second)
        #expect(configuration.fallback == .sqlite(path: "./fallback.db") && configuration.fallbackScenes == ["payment.capture"])
        #expect(configuration.scenes.map(\.usesFallback) == [true, false])
        #expect(configuration.scenes.map(\.assessment.level) == [.bestEffort, .atMostOnce])
        #expect(configuration.scenes[0].assessment.reasons.contains { $0.contains("while the sqlite store is away") })
        #expect(configuration.scenes.map(\.http.policy.onStoreFailure) == [.closed, .closed], "what neither store can decide is refused")
        let reports = configuration.scenes.map { SceneReport($0).document["on_store_failure"]?.string }
        #expect(reports == ["fallback", "closed"])
        // A target that deduplicates needs no store for that.
        let dedup = try read("fallback: memory\n" + ConfigurationReaderTests.fallingBack("guarantee: deduplicatedByTarget"))
        #expect(dedup.scenes[0].assessment.level == .deduplicatedByTarget)
    }

    private static func fallingBack(_ line: String) -> String {
        configuration(scene: "effect: deduplicates", "onStoreFailure: fallback", line)
    }

    @Test("effects are read in their short and their long forms")
    func effects() throws {
        let short = try read(configuration(scene: "effect: deduplicates")).scenes[0]
        #expect(short.http.policy.effect == .deduplicates(keeps: .seconds(24 * 3600)))
        #expect(short.downstreamKey == DownstreamKey(header: .idempotencyKey))
        #expect(short.assessment.level == .deduplicatedByTarget)

        let secret = String(repeating: "s", count: 32)
        let derived = try read("secret: \(secret)\n" + configuration(scene: "effect: { deduplicates: { header: X-Request-Key, keeps: 7d, derive: true } }")).scenes[0]
        #expect(derived.downstreamKey == DownstreamKey(header: HTTPField.Name("X-Request-Key")!, value: .derived(Secret(bytes: Array(secret.utf8)))))

        let queryable = try read(configuration(scene: "effect: { queryable: { get: /v1/payments?key={key}, applied: 200, absent: [404, 410], inFlight: 30s, fence: Semel-Epoch, outcome: response } }")).scenes[0]
        #expect(queryable.http.policy.effect == .queryable(inFlight: .seconds(30), isFenced: true))
        #expect(queryable.assessment.level == .fencedAndVerified)
        let query = try #require(queryable.effectQuery)
        #expect(query == EffectQuery(path: "/v1/payments?key={key}", applied: [200], absent: [404, 410], inFlight: .seconds(30), fence: .semelEpoch, outcome: .response))
        #expect(query.path(for: OperationID(scope: Scope("http"), key: try OperationKey("a/b c&ü"))) == "/v1/payments?key=a%2Fb%20c%26%C3%BC")
    }

    @Test("a question names the operation's scope, or a key derived from both, where its path asks for that")
    func scopedQuestions() throws {
        let id = OperationID(scope: Scope("http", "a,b", "POST", "/v1"), key: try OperationKey("k{scope}"))
        #expect(EffectQuery(path: "/q/{scope}/{key}", inFlight: .zero).path(for: id) == "/q/a%2Cb,POST,%2Fv1/k%7Bscope%7D")
        #expect(EffectQuery(path: "/q?k={derived}", inFlight: .zero).path(for: id, derivedKey: "0a") == "/q?k=0a")

        let secret = "secret: \(String(repeating: "s", count: 32))\n"
        let text = configuration(scene: "effect: { queryable: { get: '/q/{derived}', inFlight: 30s, header: X-Key } }")
        let scene = try read(secret + text).scenes[0]
        #expect(scene.downstreamKey?.header == HTTPField.Name("X-Key")!)
        #expect(scene.downstreamKey?.derivedText(for: id) != nil)
        // The secret is not pinned, and whether it is still the same one is.
        let other = try read("secret: \(String(repeating: "t", count: 32))\n" + text).scenes[0]
        #expect(!scene.pinned.text.contains("ssss") && scene.pinned != other.pinned)
    }

    @Test("the field of a scope is asked with, and pinned")
    func scopeField() throws {
        let text = configuration(scene: "effect: { queryable: { get: '/q/{key}', inFlight: 30s } }")
        let scene = try read(text.replacing("scope: none", with: "scope: { header: X-Tenant }")).scenes[0]
        #expect(scene.http.scopeField == HTTPField.Name("X-Tenant")!)
        #expect(PinnedScene(scene.pinned)?.query?.scopeField == "X-Tenant")
        #expect(scene.pinned != (try read(text)).scenes[0].pinned)
    }

    @Test("keys from the body, selected fingerprints, waiting and limits are read")
    func details() throws {
        let scene = try read(
            configuration(
                scene: "effect: unknown", "key: { body: [$.order_id, $.version] }", "fingerprint: { body: json, select: [$.amount] }",
                "onConcurrent: { wait: 10s, waiters: 7 }", "redelivery: 7d", "retention: { response: 1h, key: 8d }", "notStarted: [429, 503]",
                "replay: [X-Receipt]", "tokens: /v1/payments/tokens", "progress: 5m", "limits: { request: 2MiB, response: 512B, liveKeys: 5 }")
        ).scenes[0]
        #expect(scene.http.keySource == .body([try JSONSelector("$.order_id"), try JSONSelector("$.version")]))
        #expect(scene.http.fingerprint == .selected([try JSONSelector("$.amount")]))
        #expect(scene.http.policy.onConcurrent == .wait(.seconds(10), waiters: 7))
        #expect(scene.http.policy.horizon == .seconds(7 * 86400))
        #expect(scene.http.policy.progress == .seconds(300))
        #expect(scene.http.policy.liveKeys == 5)
        #expect(scene.http.notStarted == [429, 503])
        #expect(scene.http.replayedFields == [HTTPField.Name("X-Receipt")!])
        #expect(scene.http.requestLimit == 2 << 20)
        #expect(scene.http.responseLimit == 512)
        #expect(scene.tokensPath == "/v1/payments/tokens")
    }

    @Test("tokens, roles, logs, trusted peers and upstream settings are read")
    func access() throws {
        let configuration = try read(
            """
            admin:
              listen: 127.0.0.1:0
              tokens:
                - { name: alice, token: 0123456789abcdef, role: operator }
                - { name: grafana, token: "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", role: viewer }
            claims:
              tokens: [{ name: worker, token: fedcba9876543210, scopes: [transfers] }]
            log: { level: debug, keys: plain, to: stdout }
            trusted: [10.0.0.0/8, "::1"]
            drain: 0s
            upstreams:
              orders: { url: "https://orders.example/base/", connect: 1s, timeout: 2s, idle: 3s, connections: 4 }
            """)
        #expect(configuration.admin.tokens.map(\.role) == [.operator, .viewer])
        #expect(configuration.admin.tokens[0].digest.matches("0123456789abcdef"))
        #expect(!configuration.admin.tokens[0].digest.matches("0123456789abcdeF"))
        #expect(configuration.admin.tokens[1].digest.matches("test"))
        #expect(configuration.claims.tokens[0].allows("transfers"))
        #expect(!configuration.claims.tokens[0].allows("payments"))
        #expect(configuration.log == LogConfiguration(level: .debug, keys: .plain, destination: .standardOutput))
        #expect(configuration.trusts("10.1.2.3") && configuration.trusts("::1") && configuration.trusts("::ffff:10.0.0.1"))
        #expect(!configuration.trusts("11.0.0.1") && !configuration.trusts("not an address"))
        #expect(configuration.drain == .zero)
        let upstream = try #require(configuration.upstreams["orders"])
        #expect(upstream.url == "https://orders.example/base")
        #expect([upstream.connectTimeout, upstream.responseTimeout, upstream.idleTimeout] == [.seconds(1), .seconds(2), .seconds(3)])
        #expect(upstream.connections == 4)
        #expect(!"\(configuration)".contains("0123456789abcdef"))
    }

    @Test("every key is also set by environment, which wins over the file")
    func environment() throws {
        let configuration = try read(
            exampleConfiguration,
            [
                "SEMEL_LISTEN": "0.0.0.0:80", "SEMEL_STORE": "memory", "SEMEL_LOG_LEVEL": "warning", "SEMEL_UPSTREAMS_PAYMENTS": "http://payments:1234",
                "SEMEL_UPSTREAMS_PAYMENTS_TIMEOUT": "5s", "SEMEL_UPSTREAMS_ORDERS": "http://orders:80", "SEMEL_UNMATCHED": "orders",
                "SEMEL_SCENES_PAYMENT_CAPTURE_LEASE": "45s", "SEMEL_SCENES_PAYMENT_CAPTURE_RETENTION_KEY": "60d", "SEMEL_SCENES_PAYMENT_CAPTURE_EFFECT": "deduplicates",
                "SEMEL_SCENES_PAYMENT_CAPTURE_ON_CONCURRENT": "{ wait: 1s, waiters: 3 }", "SEMEL_SCENES_PAYMENT_CAPTURE_LIMITS_LIVE_KEYS": "9",
                "SEMEL_SCENES_PAYMENT_CAPTURE_ON_ERROR": "rerun", "SEMEL_SCENES_PAYMENT_CAPTURE_MATCH_METHODS": "[PUT, DELETE]",
                "SEMEL_ADMIN_LISTEN": "127.0.0.1:9999", "SEMEL_FAILPOINTS": "x", "SEMEL_PORT": "tcp://10.0.0.1:80", "HOME": "/",
            ])
        #expect(configuration.listen == ListenAddress(host: "0.0.0.0", port: 80))
        #expect(configuration.admin.listen.port == 9999)
        #expect(configuration.store == .memory)
        #expect(configuration.log.level == .warning)
        #expect(configuration.upstreams["payments"]?.url == "http://payments:1234")
        #expect(configuration.upstreams["payments"]?.responseTimeout == .seconds(5))
        #expect(configuration.unmatched?.url == "http://orders")
        let scene = configuration.scenes[0]
        #expect(scene.http.policy.lease == .seconds(45))
        #expect(scene.http.policy.retention == Retention(response: .seconds(86400), key: .seconds(60 * 86400)))
        #expect(scene.http.policy.onConcurrent == .wait(.seconds(1), waiters: 3))
        #expect(scene.http.policy.liveKeys == 9)
        #expect(scene.http.policy.onError == .rerun)
        #expect(scene.match.methods == [.put, .delete])
        #expect(scene.assessment.level == .deduplicatedByTarget)
    }

    @Test("a mistake that came by environment names its variable")
    func environmentMistakes() {
        let reading = ConfigurationReader.read(
            text: exampleConfiguration, file: "semel.yaml",
            environment: ["SEMEL_SCENES_PAYMENT_CAPTURE_LEASE": "30", "SEMEL_LISTEN": "[", "SEMEL_LISTN": "1"])
        #expect(reading.mistakes.map(\.place) == [.environment(variable: "SEMEL_LISTEN"), .environment(variable: "SEMEL_SCENES_PAYMENT_CAPTURE_LEASE")])
        #expect(reading.warnings.map(\.place) == [.environment(variable: "SEMEL_LISTN")])
        #expect(reading.configuration == nil)
    }

    @Test("the pinned text is stable, self-contained, readable again, and differs when the rules differ (H57)")
    func pinned() throws {
        let text = configuration(scene: "effect: { queryable: { get: /q/{key}, inFlight: 30s, fence: Semel-Epoch } }", "retention: { response: 1h, key: 2d }")
        let scene = try read(text).scenes[0]
        #expect(scene.pinned == (try read("drain: 5s\n" + text)).scenes[0].pinned)
        #expect(scene.pinned != (try read(text.replacing("30s", with: "31s"))).scenes[0].pinned)
        #expect(
            scene.pinned.text
                == #"{"effect":"queryable","format":1,"horizonSeconds":3600,"keyRetentionSeconds":172800,"leaseMilliseconds":30000,"level":"fencedAndVerified","mode":"enforce","onError":"uncertain","onLapse":"verify","query":{"absent":[404],"applied":[200],"fence":"Semel-Epoch","inFlightMilliseconds":30000,"outcome":"discard","url":"http://127.0.0.1:9000/q/{key}"},"responseRetentionSeconds":3600,"scene":"payment.capture","upstream":"http://127.0.0.1:9000"}"#
        )
        let read = try #require(PinnedScene(scene.pinned))
        #expect(read.pinnedPolicy == scene.pinned)
        #expect(read.query?.url(for: OperationID(scope: Scope("http"), key: try OperationKey("k/1"))) == "http://127.0.0.1:9000/q/k%2F1")
        #expect(PinnedScene(PinnedPolicy(scene: "x", text: "free text")) == nil)
    }
}
