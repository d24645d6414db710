import Foundation
import Semel
import Testing

@testable import SemelServer

/// Whose key it is, where it comes from, and who may see what came of it.
@Suite("Keys, scopes and authorisation at the gateway")
struct IdentityTests {
    // MARK: Tokens

    #if JWT
    /// HS256 under `0123456789abcdef0123456789abcdef` but for the last two; issuer https://issuer.test, audience payments, until
    /// 2100, subject alice, unless the name says otherwise.
    enum Token {
        private static func hs256(_ payload: String, _ signature: String) -> String { "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.\(payload).\(signature)" }
        private static let payload =
            "eyJpc3MiOiJodHRwczovL2lzc3Vlci50ZXN0IiwiYXVkIjoicGF5bWVudHMiLCJleHAiOjQxMDI0NDQ4MDAsInN1YiI6ImFsaWNlIn0"

        static let alice = hs256(payload, "AmtivG6Ir_6vWeFI4c0yx4kH7vUkDUO0qopOkDwQXcE")
        static let bob = hs256(
            "eyJpc3MiOiJodHRwczovL2lzc3Vlci50ZXN0IiwiYXVkIjoicGF5bWVudHMiLCJleHAiOjQxMDI0NDQ4MDAsInN1YiI6ImJvYiJ9",
            "NXxjYw3ddWnabWBgTNTzE26pGIu8cEdBtxbamRodNu0")
        static let expired = hs256(
            "eyJpc3MiOiJodHRwczovL2lzc3Vlci50ZXN0IiwiYXVkIjoicGF5bWVudHMiLCJleHAiOjE2MDAwMDAwMDAsInN1YiI6ImFsaWNlIn0",
            "Q1jSjcAvKdTO3vszYdMqBVuSOZZb4MVr4w-ip8e0Qp4")
        static let foreignKey = hs256(payload, "uy8PN5ihPap0P52aLOTOwArQ-JI3PL2zABpHlKOGlyo")
        static let foreignAudience = hs256(
            "eyJpc3MiOiJodHRwczovL2lzc3Vlci50ZXN0IiwiYXVkIjoib3RoZXIiLCJleHAiOjQxMDI0NDQ4MDAsInN1YiI6ImFsaWNlIn0",
            "hgVH4AZiUrPFuTbGE0fuN00klFewB5TT2zAYAjL7JdI")
        static let withoutSubject = hs256(
            "eyJpc3MiOiJodHRwczovL2lzc3Vlci50ZXN0IiwiYXVkIjoicGF5bWVudHMiLCJleHAiOjQxMDI0NDQ4MDB9", "tPjbVvl21eRmZqSlJxwcxy-iJCntf6XGBqlFNsaPEfg")
        static let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.\(payload)."
        static let es256 =
            "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6Im9uZSJ9.\(payload).8SQwbY4GLuj6Mj3j38LfvYiyqsFK4rOY0whCfgMSHtd4cbhX9UaafMvYDiLjG5mdKWueDCh5d-mVtRLpVtFMvA"
        /// HS256 whose secret is the public key of `keySet`.
        static let confused =
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6Im9uZSJ9.\(payload).oaUgD-GxtYOZ_J4pT0Y-8gVDvcqmz9HaHb4ZaNlmM_Y"
        static let keySet =
            #"{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","kid":"one","use":"sig","x":"XWVu1rI5GqyHyvrxnpoReDKLp8tk8UDRw5ZHwOLl4io","y":"2mM4BEqYuYf3TSAjpcz7meIYBRs-CnKPUeA7oGNFmoQ"}]}"#
    }

    @Test("with scope: { claim: sub } a key belongs to the subject of a valid token, and without one nothing runs (H33)")
    func tokenScope() async throws {
        let upstream = try await UpstreamUnderTest { .answer(201, [], $0.field("authorization") ?? "") }
        let configuration = try ServerConfiguration.gateway(
            upstream.port, scene: "scope: { claim: sub, missing: 401 }",
            "jwt: { issuer: \"https://issuer.test\", audience: payments, secret: 0123456789abcdef0123456789abcdef }")
        try await GatewayUnderTest.run(configuration) { gateway in
            func post(_ token: String) async throws -> PlaneAnswer { try await gateway.post(fields: [("Authorization", "Bearer \(token)")]) }
            let alices = try await post(Token.alice)
            #expect((alices.status, alices.text) == (201, "Bearer \(Token.alice)"))
            let bobs = try await post(Token.bob)
            #expect((bobs.status, bobs.text, bobs.isReplay) == (201, "Bearer \(Token.bob)", false))
            let replayed = try await post(Token.alice)
            #expect((replayed.text, replayed.isReplay) == (alices.text, true))
            for token in [Token.expired, Token.foreignKey, Token.foreignAudience, Token.withoutSubject, Token.unsigned, "nonsense", ""] {
                let refused = try await post(token)
                #expect((refused.status, refused.code) == (401, "scope-missing"), "\(token)")
            }
            #expect(try await gateway.post().code == "scope-missing")
            #expect(upstream.posts.count == 2)
        }
    }

    @Test("a token is verified with the issuer's key set, and one that passes the public key off as a secret is not")
    func keySet() async throws {
        let upstream = try await UpstreamUnderTest.making()
        try await withTemporaryFolder { folder in
            try Token.keySet.write(toFile: folder + "/keys.json", atomically: true, encoding: .utf8)
            let configuration = try ServerConfiguration.gateway(
                "http://127.0.0.1:\(upstream.port)", scene: "scope: { claim: sub }", "jwt: { keySet: \(folder)/keys.json }")
            try await GatewayUnderTest.run(configuration) { gateway in
                let made = try await gateway.post(fields: [("Authorization", "Bearer \(Token.es256)")])
                #expect(made.status == 201)
                let record = try await gateway.record(scope: "alice")
                #expect(record?.state == .completed)
                for token in [Token.confused, Token.alice, Token.unsigned] {
                    let refused = try await gateway.post(fields: [("Authorization", "Bearer \(token)")])
                    #expect(refused.status == 403)
                }
            }
        }
    }
    #endif

    // MARK: Authorisation

    @Test("authorize is asked before a key is looked up, with the client's fields and no body; who may not is shown nothing (H39)")
    func authorize() async throws {
        let revoked = Locked(false)
        let upstream = try await UpstreamUnderTest { request in
            guard request.target == "/authorize/payments" else { return .answer(201, [], "secret") }
            if revoked.withLock({ $0 }) { return .answer(403, [("Content-Type", "text/plain"), ("X-Reason", "gone")], "revoked") }
            return .answer(204)
        }
        let configuration = try ServerConfiguration.gateway(
            upstream.port, scene: "authorize: { url: \"http://127.0.0.1:\(upstream.port)/authorize/payments\" }")
        try await GatewayUnderTest.run(configuration) { gateway in
            #expect(try await gateway.post(fields: [("Authorization", "Bearer alice")]).text == "secret")
            let asked = try #require(upstream.requests.values.first)
            #expect((asked.method, asked.target, asked.body) == ("GET", "/authorize/payments", ""))
            #expect(asked.field("authorization") == "Bearer alice")
            #expect(asked.all("x-forwarded-method") == ["POST"])
            #expect(asked.all("x-forwarded-uri") == ["/v1/payments"])
            #expect(asked.field("idempotency-key") == nil && asked.field("content-length") == nil)
            #expect(try await gateway.post().isReplay)
            revoked.withLock { $0 = true }
            let refused = try await gateway.post()
            #expect((refused.status, refused.text, refused.isReplay) == (403, "revoked", false))
            #expect(refused.field( "x-reason") == "gone")
            // Another key, and another body under the same one: no difference shows (H42).
            #expect(try await gateway.post(key: "other").text == "revoked")
            #expect(try await gateway.post(body: "other").text == "revoked")
            #expect(upstream.posts.count == 1)
        }
    }

    @Test("while nobody can say what is allowed, nothing runs and nothing is shown", arguments: [500, 302, nil])
    func authorizeFails(status: Int?) async throws {
        let upstream = try await UpstreamUnderTest { request in
            guard request.method == "GET" else { return .answer(201) }
            return status.map { .answer($0, [("Location", "http://127.0.0.1:1/")]) } ?? .reset
        }
        let configuration = try ServerConfiguration.gateway(upstream.port, scene: "authorize: \"http://127.0.0.1:\(upstream.port)/authorize\"")
        try await GatewayUnderTest.run(configuration) { gateway in
            let answer = try await gateway.post()
            #expect((answer.status, answer.code) == (503, "authorization-unavailable"))
            #expect(upstream.posts.isEmpty)
            #expect(try await gateway.record() == nil)
        }
    }

    // MARK: Scope and key

    @Test("a header as the scope parts the tenants' keys; without it nothing runs (H33)")
    func headerScope() async throws {
        let upstream = try await UpstreamUnderTest { .answer(201, [], $0.field("x-tenant") ?? "") }
        try await GatewayUnderTest.run(try ServerConfiguration.gateway(upstream.port, scene: "scope: { header: X-Tenant, missing: 403 }")) { gateway in
            for tenant in ["a", "b", "a"] { #expect(try await gateway.post(fields: [("X-Tenant", tenant)]).text == tenant) }
            for fields in [[], [("X-Tenant", "")], [("X-Tenant", "a"), ("X-Tenant", "b")]] {
                let refused = try await gateway.post(fields: fields)
                #expect((refused.status, refused.code) == (403, "scope-missing"))
                #expect(refused["safe_new_key"]?.bool == true)
            }
            #expect(upstream.posts.count == 2)
        }
    }

    @Test("a key made of fields of the body: the same ones are the same operation, whatever else differs where that is not compared")
    func bodyKey() async throws {
        let upstream = try await UpstreamUnderTest { [losses = Locked(1)] _ in
            losses.withLock { left in
                left -= 1
                return left >= 0 ? .reset : .answer(201)
            }
        }
        let configuration = try ServerConfiguration.gateway(
            upstream.port, scene: "key: { body: [$.order_id, $.version], required: true }", "fingerprint: { select: [$.order_id, $.amount] }",
            "effect: deduplicates")
        try await GatewayUnderTest.run(configuration) { gateway in
            func post(_ body: String, _ fields: [(String, String)] = []) async throws -> PlaneAnswer { try await gateway.post(key: nil, body: body, fields: fields) }
            // A key in the header means nothing here; one that differs in each attempt must not become the target's.
            let lost = try await post(#"{"order_id":"o1","version":1,"amount":5,"sent":"10:00"}"#, [("Idempotency-Key", "\"first\"")])
            #expect(lost.code == "upstream-lost")
            let made = try await post(#"{"sent":"10:01","amount":5,"version":1,"order_id":"o1"}"#, [("Idempotency-Key", "\"second\"")])
            #expect(made.status == 201)
            let keys = upstream.posts.map { $0.all("idempotency-key") }
            #expect(keys.count == 2 && keys[0].count == 1 && keys[0] == keys[1])
            #expect(!["\"first\"", "\"second\""].contains(keys[0][0]))

            #expect(try await post(#"{"order_id":"o1","version":1,"amount":5}"#).isReplay)
            #expect(try await post(#"{"order_id":"o1","version":1,"amount":6}"#).code == "key-reused")
            #expect(try await post(#"{"order_id":"o1","version":2,"amount":5}"#).isReplay == false)
            for (body, code) in [(#"{"order_id":"o1"}"#, "key-missing"), (#"{"order_id":"#, "body-malformed"), (#"{"order_id":1,"order_id":2}"#, "body-malformed")] {
                let refused = try await post(body)
                #expect((refused.status, refused.code) == (400, code))
            }
            #expect(upstream.posts.count == 3)
        }
    }

    @Test("a token for a form is a key: submitted twice, the form gets the first result twice (R8)")
    func formToken() async throws {
        let upstream = try await UpstreamUnderTest { .answer(201, [], $0.body) }
        try await GatewayUnderTest.run(try ServerConfiguration.gateway(upstream.port, scene: "tokens: { path: /v1/payments/tokens }")) { gateway in
            let minted = try await gateway.post("/v1/payments/tokens", key: nil, body: "")
            #expect(minted.status == 201)
            let token = try #require(minted["token"]?.string)
            #expect(try #require(minted["expires"]?.string).hasSuffix("Z"))
            let form = "amount=5&idempotency_key=\(token)"
            for round in 1...2 {
                let answer = try await gateway.post(key: nil, body: form, fields: [("Content-Type", "application/x-www-form-urlencoded")])
                #expect((answer.status, answer.text, answer.isReplay) == (201, form, round == 2))
            }
            // By header it is the same key.
            let other = try await gateway.post(key: token)
            #expect((other.status, other.code) == (422, "key-reused"))
            #expect(upstream.posts.count == 1)
        }
    }

    @Test("no more than limits.liveKeys unfinished keys for a tenant; others are not touched by it")
    func liveKeys() async throws {
        let gate = Gate()
        let upstream = try await UpstreamUnderTest { request in
            if request.field("x-tenant") == "full" { await gate.wait() }
            return .answer(201)
        }
        let configuration = try ServerConfiguration.gateway(upstream.port, scene: "scope: { header: X-Tenant }", "limits: { liveKeys: 2 }")
        try await GatewayUnderTest.run(configuration) { gateway in
            async let first = gateway.post(key: "one", fields: [("X-Tenant", "full")])
            async let second = gateway.post(key: "two", fields: [("X-Tenant", "full")])
            await upstream.requests.wait(for: 2)
            let refused = try await gateway.post(key: "three", fields: [("X-Tenant", "full")])
            #expect((refused.status, refused.code) == (429, "too-many-keys"))
            #expect(refused.field( "retry-after") == "1")
            #expect(refused["safe_new_key"]?.bool == true)
            #expect(try await gateway.post(key: "three", fields: [("X-Tenant", "other")]).status == 201)
            gate.open()
            #expect(try await [first.status, second.status] == [201, 201])
            #expect(try await gateway.post(key: "three", fields: [("X-Tenant", "full")]).status == 201)
        }
    }
}
