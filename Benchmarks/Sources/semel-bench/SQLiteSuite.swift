import CBaseline
import Foundation
import Semel
import SemelSQLite

/// The embedded store against a C program that does the same two writes on the same disk: a claim and its completion, both
/// durable, with `synchronous=FULL`.
struct SQLiteSuite {
    private let folder: String
    private var report = Report()

    init() throws {
        folder = (ProcessInfo.processInfo.environment["SEMEL_BENCH_FOLDER"] ?? FileManager.default.currentDirectoryPath) + "/.bench-sqlite-\(getpid())"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    }

    consuming func run() async throws -> Report {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try await speed()
        try await growth()
        return report
    }

    /// Each round measures everything once, so that a change in the machine's mood meets all of them; the median counts.
    private mutating func speed() async throws {
        var rounds: [(batched: Double, single: Double, lone: Double, at64: Double, at512: Double)] = []
        let store = try await SQLiteStore(path: folder + "/speed.db")
        for round in 0..<5 {
            rounds.append(
                (
                    try baseline(pairs: 51_200, batch: 256, round), try baseline(pairs: 3000, batch: 1, round),
                    try await Load.rate(of: store, callers: 1, pairs: 3000), try await Load.rate(of: store, callers: 64, pairs: 50_000),
                    try await Load.rate(of: store, callers: 512, pairs: 50_000)
                ))
            let last = rounds[round]
            report.note(
                "pairs a second: C in batches of 256 \(Int(last.batched)), C one transaction a write \(Int(last.single)); semel with 1 caller \(Int(last.lone)), 64 callers \(Int(last.at64)), 512 callers \(Int(last.at512))")
        }
        await store.close()
        report.figure("64 callers / C in batches", median(rounds.map { $0.at64 / $0.batched }), atLeast: 0.5, aim: 0.65)
        report.figure("512 callers / C in batches", median(rounds.map { $0.at512 / $0.batched }), atLeast: 0.5, aim: 0.65)
        report.figure("64 callers / C one transaction a write", median(rounds.map { $0.at64 / $0.single }), atLeast: 6, aim: 9)
        report.figure("512 callers / C one transaction a write", median(rounds.map { $0.at512 / $0.single }), atLeast: 6, aim: 9)
        report.figure("a lone caller / C one transaction a write", median(rounds.map { $0.lone / $0.single }), atLeast: 0.75)
    }

    /// What a claim and its completion cost among ten thousand keys and among ten million, and what a key takes on disk.
    private mutating func growth() async throws {
        let millions = ProcessInfo.processInfo.environment["SEMEL_BENCH_KEYS"].flatMap { Int($0) } ?? 10_000_000
        guard millions > 0 else { return report.note("growth is left out") }
        let small = try await SQLiteStore(path: folder + "/small.db")
        try await Load.fill(small, keys: 10_000)
        let large = try await SQLiteStore(path: folder + "/large.db")
        let start = ContinuousClock.now
        try await Load.fill(large, keys: millions)
        report.note("loaded \(millions) keys in \(ContinuousClock.now - start)")

        var ratios: [Double] = []
        for _ in 0..<5 {
            let few = try await Load.rate(of: small, callers: 64, pairs: 20_000)
            let many = try await Load.rate(of: large, callers: 64, pairs: 20_000)
            report.note("pairs a second with 64 callers: \(Int(few)) among few keys, \(Int(many)) among \(millions)")
            ratios.append(few / many)
        }
        report.figure("cost among \(millions) keys / among 10000", median(ratios), atMost: 1.5)
        await small.close()
        await large.close()

        let files = try FileManager.default.contentsOfDirectory(atPath: folder).filter { $0.hasPrefix("large.db") }
        let bytes = try files.reduce(0) { sum, name in
            sum + (try FileManager.default.attributesOfItem(atPath: folder + "/" + name)[.size] as? Int ?? 0)
        }
        report.figure("bytes on disk a completed key", Double(bytes) / Double(millions + 100_000), atMost: 380)
        let opening = ContinuousClock.now
        let reopened = try await SQLiteStore(path: folder + "/large.db")
        report.note("opened again in \(ContinuousClock.now - opening), integrity check included")
        await reopened.close()
    }

    // MARK: Loads

    private func baseline(pairs: Int, batch: Int, _ round: Int) throws -> Double {
        let path = folder + "/baseline-\(batch)-\(round).db"
        defer { for suffix in ["", "-wal", "-shm"] { try? FileManager.default.removeItem(atPath: path + suffix) } }
        let seconds = baseline_claim_and_complete(path, CInt(pairs), CInt(batch))
        guard seconds > 0 else { throw BenchmarkError(description: "the C program failed") }
        return Double(pairs) / seconds
    }
}

struct BenchmarkError: Error, CustomStringConvertible {
    let description: String
}

extension Duration {
    var seconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }
}
