import Semel
import Testing

@testable import SemelServer

@Suite struct BatchTests {
    @Test("items are answered in their order, each by itself; duplicates within meet what the earlier ones left", arguments: TriedStore.allCases)
    func duplicates(kind: TriedStore) async throws {
        try await withPlane(kind) { plane in
            let answer = try await plane.post(
                "/v1/claim",
                [
                    "items": [
                        .claim("a", owner: "x"), .claim("b"), .claim("a", owner: "y"), .claim("a", owner: "x"),
                        .claim("a", fingerprint: "other"), .claim("a", scope: "elsewhere"),
                    ]
                ])
            let items = try #require(answer["items"]?.array)
            #expect(items.map { $0["result"]?.string } == ["claimed", "claimed", "in_progress", "claimed", "mismatch", "claimed"])
            #expect(items[3]["token"] == items[0]["token"])
            #expect(items[5]["token"] != items[0]["token"])

            // The same key completed twice, released after it, and another key in between.
            let a = items[0]["token"] ?? .null
            let b = items[1]["token"] ?? .null
            let changes = try await plane.post(
                "/v1/complete",
                [
                    "items": [
                        ["scope": "orders", "key": "a", "token": a, "outcome": ["body": "MQ=="]],
                        ["scope": "orders", "key": "b", "token": a, "outcome": [:]],
                        ["scope": "orders", "key": "a", "token": a, "outcome": ["body": "MQ=="]],
                        ["scope": "orders", "key": "a", "token": a, "outcome": ["body": "Mg=="]],
                        ["scope": "orders", "key": "b", "token": b, "outcome": [:]],
                    ]
                ])
            #expect(changes["items"]?.array?.map { $0["applied"]?.bool } == [true, false, true, false, true])
        }
    }

    @Test("an item that cannot be understood is answered with its own problem and hurts no other", arguments: TriedStore.allCases)
    func mixed(kind: TriedStore) async throws {
        try await withPlane(kind) { plane in
            let answer = try await plane.post(
                "/v1/claim",
                [
                    "items": [
                        .claim("a"), 7, ["scope": "orders"], .claim("b", lease: "49ms"), .claim("c", onLapse: "maybe"), .claim("d"),
                        .claim("", lease: "30s"),
                    ]
                ])
            #expect(answer.status == 200)
            let items = try #require(answer["items"]?.array)
            #expect(items.map { $0["result"]?.string } == ["claimed", nil, nil, nil, nil, "claimed", nil])
            #expect(
                items.map { $0["problem"]?["pointer"]?.string } == [
                    nil, "/items/1", "/items/2/key", "/items/3/lease", "/items/4/onLapse", nil, "/items/6/key",
                ])
            #expect(items.compactMap { $0["problem"]?["code"]?.string } == Array(repeating: "invalid-request", count: 5))
            // Nothing of the refused ones was done.
            for key in ["b", "c"] { #expect(try await plane.wait(key, "0ms")["result"] == "absent") }

            let none = try await plane.post("/v1/claim", ["items": []])
            #expect(none.status == 200 && none["items"] == [])
        }
    }

    @Test("a batch that is none is refused as a whole, and nothing of it is done")
    func malformed() async throws {
        try await withPlane { plane in
            let item = JSONValue.claim("k")
            let refused: [(JSONValue, Int, String)] = [
                (["items": 7], 400, "/items"), (["items": item], 400, "/items"), (["items": .null], 400, "/items"),
                (["items": [item], "scope": "orders"], 400, ""), ([item], 400, ""), ("items", 400, ""), (.null, 400, ""),
                (["items": .array(Array(repeating: item, count: 1001))], 413, "/items"),
            ]
            for (body, status, pointer) in refused {
                let answer = try await plane.post("/v1/claim", body)
                #expect(answer.status == status, "\(String(describing: body).prefix(100))")
                #expect(answer["pointer"]?.string == pointer)
            }
            #expect(try await plane.wait("k", "0ms")["result"] == "absent")
        }
    }

    @Test("a thousand items are one request", arguments: TriedStore.allCases)
    func full(kind: TriedStore) async throws {
        try await withPlane(kind) { plane in
            let claims = try await plane.post("/v1/claim", ["items": .array((0..<1000).map { .claim("k\($0)") })])
            let tokens = try #require(claims["items"]?.array).map { $0["token"] ?? .null }
            #expect(Set(tokens).count == 1000)
            let completes = try await plane.post(
                "/v1/complete",
                [
                    "items": .array(
                        tokens.enumerated().map { index, token in
                            ["scope": "orders", "key": "k\(index)", "token": token, "outcome": ["body": "b2s="]]
                        })
                ])
            #expect(completes["items"]?.array?.allSatisfy { $0["applied"] == true } ?? false)
            let again = try await plane.post("/v1/claim", ["items": .array((0..<1000).map { .claim("k\($0)") })])
            #expect(again["items"]?.array?.allSatisfy { $0["result"] == "completed" } ?? false)
        }
    }

    @Test("batches of the same keys at once: every key is granted once (H15)", arguments: TriedStore.allCases)
    func race(kind: TriedStore) async throws {
        try await withPlane(kind) { plane in
            let granted = try await withThrowingTaskGroup(of: [String].self) { group in
                for _ in 0..<16 {
                    group.addTask {
                        let keys = (0..<50).map { "k\($0)" }.shuffled()
                        let answer = try await plane.post("/v1/claim", ["items": .array(keys.map { .claim($0) })])
                        let items = answer["items"]?.array ?? []
                        return zip(keys, items).filter { $1["result"] == "claimed" }.map(\.0)
                    }
                }
                return try await group.reduce(into: []) { $0 += $1 }
            }
            #expect(granted.count == 50)
            #expect(Set(granted).count == 50)
        }
    }
}
