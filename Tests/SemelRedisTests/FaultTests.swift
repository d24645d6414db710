import ChildProcesses
import Foundation
import Semel
@testable import SemelRedis
import SemelTesting
import TestProxy
import Testing

private let quick = RedisStore.Configuration(patience: .milliseconds(800), purgesByItself: false)

private func eventually(within limit: Duration = .seconds(120), _ what: String, _ body: () async throws -> Bool) async throws {
    let end = ContinuousClock.now + limit
    while ContinuousClock.now < end {
        if (try? await body()) == true { return }
        try await Task.sleep(for: .milliseconds(20))
    }
    throw ServerFailure(description: "\(what): not so after \(limit)")
}

private func code(of body: () async throws -> Void) async -> StoreError.Code? {
    do {
        try await body()
        return nil
    } catch let error as StoreError {
        return error.code
    } catch {
        Issue.record("not a StoreError: \(error)")
        return nil
    }
}

@Suite("Redis fails, and nothing is guessed", .serialized)
struct FaultTests {
    @Test("an answer cut off in its midst is indeterminate, and saying the same again finds out (H14, H41)")
    func cutReply() async throws {
        let port = try await SharedRedis.location().endpoints[0].port
        let proxy = try TestProxy(to: port)
        var location = try await SharedRedis.location()
        location.endpoints = [.init(host: "127.0.0.1", port: proxy.port)]
        let store = try await RedisStore(location, configuration: quick)
        for round in 0..<5 {
            // So that what is asked once a connection is not what is cut.
            try await eventually("connected") { try await store.granted(request(key("warm"))).token.owner.low == 1 }
            proxy.cut(afterAnswerBytes: 1)
            let before = proxy.cuts
            let claim = request(key("round \(round)"))
            #expect(await code { _ = try await store.claim(claim) } == .indeterminate)
            #expect(proxy.cuts == before + 1)
            try await eventually("connected again") {
                _ = try await store.record(of: claim.id); return true
            }
            let again = try await store.granted(claim)
            #expect(again.kind == .again)
            try await eventually("connected") { try await store.granted(request(key("warm"))).token.owner.low == 1 }
            // The owner finishes; its answer is lost too, and it says it again (R11).
            proxy.cut(afterAnswerBytes: 1)
            #expect(await code { _ = try await store.apply(.complete(outcome("x")), to: claim.id, token: again.token) } == .indeterminate)
            try await eventually("completed once") {
                try await store.apply(.complete(outcome("x")), to: claim.id, token: again.token) == .applied
            }
        }
    }

    @Test("answers that never arrive are indeterminate after the patience, not failures")
    func droppedReplies() async throws {
        let port = try await SharedRedis.location().endpoints[0].port
        let proxy = try TestProxy(to: port)
        var location = try await SharedRedis.location()
        location.endpoints = [.init(host: "127.0.0.1", port: proxy.port)]
        let store = try await RedisStore(location, configuration: quick)
        _ = try await store.claim(request(key("warm")))
        proxy.mode = .dropAnswers
        let codes = await withTaskGroup(of: StoreError.Code?.self) { group in
            for number in 0..<16 { group.addTask { await code { _ = try await store.claim(request(key("\(number)"))) } } }
            return await group.reduce(into: []) { $0.append($1) }
        }
        #expect(codes.allSatisfy { $0 == .indeterminate })
        #expect(proxy.droppedBytes > 0)
        proxy.mode = .forward
        proxy.cut()
        try await eventually("all are the caller's own claims") {
            for number in 0..<16 where try await store.granted(request(key("\(number)"))).kind != .again { return false }
            return true
        }
    }

    @Test("a server that cannot be reached is unavailable at once, and the store comes back by itself (H13)")
    func unreachable() async throws {
        let port = try await SharedRedis.location().endpoints[0].port
        let proxy = try TestProxy(to: port)
        var location = try await SharedRedis.location()
        location.endpoints = [.init(host: "127.0.0.1", port: proxy.port)]
        let store = try await RedisStore(location, configuration: quick)
        proxy.mode = .refuse
        proxy.cut()
        try await eventually("unavailable") { await code { _ = try await store.claim(request(key("down"))) } == .unavailable }
        let health = await store.health()
        #expect(!health.isReady)
        proxy.mode = .forward
        try await eventually("granted") { if case .granted = try await store.claim(request(key("down"))) { true } else { false } }
        #expect(await store.health().isReady)
    }

    // MARK: Under load

    @Test("killed with -9 under load and started again, three times: nothing acknowledged is lost, nothing runs twice, with appendfsync always (H3, H14)")
    func killed() async throws {
        let server = try await RedisServer(["--appendfsync", "always"])
        let store = try await RedisStore(url: server.url, configuration: quick)
        #expect(store.capabilities.durability == .durable)
        let load = try await FaultTrial(callers: 16).run(store) { load in
            for _ in 0..<3 {
                try await load.untilCompleted(100)
                // Standing still first, it surely owes answers when it dies.
                server.signal(SIGSTOP)
                try await Task.sleep(for: .milliseconds(200))
                try await server.killNow()
                try await load.untilErrors()
                try await server.restart()
            }
        }
        #expect(load.errors[.indeterminate, default: 0] > 0, "the kills met commands under way")
    }

    @Test("stopped with SIGSTOP past the patience under load, and continued (H5)")
    func stopped() async throws {
        let server = try await RedisServer(["--appendfsync", "always"])
        let store = try await RedisStore(url: server.url, configuration: quick)
        try await FaultTrial().run(store) { load in
            for _ in 0..<2 {
                try await load.untilCompleted(100)
                server.signal(SIGSTOP)
                defer { server.signal(SIGCONT) }
                try await load.untilErrors()
            }
        }
    }

    /// A store that reaches the server of the run through a proxy.
    private func throughProxy(_ body: (RedisStore, TestProxy) async throws -> Void) async throws {
        var location = try await SharedRedis.location()
        let proxy = try TestProxy(to: location.endpoints[0].port)
        location.endpoints = [.init(host: "127.0.0.1", port: proxy.port)]
        try await body(try await RedisStore(location, configuration: quick), proxy)
    }

    @Test("connections cut again and again under load, in the middle of answers (H14)")
    func cut() async throws {
        try await throughProxy { store, proxy in
            try await FaultTrial().run(store) { load in try await proxy.cut(rounds: 12) { try await load.untilCompleted(30) } }
            #expect(proxy.cuts >= 12)
        }
    }

    @Test("answers lost under load while what is asked happens: claims and completions are found out, not guessed (H14)")
    func lostAnswers() async throws {
        try await throughProxy { store, proxy in
            try await FaultTrial().run(store) { load in try await proxy.loseAnswers(rounds: 3) { try await load.untilCompleted(60) } }
            #expect(proxy.droppedBytes > 0)
        }
    }

    // MARK: A full disk

    private let underFullDisk = FaultTrial(bodyBytes: 8000, expectedErrors: [.full, .unavailable, .indeterminate])

    @Test("a full disk with appendfsync always ends the server: unavailable, nothing acknowledged is lost, and with space and a start it goes on (H17)")
    func full() async throws {
        try await SmallDisk.with(megabytes: 64) { disk in
            let server = try await RedisServer(["--appendfsync", "always"], on: disk.folder)
            let store = try await RedisStore(url: server.url, configuration: quick)
            #expect(store.capabilities.durability == .durable)
            try await FaultTrial(bodyBytes: 8000).run(store) { load in
                try await load.untilCompleted(50)
                let processes = server.processes
                try disk.fill(leaving: 1 << 20)
                try await RedisServer.gone(processes)
                try await load.untilErrors(20)
                try disk.free()
                try await server.restart()
            }
        }
    }

    @Test("a full disk with appendfsync everysec: claims are refused as full and the store is not ready, and with space it goes on by itself (H17)")
    func fullEverySecond() async throws {
        try await SmallDisk.with(megabytes: 64) { disk in
            let server = try await RedisServer(on: disk.folder)
            let store = try await RedisStore(url: server.url, configuration: quick)
            let load = try await underFullDisk.run(store) { load in
                try await load.untilCompleted(50)
                try disk.fill(leaving: 1 << 20)
                try await load.untilErrors(50, .full)
                try await load.replay()
                let health = await store.health()
                #expect(!health.isReady)
                #expect(health.detail.contains("free space"))
                try disk.free()
            }
            #expect(load.message(.full)?.contains("free space") == true)
            #expect(await store.health().isReady)
        }
    }

    @Test("a server without memory refuses claims as full, and with memory it goes on by itself (H12)")
    func withoutMemory() async throws {
        let server = try await RedisServer(["--appendfsync", "always"])
        let store = try await RedisStore(url: server.url, configuration: quick)
        let load = try await underFullDisk.run(store) { load in
            try await load.untilCompleted(50)
            try await server.command("CONFIG", "SET", "maxmemory", "1")
            try await load.untilErrors(50, .full)
            try await load.replay()
            try await server.command("CONFIG", "SET", "maxmemory", "0")
        }
        #expect(load.message(.full)?.contains("raise maxmemory") == true)
    }

    @Test("what a script's command was refused with is understood as Redis 6 wraps it too")
    func wrappedRefusal() {
        let wrapped = "ERR Error running script (call to f_1b): @user_script:1: @user_script: 1: -"
        #expect(StoreError.refusal(wrapped + "MISCONF Errors writing to the AOF file: No space left on device", by: "here").code == .full)
        #expect(StoreError.refusal(wrapped + "READONLY You can't write against a read only replica.", by: "here").code == .readOnly)
        #expect(StoreError.refusal("ERR Error running script (call to f_1b): @user_script:1: no such thing", by: "here").code == .refused)
    }

    // MARK: Single calls

    @Test("a server that stands still makes calls indeterminate, and goes on where it was (SIGSTOP, H5)")
    func paused() async throws {
        let server = try await RedisServer()
        let store = try await RedisStore(url: server.url, configuration: quick)
        let grant = try await store.granted(request(key("a")))
        server.signal(SIGSTOP)
        let start = ContinuousClock.now
        #expect(await code { _ = try await store.apply(.complete(outcome("x")), to: key("a"), token: grant.token) } == .indeterminate)
        #expect(ContinuousClock.now - start < .seconds(10))
        // Nobody new gets in, and nobody waits for ever.
        #expect(await code { _ = try await store.claim(request(key("b"))) } != nil)
        server.signal(SIGCONT)
        try await eventually("completed") { try await store.apply(.complete(outcome("x")), to: key("a"), token: grant.token) == .applied }
        let replay = try await store.claim(request(key("a"), 2))
        guard case .completed(let record) = replay else { throw NotGranted(result: replay) }
        #expect(record.outcome == outcome("x"))
    }

    @Test("scripts that a server has lost are sent again, and nothing runs twice")
    func flushedScripts() async throws {
        let server = try await RedisServer()
        let store = try await RedisStore(url: server.url, configuration: quick)
        for round in 0..<5 {
            try await server.command("SCRIPT", "FLUSH")
            let grant = try await store.granted(request(key("\(round)")))
            #expect(grant.kind == .first)
            try await server.command("SCRIPT", "FLUSH")
            #expect(try await store.apply(.complete(outcome("x")), to: key("\(round)"), token: grant.token) == .applied)
        }
        let results = try await store.claim((0..<20).map { request(key("batch \($0)")) })
        #expect(results.count { if case .granted = $0 { true } else { false } } == 20)
    }

    @Test("a waiter elsewhere is woken by the channel, long before it would look by itself")
    func wakes() async throws {
        let location = try await SharedRedis.location()
        let holder = try await RedisStore(location, configuration: quick)
        let waiter = try await RedisStore(location, configuration: quick)
        var waits: [Duration] = []
        for round in 0..<10 {
            let id = key("\(round)")
            let grant = try await holder.granted(request(id))
            let observation = waiter.observe(id)
            let met = try await waiter.claim(request(id, 2))
            guard case .inProgress = met else { throw NotGranted(result: met) }
            async let woken: Void = observation.signalled()
            let start = ContinuousClock.now
            _ = try await holder.apply(.complete(outcome("x")), to: id, token: grant.token)
            await woken
            waits.append(ContinuousClock.now - start)
        }
        // The look by itself comes once a second: half of ten waits would be longer than this.
        #expect(waits.sorted()[5] < .milliseconds(250), "\(waits)")
    }
}

@Suite("A cluster changes, and nothing is lost or doubled", .serialized)
struct ClusterFaultTests {
    @Test("slots that move under load grant each key once, and keep every outcome (H59)", .timeLimit(.minutes(5)))
    func reshard() async throws {
        let server = try await RedisServer(cluster: true)
        let location = try RedisLocation("redis+cluster://127.0.0.1:\(server.port)")
        let stores = [
            try await RedisStore(location, configuration: .init(purgesByItself: false)),
            try await RedisStore(location, configuration: .init(purgesByItself: false)),
        ]
        let ledger = Locked((granted: [OperationID: Int](), completed: Set<OperationID>(), stop: false))
        let moved = Locked(0)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for worker in 0..<16 {
                group.addTask {
                    var random = Seeded(UInt64(worker))
                    while !ledger.withLock({ $0.stop }) {
                        // Few keys, so that several workers want the same.
                        let id = key("k\(UInt32.random(in: 0..<20_000, using: &random))")
                        let store = stores[worker % 2]
                        do throws(StoreError) {
                            guard case .granted(let grant) = try await store.claim(request(id, random.next(), lease: .seconds(600))) else {
                                continue
                            }
                            ledger.withLock { $0.granted[id, default: 0] += 1 }
                            if try await store.apply(.complete(outcome(id.key.text)), to: id, token: grant.token) == .applied {
                                ledger.withLock { _ = $0.completed.insert(id) }
                            }
                        } catch {
                            // What the slot's move deferred too long did not happen; anything else is a failure of this test.
                            if error.code != .unavailable { Issue.record("\(error.code): \(error)") }
                        }
                    }
                }
            }
            group.addTask {
                defer { ledger.withLock { $0.stop = true } }
                for target in [1, 2, 0] {
                    let nodes = try await server.command("CLUSTER", "NODES")
                    let ids = nodes.split(separator: "\n").sorted { $0.split(separator: " ")[1] < $1.split(separator: " ")[1] }.map {
                        String($0.split(separator: " ")[0])
                    }
                    _ = try await server.command(
                        "--cluster", "reshard", "127.0.0.1:\(server.port)", "--cluster-from", ids[(target + 2) % 3], "--cluster-to",
                        ids[target],
                        "--cluster-slots", "400", "--cluster-yes")
                    moved.withLock { $0 += 400 }
                }
            }
            try await group.waitForAll()
        }
        let (granted, completed, _) = ledger.withLock { $0 }
        #expect(moved.withLock { $0 } == 1200)
        #expect(completed.count > 300)
        #expect(granted.values.allSatisfy { $0 == 1 }, "granted more than once: \(granted.filter { $0.value > 1 }.count)")
        for id in completed {
            let record = try await stores[0].record(of: id)
            #expect(record?.outcome == outcome(id.key.text))
        }
        // The index moved with the records.
        let live = try await stores[1].operations(OperationQuery(states: [.claimed, .uncertain], limit: 10_000))
        #expect(live.operations.allSatisfy { !completed.contains($0.id) })
    }

    @Test("a master that dies takes only its own slots along, and comes back with what it acknowledged")
    func masterDies() async throws {
        let server = try await RedisServer(cluster: true)
        try await server.command("CONFIG", "SET", "cluster-require-full-coverage", "no")
        for node in 1...2 { _ = try await RedisServer.redisCLI(server.port + node, "CONFIG", "SET", "cluster-require-full-coverage", "no") }
        let store = try await RedisStore(
            try RedisLocation("redis+cluster://127.0.0.1:\(server.port),127.0.0.1:\(server.port + 2)"), configuration: quick)
        let ids = (0..<60).map { key("\($0)") }
        var tokens: [OperationID: FencingToken] = [:]
        for id in ids { tokens[id] = try await store.granted(request(id, lease: .seconds(600))).token }
        let victim = server.processes[1]
        kill(victim, SIGSTOP)
        var answered = 0
        var failed = 0
        for id in ids.prefix(30) {
            switch await code(of: { _ = try await store.record(of: id) }) {
            case nil: answered += 1
            case .unavailable, .indeterminate: failed += 1
            case let code: Issue.record("\(code?.description ?? "")")
            }
            if failed >= 3, answered >= 3 { break }
        }
        #expect(answered >= 3 && failed >= 1, "\(answered) answered, \(failed) failed")
        kill(victim, SIGCONT)
        try await eventually("all complete") {
            for id in ids where try await store.apply(.complete(outcome("x")), to: id, token: tokens[id]!) != .applied { return false }
            return true
        }
    }
}
