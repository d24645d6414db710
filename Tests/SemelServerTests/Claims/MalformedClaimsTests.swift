import NIOHTTP1
import Semel
import Testing

@testable import SemelServer

@Suite struct MalformedClaimsTests {
    /// A good claim with one member changed, added or (with `nil`) taken out.
    private static func claim(_ name: String, _ value: JSONValue?) -> JSONValue {
        var item = JSONValue.claim("k").object!
        item[name] = value
        return .object(item)
    }

    @Test("a claim with anything amiss is a 400 that says where, and claims nothing (H28, R3)")
    func claims() async throws {
        let long = String(repeating: "x", count: 256)
        let amiss: [(String, JSONValue?)] = [
            ("scope", nil), ("scope", 7), ("scope", ""), ("scope", .string(long)), ("scope", .null),
            ("key", nil), ("key", ["a"]), ("key", ""), ("key", .string(long)), ("key", "a\nb"), ("key", "a\u{0}b"), ("key", "a\u{7F}"),
            ("key", .string(String(repeating: "é", count: 128))),
            ("fingerprint", nil), ("fingerprint", ""), ("fingerprint", 1), ("fingerprint", .string(String(repeating: "x", count: 1025))),
            ("lease", nil), ("lease", 30), ("lease", 30000), ("lease", "30"), ("lease", ""), ("lease", "49ms"), ("lease", "0s"),
            ("lease", "-30s"), ("lease", "25h"), ("lease", "30 s"), ("lease", "1.5s"), ("lease", "PT30S"), ("lease", .null),
            ("lease", "99999999999999999999s"),
            ("onLapse", "verify"), ("onLapse", "Reclaim"), ("onLapse", true), ("onLapse", ""),
            ("owner", ""), ("owner", 1), ("owner", .string(long)),
        ]
        try await withPlane { plane in
            for (name, value) in amiss {
                let body = Self.claim(name, value)
                let answer = try await plane.post("/v1/claim", body)
                #expect(answer.status == 400 && answer.code == "invalid-request", "\(body)")
                #expect(answer["pointer"]?.string == "/\(name)", "\(body)")
                #expect(answer["detail"]?.string?.isEmpty == false)
            }
            // A slip in a rule's name is not taken for the rule's default.
            for name in ["onlapse", "on_lapse", "Lease", "items ", ""] {
                let answer = try await plane.post("/v1/claim", Self.claim(name, "uncertain"))
                #expect(answer.status == 400 && answer["detail"]?.string?.contains("not known") == true, "\(name)")
            }
            #expect(try await plane.get("/v1/operations")["operations"] == [])
            // The bounds themselves are fine.
            let edge = String(repeating: "x", count: 255)
            #expect(try await plane.claim(edge, scope: edge, lease: "50ms", owner: edge)["result"] == "claimed")
            #expect(try await plane.claim("day", lease: "24h")["result"] == "claimed")
        }
    }

    @Test("a change with anything amiss is a 400 that says where, and changes nothing")
    func changes() async throws {
        try await withPlane { plane in
            let token = try await plane.granted("k")
            func item(_ changes: KeyValuePairs<String, JSONValue?>) -> JSONValue {
                var item = JSONValue.item("k")
                item["token"] = .string(token)
                for (name, value) in changes { item[name] = value }
                return .object(item)
            }
            let ok: JSONValue = ["status": 200]
            let manyHeaders = JSONValue.array(Array(repeating: ["a", "b"], count: 101))
            let amiss: [(String, JSONValue, String)] = [
                ("release", item(["token": nil]), "/token"), ("release", item(["token": "no"]), "/token"),
                ("release", item(["token": .string(token.uppercased() + " ")]), "/token"),
                ("release", item(["token": .string(String(token.dropLast()))]), "/token"), ("release", item(["token": 7]), "/token"),
                ("release", item(["outcome": ok]), ""),
                ("renew", item([:]), "/lease"), ("renew", item(["lease": 30]), "/lease"), ("renew", item(["lease": "49ms"]), "/lease"),
                ("suspend", item([:]), "/reason"), ("suspend", item(["reason": ""]), "/reason"),
                ("suspend", item(["reason": .string(String(repeating: "x", count: 1001))]), "/reason"),
                ("complete", item([:]), "/outcome"), ("complete", item(["outcome": .null]), "/outcome"),
                ("complete", item(["outcome": 201]), "/outcome"),
                ("complete", item(["outcome": ["status": 199]]), "/outcome/status"),
                ("complete", item(["outcome": ["status": 600]]), "/outcome/status"),
                ("complete", item(["outcome": ["status": "200"]]), "/outcome/status"),
                ("complete", item(["outcome": ["status": .number(JSONNumber(200.5)!)]]), "/outcome/status"),
                ("complete", item(["outcome": ["code": 200]]), "/outcome"),
                ("complete", item(["outcome": ["headers": ["a": "b"]]]), "/outcome/headers"),
                ("complete", item(["outcome": ["headers": manyHeaders]]), "/outcome/headers"),
                ("complete", item(["outcome": ["headers": [["a"]]]]), "/outcome/headers/0"),
                ("complete", item(["outcome": ["headers": [["a", "b"], ["a b", "c"]]]]), "/outcome/headers/1"),
                ("complete", item(["outcome": ["headers": [["a", "b\r\nset-cookie: c"]]]]), "/outcome/headers/0"),
                ("complete", item(["outcome": ["headers": [["", "b"]]]]), "/outcome/headers/0"),
                ("complete", item(["outcome": ok, "retention": "24h"]), "/retention"),
                ("complete", item(["outcome": ok, "retention": ["response": 24]]), "/retention/response"),
                ("complete", item(["outcome": ok, "retention": ["key": "4000d"]]), "/retention/key"),
                ("complete", item(["outcome": ok, "retention": ["response": "26h", "key": "25h"]]), "/retention/key"),
                // Less than requests may be repeated for.
                ("complete", item(["outcome": ok, "retention": ["response": "0ms", "key": "0ms"]]), "/retention/key"),
                ("complete", item(["outcome": ok, "retention": ["key": "1439m"]]), "/retention/key"),
                ("complete", item(["outcome": ok, "retention": ["keys": "1h"]]), "/retention"),
            ]
            for (verb, body, pointer) in amiss {
                let answer = try await plane.post("/v1/\(verb)", body)
                #expect(answer.status == 400 && answer.code == "invalid-request", "\(verb) \(body)")
                #expect(answer["pointer"]?.string == pointer, "\(verb) \(body)")
            }
            #expect(try await plane.claim("k")["result"] == "in_progress")
            #expect(try await plane.complete("k", token))
        }
    }

    @Test("base64 is taken in its one form only", arguments: [
        "b2s", "b2s==", "b2s=\n", " b2s=", "b2_=", "b2-=", "b2t=", "Zh==", "=", "====", "b2s=b2s=", "é===", "b2s\u{0}",
    ])
    func base64(text: String) async throws {
        try await withPlane { plane in
            let token = try await plane.granted("k")
            var item = JSONValue.item("k")
            item["token"] = .string(token)
            item["outcome"] = ["body": .string(text)]
            let answer = try await plane.post("/v1/complete", .object(item))
            #expect(answer.status == 400)
            #expect(answer["pointer"] == "/outcome/body")
            #expect(try await plane.complete("k", token, ["body": "b2s="]))
        }
    }

    @Test("text that is not JSON is a 400 with line and column; whatever it is, the server goes on")
    func notJSON() async throws {
        let texts: [(String, Int, Int)] = [
            ("", 1, 1), ("{", 1, 2), ("{\"scope\":\n \"orders\",\n}", 3, 1), ("{'scope': 1}", 1, 2), ("{\"a\":1,\"a\":2}", 1, 8),
            ("[1,]", 1, 4), ("{} {}", 1, 4), ("nul", 1, 4), ("{\"a\": 01}", 1, 7), ("{\"a\": \"\\ud800\"}", 1, 8),
            ("\u{FEFF}{}", 1, 1), ("{\"a\": NaN}", 1, 7), ("// no\n{}", 1, 1),
        ]
        try await withPlane { plane in
            for (text, line, column) in texts {
                let answer = try await plane.post("/v1/claim", text: text)
                #expect(answer.status == 400 && answer.code == "malformed-json", "\(text)")
                #expect(answer["line"]?.integer == line, "\(text): \(answer.text)")
                #expect(answer["column"]?.integer == column, "\(text): \(answer.text)")
            }
            let notUTF8 = try await plane.send(.POST, "/v1/claim", body: Array("{\"scope\":\"".utf8) + [0xFF, 0xFE] + Array("\"}".utf8))
            #expect(notUTF8.code == "malformed-json")
            for opening in ["[", "{\"a\":"] {
                let deep = try await plane.post("/v1/claim", text: String(repeating: opening, count: 500_000))
                #expect(deep.status == 400 && deep.code == "malformed-json")
            }
            #expect(try await plane.claim("k")["result"] == "claimed")
        }
    }

    @Test("a body beyond the limit is a 413, whether its length is told or not, and nothing of it is done")
    func tooLarge() async throws {
        let limit = 64 << 10
        var limits = ClaimsAPI.Limits()
        limits.body = limit
        try await withPlane(limits: limits) { plane in
            let padding = String(repeating: " ", count: limit)
            let told = try await plane.post("/v1/claim", text: JSONValue.claim("k").description + padding)
            #expect(told.status == 413 && told.code == "request-too-large")
            // Chunked: the length is found out while reading.
            let body = JSONValue.claim("k").description + padding
            let chunk = String(body.utf8.count, radix: 16)
            let answer = try await rawExchange(
                port: plane.port,
                "POST /v1/claim HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\(chunk)\r\n\(body)\r\n0\r\n\r\n")
            #expect(answer.hasPrefix("HTTP/1.1 413"))
            #expect(try await plane.wait("k", "0ms")["result"] == "absent")
        }
    }

    @Test("an outcome's body is kept up to its limit to the byte; beyond is a 413 of the item")
    func outcomeTooLarge() async throws {
        var limits = ClaimsAPI.Limits()
        limits.outcome = 3000
        try await withPlane(limits: limits) { plane in
            let token = try await plane.granted("k")
            var item = JSONValue.item("k")
            item["token"] = .string(token)
            item["outcome"] = ["body": .string(String(repeating: "AAAA", count: 1000) + "AA==")]
            let answer = try await plane.post("/v1/complete", .object(item))
            #expect(answer.status == 413 && answer["pointer"] == "/outcome/body")
            let batch = try await plane.post("/v1/complete", ["items": [.object(item)]])
            #expect(batch["items"]?[0]?["problem"]?["status"] == 413)
            #expect(try await plane.complete("k", token, ["body": .string(String(repeating: "AAAA", count: 1000))]))
        }
    }

    @Test("keys and scopes are compared byte for byte, and parts do not run together (H27, H30)", arguments: TriedStore.allCases)
    func exactKeys(kind: TriedStore) async throws {
        try await withPlane(kind) { plane in
            let pairs = [
                ("orders", "k"), ("Orders", "k"), ("orders", "K"), ("orders", "k "), ("order", "sk"), ("orders/k", "k"),
                ("orders", "caf\u{E9}"), ("orders", "cafe\u{301}"), ("caf\u{E9}", "k"), ("cafe\u{301}", "k"), ("ab", "c"), ("a", "bc"),
            ]
            for expected in ["claimed", "in_progress"] {
                for (scope, key) in pairs {
                    let answer = try await plane.claim(key, scope: scope)
                    #expect(answer["result"]?.string == expected, "\(scope) \(key)")
                }
            }
        }
    }
}
