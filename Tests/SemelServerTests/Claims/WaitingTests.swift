import AsyncHTTPClient
import Logging
import NIOHTTP1
import Semel
import SemelTesting
import ServiceLifecycle
import Testing

@testable import SemelServer

@Suite struct WaitingTests {
    @Test("what is settled is answered at once", arguments: TriedStore.allCases)
    func settled(kind: TriedStore) async throws {
        try await withPlane(kind) { plane in
            #expect(try await plane.wait("never", "60s")["result"] == "absent")
            let done = try await plane.granted("done")
            #expect(try await plane.complete("done", done, ["status": 201, "body": "b2s="]))
            let answer = try await plane.wait("done", "60s")
            #expect(answer["result"] == "completed")
            #expect(answer["outcome"] == ["status": 201, "headers": [], "body": "b2s="])
            let lost = try await plane.granted("lost")
            #expect(try await plane.apply("suspend", "lost", lost, ["reason": "no answer"]))
            #expect(try await plane.wait("lost", "60s")["result"] == "uncertain")
        }
    }

    @Test("a completion wakes everybody who waits, promptly; so do suspend and release (H40)", arguments: TriedStore.allCases)
    func wakes(kind: TriedStore) async throws {
        try await kind.use { store in
            let claims = ClaimsAPI(store: store)
            let plane = try ControlPlane.quiet(
                admin: AdminConfiguration(listen: ListenAddress(host: "127.0.0.1", port: 0)), store: store, claimsAPI: claims)
            try await PlaneUnderTest.run(plane) { plane in
                for (verb, more, expected) in [
                    ("complete", ["outcome": ["body": "MQ=="]], "completed"), ("suspend", ["reason": "lost"], "uncertain"),
                    ("release", [:], "absent"),
                ] as [(String, JSONValue, String)] {
                    let token = try await plane.granted(verb, lease: "1h")
                    try await withThrowingTaskGroup(of: PlaneAnswer.self) { group in
                        for _ in 0..<20 { group.addTask { try await plane.wait(verb, "60s") } }
                        try await eventually({ claims.waiters.current == 20 }, "twenty wait")
                        let start = ContinuousClock.now
                        #expect(try await plane.apply(verb, verb, token, more))
                        for try await answer in group {
                            #expect(answer["result"]?.string == expected)
                            if expected == "completed" { #expect(answer["outcome"]?["body"] == "MQ==") }
                        }
                        #expect(ContinuousClock.now - start < .seconds(45), "woken, not timed out")
                    }
                    #expect(claims.waiters.current == 0)
                }
            }
        }
    }

    @Test("a completion that comes after the record was read and before the wait begins still wakes (H40)")
    func lostWakeUp() async throws {
        let store = StoreDouble()
        let plane = try ControlPlane.quiet(admin: AdminConfiguration(listen: ListenAddress(host: "127.0.0.1", port: 0)), store: store)
        try await PlaneUnderTest.run(plane) { plane in
            let token = try #require(FencingToken(try await plane.granted("k", lease: "1h")))
            store.set { $0.afterNextRead = { id in _ = try await store.inner.apply(.complete(Outcome()), to: id, token: token) } }
            let start = ContinuousClock.now
            #expect(try await plane.wait("k", "60s")["result"] == "completed")
            #expect(ContinuousClock.now - start < .seconds(45), "woken, not timed out")
            #expect(store.hasReadHook == false, "the completion came in between")
        }
    }

    @Test("no wake-up is lost between looking and waiting: completions race with waits", arguments: TriedStore.allCases)
    func races(kind: TriedStore) async throws {
        try await withPlane(kind) { plane in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for index in 0..<100 {
                    group.addTask {
                        let token = try await plane.granted("k\(index)", lease: "1h")
                        async let waited = plane.wait("k\(index)", "60s")
                        async let completed = plane.complete("k\(index)", token)
                        #expect(try await completed)
                        #expect(try await waited["result"] == "completed")
                    }
                }
                try await group.waitForAll()
            }
        }
    }

    @Test("when the time is over it is in progress, with what is left of the lease", arguments: TriedStore.allCases)
    func timeOut(kind: TriedStore) async throws {
        try await withPlane(kind) { plane in
            _ = try await plane.granted("k", lease: "30s")
            let start = ContinuousClock.now
            let answer = try await plane.wait("k", "200ms")
            #expect(ContinuousClock.now - start >= .milliseconds(200))
            #expect(answer["result"] == "in_progress")
            #expect((1...30_000).contains(answer["lease_remaining_ms"]?.integer ?? 0))
            #expect(try await plane.wait("k", "0ms")["result"] == "in_progress")
        }
    }

    @Test("a waiter is told when the holder's lease lapses: uncertain, or free to claim", arguments: TriedStore.allCases)
    func lapse(kind: TriedStore) async throws {
        try await withPlane(kind) { plane in
            _ = try await plane.granted("careful", lease: "100ms", onLapse: "uncertain")
            let uncertain = try await plane.wait("careful", "60s")
            #expect(uncertain["result"] == "uncertain" && uncertain["reason"] == "lease-lapsed")
            _ = try await plane.granted("eager", lease: "100ms")
            let free = try await plane.wait("eager", "60s")
            #expect(free["result"] == "in_progress" && free["lease_remaining_ms"] == 0)
            #expect(try await plane.claim("eager")["result"] == "reclaimed")
        }
    }

    @Test("a waiter goes on waiting while the holder renews (short leases, several renewals)", arguments: TriedStore.allCases)
    func renewals(kind: TriedStore) async throws {
        try await withPlane(kind) { plane in
            let token = try await plane.granted("k", lease: "5s")
            async let waited = plane.wait("k", "60s")
            for _ in 0..<20 { #expect(try await plane.apply("renew", "k", token, ["lease": "5s"])) }
            #expect(try await plane.complete("k", token))
            #expect(try await waited["result"] == "completed")
        }
    }

    @Test("no more wait than may: the next is a 429; a client that goes away makes room (H41)")
    func limitAndDisconnect() async throws {
        var limits = ClaimsAPI.Limits()
        limits.waiters = 2
        let store = MemoryStore()
        let claims = ClaimsAPI(store: store, limits: limits)
        let plane = try ControlPlane.quiet(
            admin: AdminConfiguration(listen: ListenAddress(host: "127.0.0.1", port: 0)), store: store, claimsAPI: claims)
        try await PlaneUnderTest.run(plane) { plane in
            let token = try await plane.granted("k", lease: "1h")
            let leaving = Task { try await plane.wait("k", "60s") }
            let staying = Task { try await plane.wait("k", "60s") }
            try await eventually({ claims.waiters.current == 2 }, "both wait")
            let refused = try await plane.wait("k", "60s")
            #expect(refused.status == 429 && refused.code == "too-many-waiters")
            #expect(refused.fields.first(name: "Retry-After") != nil)
            let batch = try await plane.post("/v1/wait", ["items": [["scope": "orders", "key": "k", "timeout": "60s"]]])
            #expect(batch["items"]?[0]?["problem"]?["code"] == "too-many-waiters")

            leaving.cancel()
            try await eventually({ claims.waiters.current == 1 }, "the one who left does not wait any more")
            #expect(try await plane.complete("k", token))
            #expect(try await staying.value["result"] == "completed")
        }
    }

    @Test("many are waited for in one request, answered in order when the last has settled")
    func batch() async throws {
        try await withPlane { plane in
            let a = try await plane.granted("a", lease: "1h")
            _ = try await plane.granted("b", lease: "1h")
            async let waited = plane.post(
                "/v1/wait",
                [
                    "items": [
                        ["scope": "orders", "key": "a", "timeout": "60s"], ["scope": "orders", "key": "b", "timeout": "300ms"],
                        ["scope": "orders", "key": "c", "timeout": "60s"], ["scope": "orders", "key": "d", "timeout": 60],
                    ]
                ])
            #expect(try await plane.complete("a", a))
            let items = try await waited["items"]?.array ?? []
            #expect(items.map { $0["result"]?.string } == ["completed", "in_progress", "absent", nil])
            #expect(items[3]["problem"]?["pointer"] == "/items/3/timeout")
        }
    }

    @Test("a wait is bounded, and its time needs a unit", arguments: ["60001ms", "61s", "-1s", "10", "soon"])
    func bounds(timeout: String) async throws {
        try await withPlane { plane in
            let answer = try await plane.wait("k", timeout)
            #expect(answer.status == 400 && answer["pointer"] == "/timeout")
        }
    }

    @Test("a graceful shutdown ends the waits with what is so far, and then the server")
    func shutdown() async throws {
        let store = MemoryStore()
        let claims = ClaimsAPI(store: store)
        let plane = try ControlPlane.quiet(
            admin: AdminConfiguration(listen: ListenAddress(host: "127.0.0.1", port: 0)), store: store, claimsAPI: claims)
        let services = ServiceGroup(configuration: .init(services: [plane], logger: Logger(label: "test")))
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await services.run() }
            let test = PlaneUnderTest(plane: plane, port: try await plane.port())
            _ = try await test.granted("k", lease: "1h")
            async let waited = test.wait("k", "60s")
            try await eventually({ claims.waiters.current == 1 }, "it waits")
            await services.triggerGracefulShutdown()
            #expect(try await waited["result"] == "in_progress")
            try await group.waitForAll()
        }
    }
}
