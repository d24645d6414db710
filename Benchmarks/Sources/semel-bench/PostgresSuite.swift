import Foundation
import Semel
import SemelPostgres

/// The store on PostgreSQL against `pgbench`'s single-row insert on the same server, in the same run: two cores, fsync on.
///
/// `SEMEL_TEST_POSTGRES` names a server; else one is started by `scripts/servers` and stopped again.
struct PostgresSuite {
    private var report = Report()
    private let url: String
    private let server: URL?
    private let programs: String
    private let folder: URL

    init() throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("semel-bench-\(getpid())")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        if let url = ProcessInfo.processInfo.environment["SEMEL_TEST_POSTGRES"] {
            self.url = url
            server = nil
        } else {
            let place = folder.appendingPathComponent("server")
            let line = try Command.output(of: Self.scripts.appendingPathComponent("start-postgres").path, ["0", place.path])
            guard let address = line.split(separator: " ").first(where: { $0.hasPrefix("postgres://") }) else {
                throw BenchmarkError(description: "no server: \(line)")
            }
            url = String(address)
            server = place
        }
        programs = try Command.output(of: "/bin/sh", ["-c", "ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1"])
    }

    private static let scripts = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("scripts/servers")

    consuming func run() async throws -> Report {
        defer {
            if let server { _ = try? Command.output(of: Self.scripts.appendingPathComponent("stop").path, [server.path]) }
            try? FileManager.default.removeItem(at: folder)
        }
        let mark = UInt32.random(in: 0 ... .max)
        try prepare()
        try await speed(schema: "bench_\(mark)")
        try await transactions(schema: "bench_own_\(mark)")
        try await size(schema: "bench_size_\(mark)")
        try await kept(schema: "bench_kept_\(mark)")
        return report
    }

    // MARK: The limit

    private func prepare() throws {
        _ = try sql("DROP TABLE IF EXISTS bench_one; CREATE TABLE bench_one (id uuid PRIMARY KEY, body bytea NOT NULL)")
        _ = try sql("DROP TABLE IF EXISTS bench_account; CREATE TABLE bench_account (id int PRIMARY KEY, balance bigint NOT NULL); INSERT INTO bench_account SELECT n, 0 FROM generate_series(1, 10000) n")
        // As much as a claim writes.
        try "INSERT INTO bench_one VALUES (gen_random_uuid(), decode(repeat('ab', 150), 'hex'))".write(
            to: folder.appendingPathComponent("insert.sql"), atomically: true, encoding: .utf8)
        try "\\set id random(1, 10000)\nUPDATE bench_account SET balance = balance + 1 WHERE id = :id".write(
            to: folder.appendingPathComponent("update.sql"), atomically: true, encoding: .utf8)
    }

    private func pgbench(_ script: String, clients: Int, seconds: Int) throws -> Double {
        let text = try Command.output(
            of: "\(programs)/pgbench",
            ["-n", "-M", "prepared", "-c", String(clients), "-j", String(min(2, clients)), "-T", String(seconds), "-f", folder.appendingPathComponent(script).path, url])
        guard let line = text.split(separator: "\n").first(where: { $0.hasPrefix("tps") }), let rate = Double(line.split(separator: " ")[2]) else {
            throw BenchmarkError(description: "pgbench said \(text)")
        }
        return rate
    }

    @discardableResult
    private func sql(_ text: String) throws -> String {
        try Command.output(of: "\(programs)/psql", ["-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", url, "-c", text])
    }

    // MARK: Figures

    /// Each round measures everything once, so that a change in the machine's mood meets all of them; the median counts.
    private mutating func speed(schema: String) async throws {
        let store = try await PostgresStore.open("\(url)?schema=\(schema)", migrate: true)
        var rounds: [(eight: Double, one: Double, lone: Double, at64: Double, at512: Double)] = []
        for _ in 0..<5 {
            rounds.append(
                (
                    try pgbench("insert.sql", clients: 8, seconds: 3), try pgbench("insert.sql", clients: 1, seconds: 2),
                    try await Load.rate(of: store, callers: 1, pairs: 2000), try await Load.rate(of: store, callers: 64, pairs: 40_000),
                    try await Load.rate(of: store, callers: 512, pairs: 80_000)
                ))
            let last = rounds.last!
            report.note(
                "a second: pgbench's single-row inserts with 8 clients \(Int(last.eight)), with 1 \(Int(last.one)); semel's pairs of claim and completion with 1 caller \(Int(last.lone)), 64 callers \(Int(last.at64)), 512 callers \(Int(last.at512))")
        }
        await store.close()
        // A pair is two durable writes: operations are counted, and the pairs are shown.
        report.figure("operations of 64 callers / single-row inserts of 8 clients", median(rounds.map { 2 * $0.at64 / $0.eight }), atLeast: 2.5)
        report.figure("operations of 512 callers / single-row inserts of 8 clients", median(rounds.map { 2 * $0.at512 / $0.eight }), atLeast: 2.5, aim: 3.5)
        report.figure("operations of a lone caller / single-row inserts of 1 client", median(rounds.map { 2 * $0.lone / $0.one }), atLeast: 0.75)
        report.note("pairs of 512 callers / single-row inserts of 8 clients: \(String(format: "%.2f", median(rounds.map { $0.at512 / $0.eight })))")
    }

    /// A record with one UPDATE of the caller's, against the UPDATE alone.
    private mutating func transactions(schema: String) async throws {
        var configuration = PostgresStore.Configuration()
        configuration.transactions = 8
        let store = try await PostgresStore.open("\(url)?schema=\(schema)", migrate: true, configuration: configuration)
        let update = "UPDATE bench_account SET balance = balance + 1 WHERE id = $1"
        var rounds: [(alone: Double, closures: Double, eight: Double, many: Double)] = []
        for _ in 0..<5 {
            rounds.append(
                (
                    try pgbench("update.sql", clients: 8, seconds: 3),
                    try await rate(callers: 8, count: 8000) { request, id in
                        try await store.perform(request) { transaction, _ in
                            try transaction.execute(update, .integer(id))
                            return .commit(Load.outcome)
                        }
                    },
                    try await rate(callers: 8, count: 10_000) { request, id in
                        try await store.perform(request, writing: [PostgresStatement(update, .integer(id), rows: 1)], recording: Load.outcome)
                    },
                    try await rate(callers: 64, count: 40_000) { request, id in
                        try await store.perform(request, writing: [PostgresStatement(update, .integer(id), rows: 1)], recording: Load.outcome)
                    }
                ))
            let last = rounds.last!
            report.note(
                "a second: pgbench's UPDATE with 8 clients \(Int(last.alone)); with a record: by a closure, 8 callers \(Int(last.closures)); as a statement, 8 callers \(Int(last.eight)), 64 callers \(Int(last.many))")
        }
        await store.close()
        report.figure("UPDATE with a record, 8 callers / UPDATE alone, 8 clients", median(rounds.map { $0.eight / $0.alone }), atLeast: 0.75)
        report.figure("UPDATE with a record, 64 callers / UPDATE alone, 8 clients", median(rounds.map { $0.many / $0.alone }), atLeast: 2)
        report.note("UPDATE in a closure with a record / UPDATE alone: \(String(format: "%.2f", median(rounds.map { $0.closures / $0.alone })))")
    }

    private func rate(
        callers: Int, count: Int, _ perform: @escaping @Sendable (ClaimRequest, Int64) async throws -> AtomicResult
    ) async throws -> Double {
        let start = ContinuousClock.now
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<callers {
                group.addTask {
                    var generator = Generator()
                    for _ in 0..<count / callers {
                        let id = Int64.random(in: 1...10_000, using: &generator)
                        guard case .performed = try await perform(Load.request(&generator), id) else {
                            throw BenchmarkError(description: "a fresh key was refused")
                        }
                    }
                }
            }
            try await group.waitForAll()
        }
        return Double(count / callers * callers) / (ContinuousClock.now - start).seconds
    }

    /// What a key takes on disk, while autovacuum does its work.
    private mutating func size(schema: String) async throws {
        let keys = ProcessInfo.processInfo.environment["SEMEL_BENCH_KEYS"].flatMap { Int($0) }.map { min($0, 1_000_000) } ?? 400_000
        guard keys > 0 else { return report.note("sizes are left out") }
        let store = try await PostgresStore.open("\(url)?schema=\(schema)", migrate: true)
        func bytes() throws -> Double {
            let text = try sql(
                "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = '\(schema)' AND (c.relname LIKE 'segment\\_%' AND c.relname <> 'segment_map') AND c.relkind = 'r'")
            return Double(text) ?? 0
        }
        // What completing leaves behind is used again; so the growth of a table that has been in use counts.
        let rounds = 20
        for _ in 0..<rounds / 2 {
            try await Load.fill(store, keys: keys / rounds)
            try sql("VACUUM")
        }
        let before = try bytes()
        for _ in 0..<rounds / 2 {
            try await Load.fill(store, keys: keys / rounds)
            try sql("VACUUM")
        }
        let count = Double(sqlCount(schema))
        report.note("bytes a key as the table stands: \(Int(try bytes() / max(count, 1)))")
        report.figure("bytes on disk a further key", (try bytes() - before) / (count / 2), atMost: 433)
        await store.close()
    }

    /// Batched claims of fresh random keys, with many kept against none, and while many expire.
    private mutating func kept(schema: String) async throws {
        let keys = ProcessInfo.processInfo.environment["SEMEL_BENCH_KEYS"].flatMap { Int($0) } ?? 10_000_000
        guard keys > 0 else { return report.note("claims with kept keys are left out") }
        var configuration = PostgresStore.Configuration()
        let full = try await PostgresStore.open("\(url)?schema=\(schema)", migrate: true, configuration: configuration)
        let start = ContinuousClock.now
        try await Load.fill(full, keys: keys)
        report.note("filled with \(keys) keys, \(Int(Double(keys) / (ContinuousClock.now - start).seconds)) a second")
        // Those that expire: small segments, so that several are dropped while it is measured.
        configuration.segmentKeys = max(1000, keys / 100)
        let expiring = try await PostgresStore.open("\(url)?schema=\(schema)_expiring", migrate: true, configuration: configuration)
        let brief = Retention(response: .seconds(1), key: .seconds(1))
        var rounds: [(empty: Double, full: Double, expiring: Double)] = []
        for round in 0..<5 {
            let empty = try await PostgresStore.open("\(url)?schema=\(schema)_empty_\(round)", migrate: true)
            try await Load.fill(expiring, keys: keys / 20, retention: brief)
            try await Task.sleep(for: .seconds(1))
            let count = 100_000
            let (atEmpty, atFull) = (
                try await Load.claims(of: empty, batch: 250, count: count), try await Load.claims(of: full, batch: 250, count: count)
            )
            // The housekeeping goes on as long as the claims do.
            let purge = Task {
                var removed = 0
                while !Task.isCancelled { removed += try await expiring.purge(limit: 10_000).keys }
                return removed
            }
            let atExpiring = try await Load.claims(of: expiring, batch: 250, count: count, retention: brief)
            purge.cancel()
            rounds.append((atEmpty, atFull, atExpiring))
            report.note(
                "batched claims a second: empty \(Int(atEmpty)), with \(keys) keys kept \(Int(atFull)), while \(try await purge.value) keys leave \(Int(atExpiring))")
            await empty.close()
        }
        report.figure("batched claims with \(keys) random keys kept / empty store", median(rounds.map { $0.full / $0.empty }), atLeast: 0.9)
        report.figure("batched claims while keys expire / empty store", median(rounds.map { $0.expiring / $0.empty }), atLeast: 0.9)
        await full.close()
        await expiring.close()
    }

    private func sqlCount(_ schema: String) -> Int { (try? Int(sql("SELECT count(*) FROM \(schema).record")) ?? 0) ?? 0 }
}
