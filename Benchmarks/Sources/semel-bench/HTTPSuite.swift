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
    private static let seconds = 4
    private static let connections = 64

    init() throws {
        folder = (ProcessInfo.processInfo.environment["SEMEL_BENCH_FOLDER"] ?? FileManager.default.currentDirectoryPath) + "/.bench-http-\(getpid())"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    }

    consuming func run() async throws -> Report {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try await alone()
        let store = try await SQLiteStore(path: folder + "/http.db")
        try await serve(store) { (port) async throws in
            // Each round measures everything once; the median of the rounds' ratios counts.
            var rounds: [(fresh: Double, replays: Double, sqlite: Double)] = []
            for round in 0..<5 {
                let plain = try await load("plain", port, freshKeys: true, round)
                let fresh = try await load("memory", port, freshKeys: true, round)
                let plainAgain = try await load("plain", port, freshKeys: false, round)
                let replays = try await load("memory", port, freshKeys: false, round)
                let sqlite = try await load("sqlite", port, freshKeys: true, round)
                rounds.append((fresh.rate / plain.rate, replays.rate / plainAgain.rate, sqlite.rate / plain.rate))
                report.note(
                    "requests a second (and the server's processor time for one): without \(plain), memory store \(fresh), without \(plainAgain), replays \(replays), SQLite \(sqlite)")
            }
            report.figure("memory store, fresh keys / without", median(rounds.map(\.fresh)), atLeast: 0.85)
            report.figure("memory store, replays / without", median(rounds.map(\.replays)), atLeast: 0.9)
            report.figure("SQLite, fresh keys / without", median(rounds.map(\.sqlite)), atLeast: 0.4)
        }
        await store.close()
        return report
    }

    /// What the rules themselves cost, in one task and without a server.
    private func alone() async throws {
        let policy = HTTPPolicy(policy: Policy(scene: "alone", effect: .unknown, liveKeys: nil), keyRequired: true)
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

    private mutating func serve(_ store: SQLiteStore, _ body: (Int) async throws -> Void) async throws {
        let router = Router()
        router.post("plain") { _, _ in "made" }
        for (path, operations) in [("memory", Operations(store: MemoryStore())), ("sqlite", Operations(store: store))] {
            let policy = HTTPPolicy(policy: Policy(scene: path, effect: .unknown, liveKeys: nil), keyRequired: true)
            router.group(RouterPath(path)).add(middleware: try IdempotencyMiddleware(policy, operations: operations)).post { _, _ in "made" }
        }
        var logger = Logger(label: "bench")
        logger.logLevel = .critical
        let (ports, port) = AsyncStream<Int>.makeStream()
        let application = Application(
            router: router, configuration: .init(address: .hostname("127.0.0.1", port: 0)),
            onServerRunning: { channel in port.yield(channel.localAddress?.port ?? 0) }, logger: logger)
        let server = Task { try await application.run() }
        defer { server.cancel() }
        for await number in ports {
            try await body(number)
            break
        }
    }

    private struct Load: CustomStringConvertible {
        var rate: Double
        /// In microseconds: what a busy machine does not change.
        var cost: Double
        var description: String { "\(Int(rate)) (\(String(format: "%.1f", cost)) µs)" }
    }

    private func processorSeconds() -> Double {
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        return Double(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + Double(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6
    }

    /// Requests a second, all of them answered with success.
    private func load(_ route: String, _ port: Int, freshKeys: Bool, _ round: Int) async throws -> Load {
        let script = folder + "/requests.lua"
        let key = freshKeys ? "string.format('%08d-5d2c-4e3a-9b1f-%012d', \(round), count)" : "'00000000-5d2c-4e3a-9b1f-000000000000'"
        try """
        count = 0
        request = function()
           count = count + 1
           return 'POST /\(route) HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nIdempotency-Key: "' .. \(key) .. '"\\r\\nContent-Type: application/json\\r\\nContent-Length: 14\\r\\n\\r\\n{"amount":100}'
        end
        """.write(toFile: script, atomically: true, encoding: .utf8)
        let server = "http://127.0.0.1:\(port)"
        // A key that is replayed has run once before: alone, because others would be told that it runs.
        if !freshKeys { _ = try await run("wrk", ["-t1", "-c1", "-d1s", "-s", script, server]) }
        let before = processorSeconds()
        let output = try await run("wrk", ["-t1", "-c\(Self.connections)", "-d\(Self.seconds)s", "-s", script, server])
        guard !output.contains("Non-2xx"), !output.contains("Socket errors"),
            let rate = output.split(separator: "\n").first(where: { $0.hasPrefix("Requests/sec:") }).flatMap({ Double($0.split(separator: " ").last ?? "") })
        else { throw BenchmarkError(description: "the load on /\(route) went wrong: \(output)") }
        return Load(rate: rate, cost: (processorSeconds() - before) / (rate * Double(Self.seconds)) * 1e6)
    }

    private func run(_ program: String, _ arguments: [String]) async throws -> String {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [program] + arguments
        let pipe = Pipe()
        process.standardOutput = pipe
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            process.terminationHandler = { _ in continuation.resume() }
            do { try process.run() } catch { continuation.resume(throwing: error) }
        }
        guard process.terminationStatus == 0 else {
            throw BenchmarkError(description: "\(program) ended with status \(process.terminationStatus); is it installed?")
        }
        return String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    }

    private func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }
}
