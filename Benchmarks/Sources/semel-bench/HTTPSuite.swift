import Foundation
import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import Semel
import SemelHTTP
import SemelHummingbird
import SemelSQLite

/// The middleware on a trivial route against the same route without it, on one server and the same requests: keys that are
/// all new, and one key that is replayed. The load comes from `wrk`, in a process of its own.
struct HTTPSuite {
    private let folder: String
    private var report = Report()
    /// For the store on disk: writes that wait together share one sync, so its rate grows with those who wait.
    static let manyConnections = 512

    init() throws {
        folder = (ProcessInfo.processInfo.environment["SEMEL_BENCH_FOLDER"] ?? FileManager.default.currentDirectoryPath) + "/.bench-http-\(getpid())"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    }

    consuming func run() async throws -> Report {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try await alone()
        let store = try await SQLiteStore(path: folder + "/http.db")
        let folder = folder
        let rounds = try await serve(store) { port in
            let few = LoadGenerator(folder: folder, port: port)
            var many = few
            many.connections = Self.manyConnections
            // Each round measures everything once; the median of the rounds' ratios counts.
            var rounds: [(fresh: Double, replays: Double, sqlite: Double, few: Double)] = []
            var costs: [(fresh: Double, replays: Double, sqlite: Double)] = []
            for round in 0..<LoadGenerator.rounds {
                let plain = try await few.load("plain", .fresh, round: round)
                let fresh = try await few.load("memory", .fresh, round: round)
                let plainAgain = try await few.load("plain", .replayed, round: round)
                let replays = try await few.load("memory", .replayed, round: round)
                let sqlite = try await few.load("sqlite", .fresh, round: 2 * round)
                let plainMany = try await many.load("plain", .fresh, round: round)
                let sqliteMany = try await many.load("sqlite", .fresh, round: 2 * round + 1)
                rounds.append((fresh.rate / plain.rate, replays.rate / plainAgain.rate, sqliteMany.rate / plainMany.rate, sqlite.rate / plain.rate))
                costs.append((fresh.cost - plain.cost, replays.cost - plainAgain.cost, sqlite.cost - plain.cost))
                Report().note(
                    "requests a second (and the server's processor time for one): without \(plain), memory store \(fresh), SQLite \(sqlite); without \(plainAgain), replays \(replays); with \(many.connections) connections without \(plainMany), SQLite \(sqliteMany)")
            }
            Report().note(
                String(
                    format: "processor time that the middleware adds to a request: %.1f µs for a fresh key, %.1f µs for a replay, %.1f µs with SQLite",
                    median(costs.map(\.fresh)), median(costs.map(\.replays)), median(costs.map(\.sqlite))))
            return rounds
        }
        report.figure("memory store, fresh keys / without", median(rounds.map(\.fresh)), atLeast: 0.85)
        report.figure("memory store, replays / without", median(rounds.map(\.replays)), atLeast: 0.9)
        report.figure("SQLite, fresh keys, \(Self.manyConnections) connections / without", median(rounds.map(\.sqlite)), atLeast: 0.4)
        report.note(String(format: "SQLite, fresh keys, 64 connections / without: %.2f", median(rounds.map(\.few))))
        await store.close()
        return report
    }

    /// What the rules themselves cost, in one task and without a server.
    private func alone() async throws {
        let policy = HTTPPolicy(policy: Policy(scene: "alone", effect: .unknown, liveKeys: nil), keyRequired: true, scopeSource: .none)
        let scene = try HTTPScene(policy, operations: Operations(store: MemoryStore()))
        let body = RequestBody(buffer: ByteBuffer(string: #"{"amount":100}"#))
        func cost(_ count: Int, _ key: (Int) -> String) async throws -> Double {
            let before = processorSeconds()
            for number in 0..<count {
                let request = HTTPRequest(
                    method: .post, scheme: "http", authority: "127.0.0.1", path: "/memory",
                    headerFields: [.idempotencyKey: key(number), .contentType: "application/json", .contentLength: "14"])
                let answer = try await scene.respond(to: HTTPExchange(request), body: body) { _ in
                    HTTPAnswer(HTTPResponse(status: .ok, headerFields: [.contentType: "text/plain"]), .bytes(ByteBuffer(string: "made")))
                }
                guard answer.head.status == .ok else { throw BenchmarkError(description: "a request was refused") }
            }
            return (processorSeconds() - before) / Double(count) * 1e6
        }
        let fresh = try await cost(200_000) { "\"00000000-5d2c-4e3a-9b1f-\($0 + 100_000_000_000)\"" }
        let replay = try await cost(200_000) { _ in "\"00000000-5d2c-4e3a-9b1f-100000000000\"" }
        report.note(String(format: "the rules alone: %.1f µs for a fresh key, %.1f µs for a replay", fresh, replay))
    }

    private func serve<Result>(_ store: SQLiteStore, _ body: (Int) async throws -> Result) async throws -> Result {
        let router = Router()
        router.post("plain") { _, _ in "made" }
        for (path, operations) in [("memory", Operations(store: MemoryStore())), ("sqlite", Operations(store: store))] {
            let policy = HTTPPolicy(policy: Policy(scene: path, effect: .unknown, liveKeys: nil), keyRequired: true, scopeSource: .none)
            router.group(RouterPath(path)).add(middleware: try IdempotencyMiddleware(policy, operations: operations)).post { _, _ in "made" }
        }
        var logger = Logger(label: "bench")
        logger.logLevel = .critical
        let (ports, port) = AsyncStream<Int>.makeStream()
        let application = Application(
            router: router, configuration: .init(address: .hostname("127.0.0.1", port: 0), backlog: 1024),
            onServerRunning: { channel in port.yield(channel.localAddress?.port ?? 0) }, logger: logger)
        let server = Task { try await application.run() }
        defer { server.cancel() }
        for await number in ports { return try await body(number) }
        throw BenchmarkError(description: "the server did not start")
    }

    private func processorSeconds() -> Double {
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        return Double(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + Double(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6
    }
}
