import Semel
import SemelTesting
import Testing

@testable import SemelServer

@Suite struct FencingTests {
    @Test("after a lapse the next one is granted a higher epoch, and the zombie's words change nothing (H5–H7, R13, R17)", arguments: TriedStore.allCases)
    func zombie(kind: TriedStore) async throws {
        let clock = ManualStoreClock()
        try await withPlane(kind, clock: clock) { plane in
            let zombie = try await plane.granted("k", lease: "50ms")
            clock.advance(by: .milliseconds(50))
            let next = try await plane.claim("k", lease: "30s")
            #expect(next["result"] == "reclaimed")
            #expect(next["attempt"]?.integer == 2)
            let token = try #require(next["token"]?.string)
            #expect(token > zombie)

            #expect(try await plane.apply("release", "k", zombie) == false)
            #expect(try await plane.apply("renew", "k", zombie, ["lease": "1h"]) == false)
            #expect(try await plane.apply("suspend", "k", zombie, ["reason": "failed"]) == false)
            #expect(try await plane.complete("k", zombie) == false)
            let standing = try await plane.claim("k")
            #expect(standing["result"] == "in_progress")
            #expect((29_000...30_000).contains(standing["lease_remaining_ms"]?.integer ?? 0))

            #expect(try await plane.complete("k", token, ["status": 200, "body": "Mg=="]))
            #expect(try await plane.complete("k", zombie) == false)
            #expect(try await plane.apply("release", "k", zombie) == false)
            #expect(try await plane.claim("k")["outcome"]?["body"] == "Mg==")
        }
    }

    @Test("with onLapse: uncertain nobody runs after a lapse, and the owner's late complete is accepted (H2)", arguments: TriedStore.allCases)
    func uncertain(kind: TriedStore) async throws {
        let clock = ManualStoreClock()
        try await withPlane(kind, clock: clock) { plane in
            let token = try await plane.granted("k", lease: "1s", onLapse: "uncertain")
            clock.advance(by: .seconds(1))
            let standing = try await plane.claim("k", onLapse: "reclaim")
            #expect(standing["result"] == "uncertain")
            #expect(standing["reason"] == "lease-lapsed")
            #expect(standing["since"] != nil)
            #expect(try await plane.apply("renew", "k", token, ["lease": "30s"]) == false)
            #expect(try await plane.complete("k", token))
            #expect(try await plane.claim("k")["result"] == "completed")
        }
    }

    @Test("duplicates do not prolong a dead owner's lease, nor does the owner's own claim said again (R9)", arguments: TriedStore.allCases)
    func duplicatesDoNotRenew(kind: TriedStore) async throws {
        let clock = ManualStoreClock()
        try await withPlane(kind, clock: clock) { plane in
            _ = try await plane.granted("k", lease: "30s", owner: "a")
            clock.advance(by: .seconds(20))
            #expect(try await plane.claim("k", lease: "1h")["lease_remaining_ms"]?.integer == 10_000)
            #expect(try await plane.claim("k", lease: "1h", owner: "a")["lease_remaining_ms"]?.integer == 10_000)
            clock.advance(by: .seconds(10))
            #expect(try await plane.claim("k")["result"] == "reclaimed")
        }
    }

    @Test("renew keeps the lease, release lets the key run again under a higher epoch, suspend stops everybody", arguments: TriedStore.allCases)
    func holdersWords(kind: TriedStore) async throws {
        let clock = ManualStoreClock()
        try await withPlane(kind, clock: clock) { plane in
            let first = try await plane.granted("k", lease: "10s")
            clock.advance(by: .seconds(9))
            #expect(try await plane.apply("renew", "k", first, ["lease": "10s"]))
            clock.advance(by: .seconds(9))
            #expect(try await plane.claim("k")["lease_remaining_ms"]?.integer == 1000)
            #expect(try await plane.apply("release", "k", first))
            #expect(try await plane.apply("release", "k", first) == false)

            let second = try await plane.granted("k", lease: "10s")
            #expect(second > first)
            #expect(try await plane.apply("suspend", "k", second, ["reason": "the bank did not answer"]))
            let standing = try await plane.claim("k")
            #expect(standing["result"] == "uncertain")
            #expect(standing["reason"] == "the bank did not answer")
            #expect(try await plane.apply("suspend", "k", second, ["reason": "again"]))
        }
    }

    @Test("a complete said again with the same outcome is applied, with another it is not (R11)", arguments: TriedStore.allCases)
    func completeTwice(kind: TriedStore) async throws {
        try await withPlane(kind) { plane in
            let token = try await plane.granted("k")
            #expect(try await plane.complete("k", token, ["status": 201, "body": "MQ=="]))
            #expect(try await plane.complete("k", token, ["status": 201, "body": "MQ=="]))
            #expect(try await plane.complete("k", token, ["status": 201, "body": "Mg=="]) == false)
            #expect(try await plane.claim("k")["outcome"]?["body"] == "MQ==")
        }
    }

    @Test("a wrong token never changes anything, whatever part of it is wrong", arguments: TriedStore.allCases)
    func wrongToken(kind: TriedStore) async throws {
        try await withPlane(kind) { plane in
            let text = try await plane.granted("k")
            let token = try #require(FencingToken(text))
            let other = try await plane.granted("other")
            let wrong = [
                FencingToken(epoch: Epoch(rawValue: token.epoch.rawValue + 1), owner: token.owner).description,
                FencingToken(epoch: Epoch(rawValue: token.epoch.rawValue - 1), owner: token.owner).description,
                FencingToken(epoch: token.epoch, owner: Owner(high: token.owner.high, low: token.owner.low ^ 1)).description,
                FencingToken(epoch: token.epoch, owner: Owner(high: token.owner.high ^ 1, low: token.owner.low)).description,
                other, String(repeating: "0", count: 48),
            ]
            for guess in wrong {
                #expect(try await plane.complete("k", guess) == false)
                #expect(try await plane.apply("release", "k", guess) == false)
                #expect(try await plane.apply("renew", "k", guess, ["lease": "1h"]) == false)
                #expect(try await plane.apply("suspend", "k", guess, ["reason": "no"]) == false)
            }
            #expect(try await plane.apply("complete", "never-claimed", text, ["outcome": [:]]) == false)
            #expect(try await plane.complete("k", text))
        }
    }

    @Test("the outcome is kept as long as was asked, then the key, then nothing", arguments: TriedStore.allCases)
    func retention(kind: TriedStore) async throws {
        let clock = ManualStoreClock()
        try await withPlane(kind, clock: clock) { plane in
            let token = try await plane.granted("k")
            let more: JSONValue = ["outcome": ["body": "MQ=="], "retention": ["response": "1h", "key": "25h"]]
            #expect(try await plane.apply("complete", "k", token, more))
            clock.advance(by: .seconds(3599))
            #expect(try await plane.claim("k")["result"] == "completed")
            clock.advance(by: .seconds(1))
            #expect(try await plane.claim("k")["result"] == "expired")
            #expect(try await plane.wait("k", "0ms")["result"] == "expired")
            clock.advance(by: .seconds(24 * 3600 - 1))
            #expect(try await plane.claim("k")["result"] == "expired")
            clock.advance(by: .seconds(1))
            let next = try await plane.claim("k")
            #expect(next["result"] == "claimed")
            #expect(next["token"]?.string ?? "" > token)

            // One of the two alone: the other is the default, as far as it fits.
            for (retention, thenAnswers) in [(["response": "40d"], "completed"), (["key": "24h"], "claimed"), (["key": "60d"], "expired")]
                as [(JSONValue, String)]
            {
                let key = "\(retention)".filter { $0.isLetter || $0.isNumber }
                let token = try await plane.granted(key)
                #expect(try await plane.apply("complete", key, token, ["outcome": [:], "retention": retention]))
                clock.advance(by: .seconds(35 * 86_400))
                #expect(try await plane.claim(key)["result"]?.string == thenAnswers, "\(retention)")
            }
        }
    }

    @Test("the levels that are shown stay those of the rule that the record was claimed under")
    func pinnedLevel() async throws {
        let clock = ManualStoreClock()
        try await withPlane(.sqlite, clock: clock) { plane in
            _ = try await plane.granted("k", lease: "1s", onLapse: "reclaim")
            clock.advance(by: .seconds(2))
            // The second claimant wishes for more; the record's rule stays.
            let next = try await plane.claim("k", lease: "1s", onLapse: "uncertain")
            #expect(next["result"] == "reclaimed")
            #expect(next["guarantee"] == "atLeastOnce")
        }
    }
}
