import Foundation
import Semel
import SemelRedis

/// The Redis store against `redis-benchmark`, which sets one key a command from 50 connections, on the same server.
struct RedisSuite {
    private let folder: String
    private let single: Server
    private let synced: Server
    private let cluster: Server
    private var report = Report()
    private static let policy = PinnedPolicy(scene: "bench", text: "bench")

    init() throws {
        folder =
            (ProcessInfo.processInfo.environment["SEMEL_BENCH_FOLDER"] ?? FileManager.default.currentDirectoryPath)
            + "/.bench-redis-\(getpid())"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        single = try Server("start-redis", folder + "/single", [])
        synced = try Server("start-redis", folder + "/synced", ["--appendfsync", "always"])
        cluster = try Server("start-redis-cluster", folder + "/cluster", [])
    }

    consuming func run() async throws -> Report {
        defer {
            for server in [single, synced, cluster] { server.stop() }
            try? FileManager.default.removeItem(atPath: folder)
        }
        try await speed()
        try await memory()
        return report
    }

    /// Each round measures everything once, so that a change in the machine's mood meets all of them; the median counts.
    private mutating func speed() async throws {
        let store = try await RedisStore(url: "redis://127.0.0.1:\(single.port)")
        let durable = try await RedisStore(url: "redis://127.0.0.1:\(synced.port)")
        let three = try await RedisStore(url: "redis+cluster://127.0.0.1:\(cluster.port)")
        var rounds: [(limit: Double, pairs: Double, always: Double, replays: Double, cluster: Double, lone: Double)] = []
        for _ in 0..<5 {
            let limit = try single.setRate(requests: 100_000)
            let pairs = try await rate(of: store, callers: 256, pairs: 60_000)
            let always = try await rate(of: durable, callers: 256, pairs: 60_000)
            let replays = try await replayRate(of: store, callers: 256, replays: 120_000)
            let spread = try await rate(of: three, callers: 256, pairs: 60_000)
            let lone = try await rate(of: store, callers: 1, pairs: 5_000)
            rounds.append((limit, pairs, always, replays, spread, lone))
            report.note(
                "a second: redis-benchmark SET NX PX \(Int(limit)); pairs of claim and complete \(Int(pairs)), appendfsync always \(Int(always)), cluster of 3 \(Int(spread)), a lone caller \(Int(lone)); replays \(Int(replays))"
            )
        }
        report.figure("claim + complete / SET NX PX", median(rounds.map { $0.pairs / $0.limit }), atLeast: 0.5, aim: 0.63)
        report.figure("the same with appendfsync always / without", median(rounds.map { $0.always / $0.pairs }), atLeast: 0.85)
        report.figure("replays / SET NX PX", median(rounds.map { $0.replays / $0.limit }), atLeast: 1.2)
        report.figure("cluster of 3 / one server", median(rounds.map { $0.cluster / $0.pairs }), atLeast: 0.8)
        for store in [store, durable, three] { store.close() }
    }

    /// What a completed key takes of the server's memory: a key of 36 bytes, a scope of 16, an outcome of 200.
    private mutating func memory() async throws {
        try single.command("FLUSHALL")
        let store = try await RedisStore(url: "redis://127.0.0.1:\(single.port)")
        let before = try single.usedMemory()
        let keys = 200_000
        _ = try await rate(of: store, callers: 256, pairs: keys)
        let after = try single.usedMemory()
        let count = keys / 256 * 256
        report.figure("bytes of memory a completed key", Double(after - before) / Double(count), atMost: 420)
        store.close()
    }

    // MARK: Loads

    /// Claims and completes fresh keys one by one from so many tasks. Pairs a second.
    private func rate(of store: RedisStore, callers: Int, pairs: Int) async throws -> Double {
        let start = ContinuousClock.now
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<callers {
                group.addTask {
                    var generator = Generator()
                    for _ in 0..<pairs / callers {
                        let request = Self.request(&generator)
                        guard case .granted(let grant) = try await store.claim(request),
                            try await store.apply(.complete(Self.outcome), to: request.id, token: grant.token) == .applied
                        else { throw BenchmarkError(description: "a fresh key was refused") }
                    }
                }
            }
            try await group.waitForAll()
        }
        return Double(pairs / callers * callers) / (ContinuousClock.now - start).seconds
    }

    /// Repeats of completed operations, each answered with its outcome.
    private func replayRate(of store: RedisStore, callers: Int, replays: Int) async throws -> Double {
        var generator = Generator()
        let requests = (0..<1000).map { _ in Self.request(&generator) }
        let transitions = zip(requests, try await store.claim(requests)).compactMap { request, result in
            if case .granted(let grant) = result {
                Transition(id: request.id, token: grant.token, change: .complete(Self.outcome))
            } else {
                nil
            }
        }
        _ = try await store.apply(transitions)
        let start = ContinuousClock.now
        try await withThrowingTaskGroup(of: Void.self) { group in
            for caller in 0..<callers {
                group.addTask {
                    for number in 0..<replays / callers {
                        guard case .completed = try await store.claim(requests[(caller * 7 + number) % requests.count]) else {
                            throw BenchmarkError(description: "a completed key was not replayed")
                        }
                    }
                }
            }
            try await group.waitForAll()
        }
        return Double(replays / callers * callers) / (ContinuousClock.now - start).seconds
    }

    private static let outcome = Outcome(status: 200, body: .kept(Array(repeating: 0x78, count: 200)))
    private static let scope = Scope("tenant/subject1")
    private static let fingerprint = Fingerprint(of: Array("body".utf8))

    /// A fresh key, the text of a UUID, in a scope of 16 bytes.
    private static func request(_ generator: inout Generator) -> ClaimRequest {
        let digits = Array("0123456789abcdef".utf8)
        var key: [UInt8] = []
        key.reserveCapacity(36)
        for part in [8, 4, 4, 4, 12] {
            if !key.isEmpty { key.append(0x2D) }
            var random = generator.next()
            for _ in 0..<part {
                key.append(digits[Int(random & 15)])
                random >>= 4
            }
        }
        guard let key = try? OperationKey(bytes: key) else { fatalError("36 bytes are a key") }
        return ClaimRequest(
            id: OperationID(scope: scope, key: key), fingerprint: fingerprint, owner: Owner(using: &generator),
            lease: .seconds(30), onLapse: .uncertain, policy: policy)
    }
}

/// A server of the suite's own.
private struct Server {
    let port: Int
    private let folder: String

    init(_ script: String, _ folder: String, _ arguments: [String]) throws {
        self.folder = folder
        let line = try Self.run(([Self.scripts + "/" + script, "0", folder] + arguments).joined(separator: " "))
        guard let address = line.split(separator: " ").first(where: { $0.contains(":") }),
            let port = Int(address.split(separator: ":").last ?? "")
        else {
            throw BenchmarkError(description: "\(script) said \"\(line)\"")
        }
        self.port = port
    }

    func stop() {
        // Whatever it says: the figures are there.
        _ = try? Self.run("\(Self.scripts)/stop \(folder)")
    }

    @discardableResult
    func command(_ words: String) throws -> String { try Self.run("redis-cli -p \(port) \(words)") }

    func usedMemory() throws -> Int {
        guard let line = try command("INFO memory").split(whereSeparator: \.isNewline).first(where: { $0.hasPrefix("used_memory:") }),
            let bytes = Int(line.dropFirst("used_memory:".count))
        else { throw BenchmarkError(description: "the server does not say how much memory it uses") }
        return bytes
    }

    /// `redis-benchmark` with one command under way on each of 50 connections. Commands a second.
    func setRate(requests: Int) throws -> Double {
        let lines = try Self.run(
            "redis-benchmark -p \(port) -P 1 -c 50 -n \(requests) -r 1000000000 --csv SET bench:__rand_int__ 0123456789abcdef NX PX 600000")
        guard let figures = lines.split(separator: "\n").last?.split(separator: ","), figures.count > 1,
            let rate = Double(figures[1].replacingOccurrences(of: "\"", with: ""))
        else { throw BenchmarkError(description: "redis-benchmark said \"\(lines)\"") }
        return rate
    }

    private static let scripts = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("scripts/servers").path

    private static func run(_ command: String) throws -> String { try Command.output(of: "/bin/sh", ["-c", command]) }
}
