import NIOHTTP1
import Semel
import Testing

@testable import SemelServer

@Suite struct HealthTests {
    private static let admin = AdminConfiguration(listen: ListenAddress(host: "127.0.0.1", port: 0))

    @Test("it is alive; it is ready when everything that is needed is", arguments: TriedStore.allCases)
    func ready(kind: TriedStore) async throws {
        try await withPlane(kind) { plane in
            #expect(try await plane.get("/healthz")["alive"] == true)
            let answer = try await plane.get("/readyz")
            #expect(answer.status == 200 && answer["ready"] == true)
            #expect(answer["components"]?[0]?["name"] == "store")
            #expect(answer["components"]?[0]?["state"] == "ready")
            #expect(answer["components"]?[0]?["detail"]?.string?.isEmpty == false)
        }
    }

    @Test("a needed part that is down makes it not ready, one that is not needed does not; both are shown")
    func down() async throws {
        let isNeeded = Locked(true)
        let plane = try ControlPlane.quiet(
            admin: Self.admin, store: MemoryStore(),
            checks: [
                ReadinessCheck(name: "upstream payments", isNeeded: { false }) { (.down, "refused the connection") },
                ReadinessCheck(name: "gateway") { (isNeeded.withLock { $0 } ? .down : .ready, "is draining") },
            ])
        try await PlaneUnderTest.run(plane) { plane in
            let down = try await plane.get("/readyz")
            #expect(down.status == 503 && down["ready"] == false)
            #expect(down["components"]?.array?.map { $0["state"]?.string } == ["ready", "down", "down"])
            #expect(down["components"]?[1]?["detail"] == "refused the connection")
            #expect(try await plane.get("/").text.contains("Not ready"))
            #expect(try await plane.get("/healthz").status == 200)
            isNeeded.withLock { $0 = false }
            #expect(try await plane.get("/readyz").status == 200)
        }
    }

    @Test("a part that hangs is down; the probe is answered all the same")
    func hanging() async throws {
        let (stream, continuation) = AsyncStream<Never>.makeStream()
        let plane = try ControlPlane.quiet(
            admin: Self.admin, store: MemoryStore(),
            checks: [
                ReadinessCheck(name: "deaf") {
                    // It does not hear its cancellation either.
                    await Task.detached { for await _ in stream {} }.value
                    return (.ready, "")
                }
            ])
        try await PlaneUnderTest.run(plane) { plane in
            let answer = try await plane.get("/readyz")
            #expect(answer.status == 503)
            #expect(answer["components"]?.array?.map { $0["state"]?.string } == ["ready", "down"])
            #expect(answer["components"]?[1]?["detail"] == "It did not answer within 2s.")
        }
        continuation.finish()
    }

    @Test("metrics are what the registry says, in the Prometheus text format")
    func metrics() async throws {
        let plane = try ControlPlane.quiet(admin: Self.admin, store: MemoryStore(), metrics: { "semel_uncertain{scene=\"claims\"} 0\n" })
        try await PlaneUnderTest.run(plane) { plane in
            let answer = try await plane.get("/metrics")
            #expect(answer.text == "semel_uncertain{scene=\"claims\"} 0\n")
            #expect(answer.fields.first(name: "Content-Type") == "text/plain; version=0.0.4; charset=utf-8")
        }
    }

    @Test("what the claims API did is told to whoever counts")
    func counting() async throws {
        final class Count: ClaimsObserver {
            let seen = Locked([String]())
            func claimAnswered(_ result: String) { seen.withLock { $0.append(result) } }
            func changeAnswered(_ change: String, applied: Bool) { seen.withLock { $0.append("\(change) \(applied)") } }
            func refused(_ code: String) { seen.withLock { $0.append(code) } }
        }
        let count = Count()
        let store = MemoryStore()
        let plane = try ControlPlane.quiet(admin: Self.admin, store: store, claimsAPI: ClaimsAPI(store: store, observer: count))
        try await PlaneUnderTest.run(plane) { plane in
            let token = try await plane.granted("k")
            _ = try await plane.claim("k")
            #expect(try await plane.apply("renew", "k", token, ["lease": "1m"]))
            #expect(try await plane.complete("k", token))
            #expect(try await plane.apply("release", "k", token) == false)
            _ = try await plane.claim("k")
            _ = try await plane.claim("k", lease: "1")
            _ = try await plane.post("/v1/claim", ["items": [1]])
            _ = try await plane.post("/v1/claim", text: "{")
        }
        #expect(
            count.seen.withLock { $0 } == [
                "claimed", "in_progress", "renew true", "complete true", "release false", "completed", "invalid-request", "invalid-request",
                "malformed-json",
            ])
    }

    @Test("the claims API's figures are in the metrics, under the scene claims")
    func claimsMetrics() async throws {
        let registry = PrometheusRegistry()
        let metrics = SemelMetrics(factory: registry)
        let store = MeteredStore(MemoryStore(), metrics: metrics, uptime: Environment.live.uptime)
        let plane = try ControlPlane.quiet(
            admin: Self.admin, store: store, claimsAPI: ClaimsAPI(store: store, observer: ClaimsMetrics(metrics)),
            metrics: { registry.exposition() })
        try await PlaneUnderTest.run(plane) { plane in
            for key in ["a", "b", "c"] { _ = try await plane.claim(key) }
            let token = try await plane.granted("k")
            #expect(try await plane.complete("k", token))
            #expect(try await plane.apply("renew", "a", token, ["lease": "1m"]) == false)
            _ = try await plane.claim("k")
            _ = try await plane.claim("x", lease: "1")
            let lost = try await plane.granted("lost")
            #expect(try await plane.apply("suspend", "lost", lost, ["reason": "r"]))
            let text = try await plane.get("/metrics").text
            for line in [
                #"semel_claims_total{result="claimed",scene="claims"} 5"#, #"semel_claims_total{result="completed",scene="claims"} 1"#,
                #"semel_operations_total{outcome="completed",scene="claims"} 1"#, #"semel_operations_total{outcome="uncertain",scene="claims"} 1"#,
                #"semel_replayed_total{scene="claims"} 1"#, #"semel_lease_lost_total{scene="claims"} 1"#,
                #"semel_rejected_total{reason="invalid-request",scene="claims"} 1"#,
            ] {
                #expect(text.contains(line + "\n"), "\(line)\n\(text)")
            }
        }
    }
}
