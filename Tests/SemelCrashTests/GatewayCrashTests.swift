import ChildProcesses
import Foundation
import Testing

/// `kill -9` of the real gateway between every two steps, for each kind of effect; the payments service counts.
@Suite("A gateway that is killed", .serialized)
struct GatewayCrashTests {
    struct Kind: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var scene: String
        var path = "/v1/payments"
    }

    static let unknown = Kind(
        testDescription: "effect unknown, atMostOnce",
        scene: "effect: unknown\nguarantee: atMostOnce\nlease: 1s")
    static let deduplicates = Kind(
        testDescription: "effect deduplicates",
        scene: "effect: deduplicates\nguarantee: deduplicatedByTarget\nlease: 1s", path: "/v1/dedup/payments")
    static let queryable = Kind(
        testDescription: "effect queryable, fenced",
        scene: """
            effect: { queryable: { get: "/v1/payments?key={key}", applied: 200, absent: 404, inFlight: 200ms, fence: Semel-Epoch } }
            guarantee: fencedAndVerified
            lease: 1s
            """)

    /// The steps of an operation, and whether the effect has happened when the process dies there.
    static let steps: [(failpoint: String, effect: Bool)] = [
        ("beforeClaim", false), ("afterClaim", false), ("afterSend", true), ("afterAnswer", true), ("afterRecord", true),
        ("beforeReply", true),
    ]

    @Test(
        "doubles nothing and loses nothing, wherever it dies (H1, H2, H3, H4, R19)",
        arguments: [unknown, deduplicates, queryable], steps.map(\.failpoint))
    func killedAtEachStep(_ kind: Kind, _ failpoint: String) async throws {
        try await CrashBench.withBench { bench in
            let key = "order-\(failpoint)"
            let dying = try await bench.startGateway(scene: kind.scene, failpoints: "\(failpoint)=kill")
            let answer = try? await bench.pay(dying, key: key, path: kind.path)
            #expect(await dying.process.end() == .signal(SIGKILL))
            #expect(bench.firedFailpoints == [failpoint], "the fault did not fire")
            #expect(answer == nil, "an answer was sent before the process died at \(failpoint)")

            let restarted = try await bench.startGateway(scene: kind.scene)
            let recorded = ["afterRecord", "beforeReply"].contains(failpoint)
            if kind.testDescription == Self.unknown.testDescription, !recorded, failpoint != "beforeClaim" {
                // Nobody can ask this target: what is lost on the way stays uncertain, whatever the client repeats.
                let uncertain = try await bench.payUntilFinal(restarted, key: key, path: kind.path) { $0.code != "in-progress" }
                #expect(uncertain.status == 409)
                #expect(uncertain.code == "outcome-uncertain")
                #expect(try await bench.operations(restarted, state: "uncertain") == 1)
                #expect(try await bench.effects(of: key) <= 1)
            } else {
                let final = try await bench.payUntilFinal(restarted, key: key, path: kind.path) {
                    $0.status == 201 || $0.code == "outcome-unavailable"
                }
                #expect(final.isReplayed == recorded || kind.testDescription != Self.unknown.testDescription)
                #expect(try await bench.effects(of: key) == 1)
                let again = try await bench.pay(restarted, key: key, path: kind.path)
                #expect(again.status == final.status)
                if again.status == 201 { #expect(again.body == final.body) }
                #expect(try await bench.effects(of: key) == 1)
            }
            // The gateway still works: a fresh key goes through.
            #expect(try await bench.pay(restarted, key: "fresh-\(failpoint)", path: kind.path).status == 201)
            restarted.process.signal(SIGTERM)
            #expect(await restarted.process.end() == .code(0))
        }
    }

    @Test("while it streams an answer too large to keep: uncertain, never sent in part as a replay (H35, H36)")
    func killedWhileStreaming() async throws {
        try await CrashBench.withBench { bench in
            let scene = Self.unknown.scene + "\nlimits: { response: 64KiB }"
            let dying = try await bench.startGateway(scene: scene, failpoints: "whileStreaming=kill")
            let answer = try? await bench.pay(dying, key: "large", headers: ["Demo-Body": "2MiB"])
            #expect(await dying.process.end() == .signal(SIGKILL))
            #expect(bench.firedFailpoints == ["whileStreaming"])
            #expect(answer == nil)

            let restarted = try await bench.startGateway(scene: scene)
            let uncertain = try await bench.payUntilFinal(restarted, key: "large") { $0.code != "in-progress" }
            #expect(uncertain.code == "outcome-uncertain")
            #expect(try await bench.effects(of: "large") == 1)

            // Without the fault the answer is sent in full, and its retry says that it was not kept.
            let whole = try await bench.pay(restarted, key: "larger", headers: ["Demo-Body": "2MiB"])
            #expect(whole.status == 201)
            #expect(whole.body.utf8.count >= 2 << 20)
            let retry = try await bench.pay(restarted, key: "larger", headers: ["Demo-Body": "2MiB"])
            #expect(retry.code == "outcome-unavailable")
            #expect(try await bench.effects(of: "larger") == 1)
            restarted.process.signal(SIGTERM)
            #expect(await restarted.process.end() == .code(0))
        }
    }

    @Test("while it renews the lease of a slow request (H1)")
    func killedWhileRenewing() async throws {
        try await CrashBench.withBench { bench in
            let dying = try await bench.startGateway(scene: Self.queryable.scene, failpoints: "whileRenewing=kill")
            let answer = try? await bench.pay(dying, key: "slow", headers: ["Demo-Latency": "5s"])
            #expect(await dying.process.end() == .signal(SIGKILL))
            #expect(bench.firedFailpoints == ["whileRenewing"])
            #expect(answer == nil)
            let restarted = try await bench.startGateway(scene: Self.queryable.scene)
            let final = try await bench.payUntilFinal(restarted, key: "slow") { $0.status == 201 || $0.code == "outcome-unavailable" }
            #expect(final.status == 409)
            #expect(try await bench.effects(of: "slow") == 1)
            restarted.process.signal(SIGTERM)
            #expect(await restarted.process.end() == .code(0))
        }
    }

    @Test("while it asks the target: the next one asks again (H2)")
    func killedWhileVerifying() async throws {
        try await CrashBench.withBench { bench in
            let first = try await bench.startGateway(scene: Self.queryable.scene, failpoints: "afterAnswer=kill")
            _ = try? await bench.pay(first, key: "asked")
            #expect(await first.process.end() == .signal(SIGKILL))
            // Its resolver finds the operation by itself, perhaps before the gateway listens.
            let second = try bench.launchGateway(scene: Self.queryable.scene, failpoints: "whileVerifying=kill")
            #expect(await second.end() == .signal(SIGKILL))
            #expect(bench.firedFailpoints == ["afterAnswer", "whileVerifying"])
            let third = try await bench.startGateway(scene: Self.queryable.scene)
            _ = try await bench.payUntilFinal(third, key: "asked") { $0.status == 201 || $0.code == "outcome-unavailable" }
            #expect(try await bench.effects(of: "asked") == 1)
            #expect(try await bench.operations(third, state: "uncertain") == 0)
            third.process.signal(SIGTERM)
            #expect(await third.process.end() == .code(0))
        }
    }

    @Test("a clean stop finishes what is under way before it ends")
    func drains() async throws {
        try await CrashBench.withBench { bench in
            let gateway = try await bench.startGateway(scene: Self.unknown.scene)
            async let slow = bench.pay(gateway, key: "drained", headers: ["Demo-Latency": "1s"])
            while try await bench.effects(of: "drained") == 0 { try await Task.sleep(for: .milliseconds(20)) }
            gateway.process.signal(SIGTERM)
            #expect(try await slow.status == 201)
            #expect(await gateway.process.end() == .code(0))
        }
    }
}
