import ChildProcesses
import Foundation
import NIOHTTP1
import Semel
import TestServers
import Testing

@testable import SemelServer

/// A store that can be killed, and comes back with what it had.
enum KillableStore: String, CaseIterable, Sendable {
    case redis
    #if Postgres
    case postgres
    #endif

    func start() async throws -> TestServer { try await TestServer("start-\(rawValue)") }

    func url(of server: TestServer) -> String { server.address.contains("://") ? server.address : "redis://" + server.address }

    func prepare(_ server: TestServer) async throws {
        guard self != .redis else { return }
        let migration = try ChildProcess("semel", ["store", "migrate", url(of: server)], in: server.folder)
        #expect(await migration.end() == .code(0), "\(migration.errorOutput)")
    }
}

/// Real servers: the store is killed and comes back, and an upstream counts every effect.
@Suite("A gateway whose store goes away, with a second one", .serialized)
struct FallbackServerTests {
    private static func scenes(_ port: Int, pay: String = "fallback") -> String {
        func scene(_ name: String, _ effect: String, _ rule: String) -> String {
            """
              - name: \(name)
                match: { methods: [POST], path: /\(name)/** }
                upstream: payments
                key: { header: Idempotency-Key, required: true }
                scope: none
                lease: 2s
                effect: \(effect)
                onStoreFailure: \(rule)

            """
        }
        return "upstreams: { payments: \"http://127.0.0.1:\(port)\" }\nscenes:\n" + scene("pay", "unknown", pay)
            + scene("refund", "deduplicates", "fallback") + scene("strict", "unknown", "closed")
    }

    private static func configuration(_ port: Int, _ folder: String, pay: String = "fallback") -> String {
        "fallback: \"sqlite:\(folder)/fallback.db\"\n" + scenes(port, pay: pay)
    }

    /// Makes something of every request, and never twice the same. A request with `X-Hang` is kept waiting.
    private static func upstream() async throws -> ServiceDouble {
        let count = Locked(0)
        return try await ServiceDouble { request in
            let number = count.withLock { count in
                count += 1
                return count
            }
            if request.head.field("x-hang") != nil { try? await Task.sleep(for: .seconds(600)) }
            return (201, "{\"effect\":\(number)}")
        }
    }

    private static func effects(_ upstream: ServiceDouble) -> [String: Int] {
        upstream.received.reduce(into: [:]) { $0[$1.head.field("idempotency-key") ?? "", default: 0] += 1 }
    }

    /// Repeats a request as a client does, until it is made.
    private static func paid(_ server: SemelProcess, _ path: String, _ key: String) async throws -> SemelProcess.Answer {
        for _ in 0..<600 {
            let answer = try await server.pay(path, key: key)
            if answer.status == 201 { return answer }
            #expect([503, 409].contains(answer.status), "\(answer)")
            try await Task.sleep(for: .milliseconds(50))
        }
        throw ChildError("\(key) is not paid within 30 s")
    }

    private static func component(_ name: String, _ answer: SemelProcess.Answer) -> JSONValue? {
        answer.json["components"]?.array?.first { $0["name"]?.string == name }
    }

    @Test("goes on, says so, and merges on the store's return: no key runs twice, whichever store decided it", arguments: KillableStore.allCases)
    func goesOn(_ kind: KillableStore) async throws {
        let upstream = try await Self.upstream()
        var store = try await kind.start()
        try await kind.prepare(store)
        try await withTemporaryFolder { folder in
            let text = Self.configuration(upstream.port, folder)
            let server = try await SemelProcess(text, store: kind.url(of: store), in: folder)
            var bodies: [String: String] = [:]
            for number in 0..<5 { bodies["before-\(number)"] = try await Self.paid(server, "/pay/x", "before-\(number)").text }
            #expect(try await server.pay("/pay/x", key: "before-0").headers.first(name: "Semel-Guarantee") == "bestEffort")
            #expect(try await server.pay("/refund/x", key: "refund").headers.first(name: "Semel-Guarantee") == "deduplicatedByTarget")
            let level = kind == .redis ? "bestEffort" : "atMostOnce"
            #expect(try await server.pay("/strict/x", key: "strict").headers.first(name: "Semel-Guarantee") == level)
            let ready = try await server.get("/readyz")
            #expect(ready.status == 200 && Self.component("fallback", ready)?["state"] == "ready", "\(ready)")
            #expect(Self.component("store", ready)?["needed"] == false)
            #expect(try await server.metrics()[#"semel_degraded{component="fallback"}"#] == 0)
            let scenes = try await server.get("/v1/scenes").json["scenes"]?.array ?? []
            #expect(scenes.prefix(3).map { $0["on_store_failure"]?.string } == ["fallback", "fallback", "closed"])
            let reference = try #require(
                try await server.get("/v1/operations?key=before-0").json["operations"]?[0]?["operation"]?.string)

            store.signal(SIGKILL)
            try await store.gone()
            // Before any request has met that, it must not be taken out of service.
            let idle = try await server.get("/readyz")
            #expect(idle.status == 200 && Self.component("fallback", idle)?["state"] == "degraded", "\(idle)")
            // Those that meet it first may have been claimed where the answer was lost: they wait for the store. Some of them take
            // the store's whole patience.
            try await withThrowingTaskGroup(of: Int.self) { group in
                for number in 0..<4 { group.addTask { try await server.pay("/pay/x", key: "first-\(number)").status } }
                for try await status in group { #expect([503, 201].contains(status)) }
            }
            while try await server.metrics()[#"semel_degraded{component="fallback"}"#] == 0 {
                #expect([503, 201].contains(try await server.pay("/pay/x", key: "first-4").status))
            }
            let during = try await withThrowingTaskGroup(of: (String, String).self) { group in
                for number in 0..<24 {
                    group.addTask {
                        let key = "during-\(number % 12)"
                        return (key, try await Self.paid(server, number % 2 == 0 ? "/pay/x" : "/refund/x", key).text)
                    }
                }
                return try await group.reduce(into: [(String, String)]()) { $0.append($1) }
            }
            for (key, body) in during {
                #expect(bodies[key] == nil || bodies[key] == body, "\(key) was answered in two ways")
                bodies[key] = body
            }
            for (key, body) in bodies where key.hasPrefix("during") {
                let path = (Int(key.dropFirst(7)) ?? 0) % 2 == 0 ? "/pay/x" : "/refund/x"
                let again = try await server.pay(path, key: key)
                #expect(again.isReplay && again.text == body)
            }
            // What only the store knows waits for it, and so do scenes that do not fall back.
            for (path, key) in [("/pay/x", "before-1"), ("/refund/x", "refund"), ("/strict/x", "strict"), ("/strict/x", "strict-new")] {
                let refused = try await server.pay(path, key: key)
                #expect(refused.status == 503 && refused.json["code"] == "store-unavailable", "\(refused)")
            }
            let degraded = try await server.get("/readyz")
            #expect(degraded.status == 200, "\(degraded)")
            #expect(Self.component("store", degraded)?["state"] == "down")
            #expect(Self.component("fallback", degraded)?["state"] == "degraded")
            let firsts = Self.effects(upstream).keys.count { $0.contains("first") }
            #expect(Self.component("fallback", degraded)?["detail"]?.string?.contains("\(12 + firsts) keys") == true, "\(degraded)")
            #expect(try await server.metrics()[#"semel_degraded{component="fallback"}"#] == 1)
            try await eventually({ try await server.metrics()[#"semel_degraded{component="store"}"#] == 1 }, "the store is seen to be away")
            let listed = try await server.get("/v1/operations?limit=1000").json
            #expect(listed["degraded"] == true && listed["operations"]?.array?.count == 12 + firsts, "\(listed)")
            #expect(try await server.get("/v1/operations/\(reference)").status == 503, "the store knows it, and is away")
            #expect(try await server.get("/").status == 200)

            // A scene that left the second store now would run its keys again.
            try server.reload(Self.configuration(upstream.port, folder, pay: "closed"))
            try await eventually({ try server.log.contains { $0["reason"]?.string?.contains("scenes leave it: pay") == true } }, "it is refused")
            try server.reload(text)

            store = try await store.restarted()
            try await eventually({ try await server.metrics()[#"semel_degraded{component="fallback"}"#] == 0 }, "it is merged")
            try await eventually({ try await Self.component("fallback", server.get("/readyz"))?["state"] == "ready" }, "it is ready")
            try await eventually({ try await server.metrics()[#"semel_degraded{component="store"}"#] == 0 }, "the store is back")
            for number in 0..<5 { _ = try await Self.paid(server, "/pay/x", "first-\(number)") }
            for (key, body) in bodies {
                let number = key.hasPrefix("during") ? Int(key.dropFirst(7)) ?? 0 : 0
                let again = try await Self.paid(server, number % 2 == 0 ? "/pay/x" : "/refund/x", key)
                #expect(again.isReplay && again.text == body, "\(key)")
            }
            #expect(try await server.pay("/strict/x", key: "strict").isReplay)
            #expect(try await server.get("/v1/operations/\(reference)").status == 200)
            #expect(try await server.get("/v1/operations").json["degraded"] == false)

            // Each of them once; what was refused never.
            let effects = Self.effects(upstream)
            #expect(effects.count == 5 + 2 + 5 + 12 && effects.values.allSatisfy { $0 == 1 }, "\(effects)")
            let log = try server.log
            let starts = log.filter { $0["step"] == "start" && $0["degraded"] == true }
            #expect(starts.count == 12 + firsts, "\(starts.count)")
            for line in starts {
                #expect(line["operation"]?.string?.hasPrefix("op_") == true && line["trace_id"] != nil && line["reason"]?.string?.isEmpty == false)
            }
            let phases = log.filter { $0["step"] == "fallback" }.map { $0["level"]?.string }
            #expect(phases.first == "error" && phases.last == "notice", "\(phases)")
            #expect(await server.end() == 0)

            // Nothing is left in the second store: without it, every repeat is answered from the first.
            let alone = try await SemelProcess(
                Self.scenes(upstream.port, pay: "closed").replacing("onStoreFailure: fallback", with: "onStoreFailure: closed"),
                store: kind.url(of: store), in: folder)
            for (key, body) in bodies where key.hasPrefix("during") {
                let again = try await alone.pay((Int(key.dropFirst(7)) ?? 0) % 2 == 0 ? "/pay/x" : "/refund/x", key: key)
                #expect(again.isReplay && again.text == body, "\(key): \(again)")
            }
            #expect(upstream.received.count == 24)
            #expect(await alone.end() == 0)
        }
        store.stop()
    }

    @Test("is killed while the second store decides: the next process merges what it finds, also what was lost on the way")
    func isKilled() async throws {
        let upstream = try await Self.upstream()
        var store = try await KillableStore.redis.start()
        try await withTemporaryFolder { folder in
            let text = Self.configuration(upstream.port, folder)
            let url = KillableStore.redis.url(of: store)
            let server = try await SemelProcess(text, store: url, in: folder)
            #expect(try await Self.paid(server, "/pay/x", "before").text.contains("effect"))
            store.signal(SIGKILL)
            try await store.gone()
            let done = try await Self.paid(server, "/pay/x", "done").text
            let hanging = Task { try await server.pay("/pay/x", key: "lost", [("X-Hang", "1")]) }
            try await eventually({ Self.effects(upstream)["\"lost\""] == 1 }, "the upstream got the request that hangs")
            #expect(await server.end(SIGKILL) == -SIGKILL)
            _ = await hanging.result

            // A process that begins now knows no key that the store has decided.
            let file = folder + "/semel.yaml"
            let refused = try ChildProcess("semel", ["serve", "--config", file], in: URL(fileURLWithPath: folder))
            #expect(await refused.end() == .code(3))
            #expect(refused.errorOutput.contains("not from one that was not there at the start"), "\(refused.errorOutput)")

            store = try await store.restarted()
            let again = try await SemelProcess(text, store: url, in: folder)
            let replay = try await again.pay("/pay/x", key: "done")
            #expect(replay.isReplay && replay.text == done, "\(replay)")
            try await eventually({ try await again.metrics()[#"semel_degraded{component="fallback"}"#] == 0 }, "it is merged")
            let lost = try await again.pay("/pay/x", key: "lost")
            #expect(lost.status == 409 && lost.json["code"] == "outcome-uncertain", "\(lost)")
            #expect(try await again.pay("/pay/x", key: "before").isReplay)
            #expect(Self.effects(upstream).values.allSatisfy { $0 == 1 })
            #expect(await again.end() == 0)
        }
        store.stop()
    }
}
