import NIOHTTP1
import Semel
import Testing

@testable import SemelServer

@Suite struct TenantTests {
    static let tokens = [
        ScopeToken(name: "orders-worker", digest: TokenDigest(of: "orders-secret"), scopes: .named(["orders"])),
        ScopeToken(name: "billing-worker", digest: TokenDigest(of: "billing-secret"), scopes: .named(["billing", "refunds"])),
        ScopeToken(name: "café-worker", digest: TokenDigest(of: "cafe-secret"), scopes: .named(["caf\u{E9}"])),
        ScopeToken(name: "all-worker", digest: TokenDigest(of: "all-secret"), scopes: .all),
    ]

    private func withTenants(_ body: @escaping @Sendable (PlaneUnderTest) async throws -> Void) async throws {
        let plane = try ControlPlane.quiet(
            admin: AdminConfiguration(
                listen: ListenAddress(host: "127.0.0.1", port: 0),
                tokens: [RoleToken(name: "root", digest: TokenDigest(of: "root-secret"), role: .operator)]),
            claims: ClaimsConfiguration(tokens: Self.tokens), store: MemoryStore())
        try await PlaneUnderTest.run(plane, body)
    }

    @Test("without a known token of the claims API nothing is done, on every route")
    func unauthenticated() async throws {
        try await withTenants { plane in
            for verb in ["claim", "complete", "suspend", "renew", "release", "wait"] {
                for token in [nil, "", "wrong", "orders-secretx", "orders-secre", "Orders-secret", "root-secret"] {
                    let answer = try await plane.post("/v1/\(verb)", .claim("k"), token: token)
                    #expect(answer.status == 401 && answer.code == "unauthenticated", "\(verb) \(token ?? "none")")
                    #expect(answer.fields.first(name: "WWW-Authenticate") == "Bearer realm=\"semel\"")
                }
            }
            for value in ["Basic b3JkZXJzOm9yZGVycw==", "orders-secret", "Bearer"] {
                let answer = try await plane.send(
                    .POST, "/v1/claim", body: JSONValue.claim("k").serialized(), fields: [("Authorization", value)])
                #expect(answer.status == 401, "\(value)")
            }
            let lowercase = try await plane.send(
                .POST, "/v1/claim", body: JSONValue.claim("k").serialized(), fields: [("Authorization", "bearer orders-secret")])
            #expect(lowercase["result"] == "claimed")
        }
    }

    @Test("a token opens its own scopes and no other, item by item; Unicode spellings are different scopes (H27, H33)")
    func scopes() async throws {
        try await withTenants { plane in
            #expect(try await plane.claim("k", scope: "orders", token: "orders-secret")["result"] == "claimed")
            #expect(try await plane.claim("k", scope: "refunds", token: "billing-secret")["result"] == "claimed")
            #expect(try await plane.claim("k", scope: "anything", token: "all-secret")["result"] == "claimed")
            #expect(try await plane.claim("k", scope: "caf\u{E9}", token: "cafe-secret")["result"] == "claimed")
            for (scope, token) in [
                ("billing", "orders-secret"), ("Orders", "orders-secret"), ("orders ", "orders-secret"), ("cafe\u{301}", "cafe-secret"),
            ] {
                let answer = try await plane.claim("k", scope: scope, token: token)
                #expect(answer.status == 403 && answer.code == "scope-forbidden", "\(scope)")
            }
            let batch = try await plane.post(
                "/v1/claim", ["items": [.claim("x", scope: "orders"), .claim("x", scope: "billing"), .claim("y", scope: "orders")]],
                token: "orders-secret")
            #expect(batch["items"]?.array?.map { $0["result"]?.string } == ["claimed", nil, "claimed"])
            #expect(batch["items"]?[1]?["problem"]?["code"] == "scope-forbidden")
            #expect(batch["items"]?[1]?["problem"]?["pointer"] == "/items/1/scope")
        }
    }

    @Test("two spellings of one character are two keys, two scopes and two outcomes (H27)", arguments: TriedStore.allCases)
    func spellings(kind: TriedStore) async throws {
        let (composed, decomposed) = ("caf\u{E9}", "cafe\u{301}")
        #expect(composed == decomposed, "for Swift's own comparison they are the same")
        try await withPlane(kind) { plane in
            let token = try await plane.granted(composed)
            #expect(try await plane.claim(decomposed)["result"] == "claimed")
            #expect(try await plane.claim(composed)["result"] == "in_progress")
            #expect(try await plane.claim(composed, scope: composed)["result"] == "claimed")
            #expect(try await plane.claim(composed, scope: decomposed)["result"] == "claimed")
            #expect(plane.reference(composed) != plane.reference(decomposed))

            // One wait for both is answered about each by itself.
            let outcome: (String) -> JSONValue = { ["status": 201, "headers": [["x-name", .string($0)]], "body": ""] }
            #expect(try await plane.complete(composed, token, outcome(composed)))
            #expect(try await plane.complete(composed, token, outcome(composed)))
            #expect(try await plane.complete(composed, token, outcome(decomposed)) == false)
            let items = JSONValue.array([composed, decomposed].map { key in
                var item = JSONValue.item(key)
                item["timeout"] = "0ms"
                return .object(item)
            })
            let waited = try await plane.post("/v1/wait", ["items": items])
            #expect(waited["items"]?.array?.map { $0["result"]?.string } == ["completed", "in_progress"])

            for (key, count) in [("caf%C3%A9", 1), ("cafe%CC%81", 1), ("cafe", 0)] {
                let listed = try await plane.get("/v1/operations?key=\(key)&scope=claims&scope=orders")
                #expect(listed["operations"]?.array?.count == count)
            }
        }
    }

    @Test("a token allows its scopes byte for byte")
    func exactScopes() {
        let token = ScopeToken(name: "w", digest: TokenDigest(of: "w"), scopes: .named(["caf\u{E9}", "K"]))
        #expect(token.allows("caf\u{E9}") && token.allows("K"))
        // The Kelvin sign is canonically equivalent to the letter.
        #expect(!token.allows("cafe\u{301}") && !token.allows("\u{212A}"))
        let both = ScopeToken(name: "b", digest: TokenDigest(of: "b"), scopes: .named(["caf\u{E9}", "cafe\u{301}"]))
        #expect(both.allows("caf\u{E9}") && both.allows("cafe\u{301}"))
    }

    @Test("tenants with the same key never see each other's outcome, state or token (H33, H42)")
    func isolation() async throws {
        try await withTenants { plane in
            let mine = try await plane.claim("shared", scope: "orders", owner: "n", token: "orders-secret")
            let token = try #require(mine["token"]?.string)
            var complete = JSONValue.item("shared", scope: "orders")
            complete["token"] = .string(token)
            complete["outcome"] = ["body": "c2VjcmV0"]
            #expect(try await plane.post("/v1/complete", .object(complete), token: "orders-secret")["applied"] == true)

            // The other tenant's key of the same name is another one: first claimed, not completed.
            let theirs = try await plane.claim("shared", scope: "billing", owner: "n", token: "billing-secret")
            #expect(theirs["result"] == "claimed")
            #expect(theirs["token"]?.string != token)
            #expect(!theirs.text.contains("c2VjcmV0"))

            // With the other's fencing token, in one's own scope and in theirs.
            complete["scope"] = "billing"
            #expect(try await plane.post("/v1/complete", .object(complete), token: "billing-secret")["applied"] == false)
            complete["scope"] = "orders"
            for verb in ["complete", "release", "wait"] {
                var item = verb == "complete" ? complete : JSONValue.item("shared", scope: "orders")
                if verb == "release" { item["token"] = .string(token) }
                if verb == "wait" { item["timeout"] = "0ms" }
                let answer = try await plane.post("/v1/\(verb)", .object(item), token: "billing-secret")
                #expect(answer.status == 403)
                #expect(!answer.text.contains("c2VjcmV0"))
            }
            // Whether the foreign key exists makes no difference to the answer.
            let known = try await plane.claim("shared", scope: "orders", token: "billing-secret")
            let unknown = try await plane.claim("never", scope: "orders", token: "billing-secret")
            #expect(known.body == unknown.body)
        }
    }
}
