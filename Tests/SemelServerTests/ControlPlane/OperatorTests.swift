import NIOHTTP1
import Semel
import SemelTesting
import Testing

@testable import SemelServer

@Suite struct OperatorTests {
    /// An uncertain operation of the claims API: its reference and the token of the one who was lost.
    private static func lost(_ plane: PlaneUnderTest, _ key: String) async throws -> (path: String, token: String) {
        let token = try await plane.granted(key)
        #expect(try await plane.apply("suspend", key, token, ["reason": "the bank did not answer"]))
        return ("/v1/operations/\(plane.reference(key))", token)
    }

    private static let why: JSONValue = ["resolution": "not-applied", "actor": "alice", "reason": "asked the bank"]

    @Test("an operation resolved as applied with an outcome is replayed as exactly that; its lost owner changes nothing", arguments: TriedStore.allCases)
    func resolveApplied(kind: TriedStore) async throws {
        try await withPlane(kind) { plane in
            let (path, token) = try await Self.lost(plane, "k")
            let outcome: JSONValue = ["status": 201, "headers": [["content-type", "text/plain"], ["link", "a"], ["link", "b"]], "body": "AAE="]
            let decided = try await plane.post(
                path + "/resolve", ["resolution": "applied", "outcome": outcome, "actor": "alice", "reason": "asked the bank"])
            #expect(decided.status == 200)
            #expect(decided["operation"]?["state"] == "completed")
            #expect(try await plane.complete("k", token) == false)
            #expect(try await plane.apply("release", "k", token) == false)
            let replayed = try await plane.claim("k")
            #expect(replayed["result"] == "completed")
            #expect(replayed["outcome"] == outcome)

            let (unknown, _) = try await Self.lost(plane, "unknown")
            #expect(try await plane.post(unknown + "/resolve", ["resolution": "applied", "actor": "a", "reason": "r"]).status == 200)
            let without = try await plane.claim("unknown")
            #expect(without["result"] == "completed")
            #expect(without["outcome"] == ["status": nil, "headers": [], "body": nil])
        }
    }

    @Test("an operation resolved as not applied runs once more, under a higher epoch", arguments: TriedStore.allCases)
    func resolveNotApplied(kind: TriedStore) async throws {
        try await withPlane(kind) { plane in
            let (path, token) = try await Self.lost(plane, "k")
            let decided = try await plane.post(path + "/resolve", Self.why)
            #expect(decided["applied"] == true && decided["operation"] == .null)
            #expect(try await plane.complete("k", token) == false)
            let next = try await plane.claim("k")
            #expect(next["result"] == "claimed")
            #expect(next["token"]?.string ?? "" > token)
            #expect(try await plane.claim("k")["result"] == "in_progress")
        }
    }

    @Test("a decision never overrides somebody at work, a finished operation, or a later attempt (H61)", arguments: TriedStore.allCases)
    func conflicts(kind: TriedStore) async throws {
        let clock = ManualStoreClock()
        try await withPlane(kind, clock: clock) { plane in
            let token = try await plane.granted("k", lease: "30s")
            let path = "/v1/operations/\(plane.reference("k"))"
            let running = try await plane.post(path + "/resolve", Self.why)
            #expect(running.status == 409 && running.code == "operation-not-resolvable")
            let live = try await plane.post(path + "/forget", ["actor": "a", "reason": "r"])
            #expect(live.status == 409 && live.code == "operation-not-forgettable")
            #expect(try await plane.complete("k", token))
            #expect(try await plane.post(path + "/resolve", Self.why).code == "operation-not-resolvable")

            // Looked at, then resolved by somebody else and lost anew: the first decision is about another attempt.
            let (other, _) = try await Self.lost(plane, "other")
            let epoch = try #require(try await plane.get(other)["epoch"])
            var decision = Self.why.object!
            decision["epoch"] = epoch
            #expect(try await plane.post(other + "/resolve", .object(decision)).status == 200)
            _ = try await Self.lost(plane, "other")
            let stale = try await plane.post(other + "/resolve", .object(decision))
            #expect(stale.status == 409 && stale.code == "operation-changed")
            #expect(try await plane.claim("other")["result"] == "uncertain")

            // One whose holder is gone can be decided, whatever its rule.
            _ = try await plane.granted("gone", lease: "1s")
            clock.advance(by: .seconds(1))
            #expect(try await plane.post("/v1/operations/\(plane.reference("gone"))/resolve", Self.why).status == 200)
            #expect(try await plane.get("/v1/audit")["entries"]?.array?.count == 2)
        }
    }

    @Test("of many stale decisions that race a new attempt, none touches it, and each is told so", arguments: TriedStore.allCases)
    func staleDecisions(kind: TriedStore) async throws {
        try await withPlane(kind) { plane in
            let (path, _) = try await Self.lost(plane, "k")
            var decision = Self.why.object!
            decision["epoch"] = try await plane.get(path)["epoch"]
            let body = JSONValue.object(decision)
            let answers = try await withThrowingTaskGroup(of: PlaneAnswer.self) { group in
                for _ in 0..<8 { group.addTask { try await plane.post(path + "/resolve", body) } }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(answers.filter { $0.status == 200 }.count == 1)
            for answer in answers where answer.status != 200 {
                // Before or after the one that counted took the record away.
                #expect([404, 409].contains(answer.status) && ["operation-unknown", "operation-changed"].contains(answer.code), "\(answer.text)")
            }
            // The key ran again and was lost again; every further click is about the run before.
            let (_, token) = try await Self.lost(plane, "k")
            for verb in ["resolve", "forget"] {
                var stale = decision
                if verb == "forget" { stale["resolution"] = nil }
                let answer = try await plane.post("\(path)/\(verb)", .object(stale))
                #expect(answer.status == 409 && answer.code == "operation-changed", "\(answer.text)")
                #expect(answer["detail"]?.string?.contains("Nothing was changed") == true)
            }
            #expect(try await plane.get("/v1/audit")["entries"]?.array?.count == 1)
            #expect(try await plane.complete("k", token))
        }
    }

    @Test("an epoch is told as a number and as a text, and taken as either", arguments: TriedStore.allCases)
    func epochs(kind: TriedStore) async throws {
        try await withPlane(kind) { plane in
            let claimed = try await plane.claim("k")
            #expect(claimed["epoch"]?.number?.lexeme == claimed["epoch_string"]?.string && claimed["epoch_string"]?.string != nil)
            let (path, _) = try await Self.lost(plane, "other")
            let shown = try await plane.get(path)
            let text = try #require(shown["epoch_string"]?.string)
            #expect(shown["epoch"]?.number?.lexeme == text)
            #expect(try await plane.get("/v1/operations?key=other")["operations"]?.array?.first?["epoch_string"]?.string == text)

            func resolve(_ epochs: KeyValuePairs<String, JSONValue>) async throws -> PlaneAnswer {
                var decision = Self.why.object!
                for (name, value) in epochs { decision[name] = value }
                return try await plane.post(path + "/resolve", .object(decision))
            }
            let wrong = [("epoch_string", JSONValue("1e3")), ("epoch_string", 1), ("epoch_string", ""), ("epoch_string", "-1"), ("epoch_string", "+1")]
            for (name, value) in wrong {
                let answer = try await resolve([name: value])
                #expect(answer.status == 400 && answer["pointer"] == "/epoch_string", "\(value)")
            }
            // What JavaScript makes of a large one.
            #expect(try await resolve(["epoch": 9_007_199_254_740_994, "epoch_string": "9007199254740993"])["pointer"] == "/epoch")
            #expect(try await resolve(["epoch_string": "1"]).code == "operation-changed")
            #expect(try await resolve(["epoch": try #require(shown["epoch"]), "epoch_string": .string(text)]).status == 200)

            let token = try await plane.granted("done")
            #expect(try await plane.complete("done", token))
            let done = "/v1/operations/\(plane.reference("done"))"
            let epoch = try #require(try await plane.get(done)["epoch_string"])
            #expect(try await plane.post(done + "/forget", ["actor": "bob", "reason": "r", "epoch_string": "1"]).code == "operation-changed")
            #expect(try await plane.post(done + "/forget", ["actor": "bob", "reason": "r", "epoch_string": epoch]).status == 200)
        }
    }

    @Test("a finished operation that is forgotten runs again", arguments: TriedStore.allCases)
    func forget(kind: TriedStore) async throws {
        try await withPlane(kind) { plane in
            let token = try await plane.granted("k")
            #expect(try await plane.complete("k", token))
            let path = "/v1/operations/\(plane.reference("k"))"
            let epoch = try #require(try await plane.get(path)["epoch"])
            let forgotten = try await plane.post(path + "/forget", ["actor": "bob", "reason": "charged back", "epoch": epoch])
            #expect(forgotten["applied"] == true && forgotten["operation"] == .null)
            #expect(try await plane.get(path).code == "operation-unknown")
            #expect(try await plane.granted("k") > token)
        }
    }

    @Test("who and why are required, and everything is checked before anything is decided")
    func malformed() async throws {
        try await withPlane { plane in
            let (path, _) = try await Self.lost(plane, "k")
            let amiss: [(JSONValue, String)] = [
                (["resolution": "not-applied", "actor": "alice"], "/reason"), (["resolution": "not-applied", "reason": "r"], "/actor"),
                (["resolution": "not-applied", "actor": "alice", "reason": ""], "/reason"),
                (["resolution": "not-applied", "actor": "alice", "reason": "  "], "/reason"),
                (["resolution": "not-applied", "actor": "", "reason": "r"], "/actor"),
                (["resolution": "not-applied", "actor": "al\nice", "reason": "r"], "/actor"),
                (["actor": "alice", "reason": "r"], "/resolution"), (["resolution": "done", "actor": "alice", "reason": "r"], "/resolution"),
                (["resolution": "applied", "outcome": ["body": "x"], "actor": "alice", "reason": "r"], "/outcome/body"),
                (["resolution": "not-applied", "outcome": [:], "actor": "alice", "reason": "r"], "/outcome"),
                (["resolution": "not-applied", "actor": "alice", "reason": "r", "epoch": "1"], "/epoch"),
                (["resolution": "not-applied", "actor": "alice", "reason": "r", "force": true], ""), ([1], ""),
            ]
            for (body, pointer) in amiss {
                let answer = try await plane.post(path + "/resolve", body)
                #expect(answer.status == 400 && answer["pointer"]?.string == pointer, "\(body): \(answer.text)")
            }
            #expect(try await plane.post(path + "/forget", ["actor": "a"])["pointer"] == "/reason")
            for text in ["op_", "k", "op_" + String(repeating: "0", count: 32), plane.reference("k").uppercased()] {
                #expect(try await plane.get("/v1/operations/\(text)").code == "operation-unknown")
                #expect(try await plane.post("/v1/operations/\(text)/resolve", Self.why).code == "operation-unknown")
            }
            #expect(try await plane.claim("k")["result"] == "uncertain")
            #expect(try await plane.get("/v1/audit")["entries"] == [])
        }
    }

    @Test("operations are listed by state, scene, scope, key and age, page by page", arguments: TriedStore.allCases)
    func list(kind: TriedStore) async throws {
        let clock = ManualStoreClock()
        try await withPlane(kind, clock: clock) { plane in
            for index in 0..<7 {
                let token = try await plane.granted("k\(index)", lease: "1h")
                if index % 2 == 0 { #expect(try await plane.apply("suspend", "k\(index)", token, ["reason": "lost"])) }
                if index == 1 { #expect(try await plane.complete("k1", token)) }
                clock.advance(by: .seconds(60))
            }
            _ = try await plane.claim("k0", scope: "elsewhere")
            func keys(_ query: String) async throws -> [String] {
                let answer = try await plane.get("/v1/operations?\(query)")
                #expect(answer.status == 200, "\(query)")
                return answer["operations"]?.array?.compactMap { $0["key"]?.string } ?? []
            }
            #expect(Set(try await keys("")) == ["k0", "k1", "k2", "k3", "k4", "k5", "k6"])
            #expect(try await keys("state=uncertain") == ["k0", "k2", "k4", "k6"])
            #expect(Set(try await keys("state=claimed,completed&scope=claims&scope=orders")) == ["k1", "k3", "k5"])
            #expect(try await keys("scene=claims&state=completed") == ["k1"])
            #expect(try await keys("scene=other") == [])
            #expect(try await keys("scope=claims&scope=elsewhere") == ["k0"])
            #expect(try await keys("scope=claims%2Forders") == [])
            #expect(try await keys("key=k3") == ["k3"])
            #expect(try await keys("scope=claims&scope=orders&key=k3&state=uncertain") == [])
            #expect(try await keys("state=uncertain&older_than=4m") == ["k0", "k2"])

            var cursor: String?
            var found: [String] = []
            repeat {
                let page = try await plane.get("/v1/operations?state=uncertain&limit=3" + (cursor.map { "&cursor=\($0)" } ?? ""))
                found += page["operations"]?.array?.compactMap { $0["key"]?.string } ?? []
                cursor = page["cursor"]?.string
            } while cursor != nil
            #expect(found == ["k0", "k2", "k4", "k6"])

            let listed = try await plane.get("/v1/operations?state=uncertain&limit=1")["operations"]?[0]
            #expect(listed?["age_ms"]?.integer == 420_000)
            #expect(listed?["scope"] == ["claims", "orders"])
            #expect(listed?["reason"] == "lost")
            #expect(listed?["operation"]?.string == plane.reference("k0"))
        }
    }

    @Test("a filter with a slip is refused, not ignored", arguments: [
        "states=uncertain", "state=done", "state=uncertain,", "limit=0", "limit=1001", "limit=ten", "limit=+5", "limit=1&limit=2", "older_than=10",
        "older_than=tomorrow", "key=", "x", "state=%zz", "state=%ff", "state=%2",
    ])
    func listMalformed(query: String) async throws {
        try await withPlane { plane in
            let answer = try await plane.get("/v1/operations?\(query)")
            #expect(answer.status == 400 && answer.code == "invalid-request")
        }
    }

    @Test("what is shown of an operation never holds its token; the outcome's body is shown on request only", arguments: TriedStore.allCases)
    func show(kind: TriedStore) async throws {
        try await withPlane(kind) { plane in
            let token = try await plane.granted("k")
            let owner = String(token.suffix(32))
            let path = "/v1/operations/\(plane.reference("k"))"
            let running = try await plane.get(path)
            #expect(running["state"] == "claimed")
            #expect((1...30_000).contains(running["lease_remaining_ms"]?.integer ?? 0))
            #expect(running["policy"]?.string?.contains("reclaim") == true)
            #expect(running["outcome"] == .null)
            #expect(try await plane.complete("k", token, ["status": 201, "headers": [["x-secret", "s"]], "body": "c2VjcmV0"]))
            let done = try await plane.get(path)
            #expect(done["outcome"] == ["status": 201, "body_length": 6, "body_kept": true])
            #expect(done["response_until"] != nil && done["key_until"] != nil)
            let full = try await plane.get(path + "?include=outcome")
            #expect(full["outcome"] == ["status": 201, "headers": [["x-secret", "s"]], "body": "c2VjcmV0"])
            #expect(try await plane.get(path + "?include=token").status == 400)
            for answer in [running, done, full, try await plane.get("/v1/operations"), try await plane.get("/")] {
                #expect(!answer.text.contains(owner))
            }
        }
    }

    @Test("what each scene promises is shown with its reasons and what that rests on")
    func scenes() async throws {
        let deduplicating = Policy(scene: "charge", effect: .deduplicates(keeps: .seconds(7 * 86_400)))
        let unknown = Policy(scene: "mail", effect: .unknown)
        try await TriedStore.sqlite.use { store in
            let reports = try [deduplicating, unknown].map { SceneReport($0, try $0.assess(on: store.capabilities)) }
            let plane = try ControlPlane.quiet(
                admin: AdminConfiguration(listen: ListenAddress(host: "127.0.0.1", port: 0)), store: store, scenes: { reports })
            try await PlaneUnderTest.run(plane) { plane in
                let scenes = try #require(try await plane.get("/v1/scenes")["scenes"]?.array)
                #expect(scenes.map { $0["name"]?.string } == ["charge", "mail", "claims (onLapse: reclaim)", "claims (onLapse: uncertain)"])
                #expect(scenes.map { $0["level"]?.string } == ["deduplicatedByTarget", "atMostOnce", "atLeastOnce", "atMostOnce"])
                #expect(scenes.map { $0["basis"]?.string } == ["declared", "verified", "verified", "verified"])
                #expect(scenes.map { $0["effectively_once"]?.bool } == [true, false, false, false])
                #expect(scenes[0]["horizon"] == "7d")
                #expect(scenes.allSatisfy { $0["reasons"]?.array?.isEmpty == false })
            }
        }
    }
}
