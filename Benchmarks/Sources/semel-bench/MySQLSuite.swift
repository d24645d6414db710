import CMySQLBaseline
import Foundation
import Semel
import SemelMySQL

/// The store in MariaDB against MariaDB's own single-row INSERT IGNORE from 8 connections, with everything synced: the
/// engine's log at each commit, and the binary log too.
struct MySQLSuite {
    private let url: URLComponents
    private let folder: String?
    private let database = "semel_bench_\(getpid())"
    private var report = Report()
    private static let policy = PinnedPolicy(scene: "bench", text: "bench")

    /// Takes the server that `SEMEL_TEST_MYSQL` names (`mysql://root@127.0.0.1:3306`), or starts one.
    init() throws {
        if let text = ProcessInfo.processInfo.environment["SEMEL_TEST_MYSQL"], let url = URLComponents(string: text) {
            self.url = url
            folder = nil
            return
        }
        let folder = (ProcessInfo.processInfo.environment["SEMEL_BENCH_FOLDER"] ?? FileManager.default.currentDirectoryPath) + "/.bench-mysql-\(getpid())"
        let words = try Self.script("start-mariadb", ["0", folder]).split(whereSeparator: \.isWhitespace)
        guard let text = words.first(where: { $0.hasPrefix("mysql://") }), let url = URLComponents(string: String(text)) else {
            throw BenchmarkError(description: "the server did not start: \(words.joined(separator: " "))")
        }
        self.url = url
        self.folder = folder
    }

    private static func script(_ name: String, _ arguments: [String]) throws -> String {
        let root = (0..<4).reduce(URL(fileURLWithPath: #filePath)) { url, _ in url.deletingLastPathComponent() }
        return try Command.output(of: root.appendingPathComponent("scripts/servers/\(name)").path, arguments)
    }

    consuming func run() async throws -> Report {
        defer {
            if let folder {
                _ = try? Self.script("stop", [folder])
                try? FileManager.default.removeItem(atPath: folder)
            }
        }
        try Self.statement("CREATE DATABASE \(database)", url)
        defer { if folder == nil { try? Self.statement("DROP DATABASE \(database)", url) } }
        try await speed()
        return report
    }

    private static func statement(_ sql: String, _ url: URLComponents) throws {
        try Command.output(of: "mariadb", ["--no-defaults", "-h", url.host ?? "", "-P", "\(url.port ?? 3306)", "-u", url.user ?? "root", "-e", sql])
    }

    /// Each round measures everything once, so that a change in the machine's mood meets all of them; the median counts.
    private mutating func speed() async throws {
        var rounds: [(single: Double, lone: Double, at64: Double, at512: Double)] = []
        let store = try await MySQLStore(url: "\(url.string ?? "")/\(database)")
        if case .forgetful(let why) = store.capabilities.durability { throw BenchmarkError(description: "the server is not durable: \(why)") }
        for _ in 0..<5 {
            rounds.append(
                (
                    try baseline(rows: 40_000), try await rate(of: store, callers: 1, pairs: 1000),
                    try await rate(of: store, callers: 64, pairs: 40_000), try await rate(of: store, callers: 512, pairs: 40_000)
                ))
            let last = rounds[rounds.count - 1]
            report.note(
                "a second: single-row INSERT IGNORE from 8 connections \(Int(last.single)) rows; semel with 1 caller \(Int(last.lone)), 64 callers \(Int(last.at64)), 512 callers \(Int(last.at512)) pairs of claim and completion")
        }
        await store.close()
        report.figure("64 callers / single-row INSERT IGNORE c8", median(rounds.map { $0.at64 / $0.single }), atLeast: 1.5)
        report.figure("512 callers / single-row INSERT IGNORE c8", median(rounds.map { $0.at512 / $0.single }), atLeast: 1.5)
    }

    private func baseline(rows: Int) throws -> Double {
        let seconds = baseline_insert_ignore(url.host ?? "127.0.0.1", CInt(url.port ?? 3306), database, 8, CInt(rows))
        guard seconds > 0 else { throw BenchmarkError(description: "the baseline failed") }
        return Double(rows) / seconds
    }

    /// Claims and completes fresh keys one by one from so many tasks. Pairs a second.
    private func rate(of store: MySQLStore, callers: Int, pairs: Int) async throws -> Double {
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

    private static let outcome = Outcome(status: 200, body: .kept(Array(repeating: 0x78, count: 200)))
    private static let scope = Scope("tenant/subject1")
    private static let fingerprint = Fingerprint(of: Array("body".utf8))

    /// A fresh key of 36 bytes in a scope of 16, under the limit of live keys that policies have.
    private static func request(_ generator: inout Generator) -> ClaimRequest {
        var key = [UInt8](repeating: 0x30, count: 36)
        key.withUnsafeMutableBytes { bytes in
            bytes.storeBytes(of: generator.next(), as: UInt64.self)
            bytes.storeBytes(of: generator.next(), toByteOffset: 8, as: UInt64.self)
        }
        guard let key = try? OperationKey(bytes: key) else { fatalError("36 bytes are a key") }
        return ClaimRequest(
            id: OperationID(scope: scope, key: key), fingerprint: fingerprint, owner: Owner(using: &generator),
            lease: .seconds(30), onLapse: .uncertain, policy: policy, liveLimit: 1_000_000)
    }
}
