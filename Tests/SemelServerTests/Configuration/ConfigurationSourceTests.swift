import Foundation
import Logging
import SemelCore
import SemelHTTP
import ServiceLifecycle
import Testing

@testable import SemelServer

@Suite("Reading the configuration again")
struct ConfigurationSourceTests {
    /// A configuration file of its own, and the source that watches it.
    private final class Bench: Sendable {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("semel-\(UUID().uuidString).yaml").path
        let log = LogCapture()
        let source: ConfigurationSource

        init(_ text: String, interval: Duration = .milliseconds(5)) throws {
            try text.write(toFile: path, atomically: true, encoding: .utf8)
            let initial = try #require(ConfigurationReader.read(file: path, environment: [:]).configuration)
            source = ConfigurationSource(file: path, environment: [:], initial: initial, logger: log.logger, interval: interval)
        }

        deinit { try? FileManager.default.removeItem(atPath: path) }

        func write(_ text: String) throws { try text.write(toFile: path, atomically: true, encoding: .utf8) }

        /// Each configuration that is handed on.
        func changes() -> AsyncStream<ServerConfiguration> {
            let (stream, continuation) = AsyncStream<ServerConfiguration>.makeStream()
            source.subscribe { continuation.yield($0) }
            return stream
        }
    }

    @Test("a changed file is noticed and handed on")
    func changed() async throws {
        let bench = try Bench(configuration(scene: "effect: unknown", "lease: 30s"))
        var changes = bench.changes().makeAsyncIterator()
        let running = Task { try await bench.source.run() }
        try bench.write(configuration(scene: "effect: unknown", "lease: 31s"))
        let new = try #require(await changes.next())
        #expect(new.scenes[0].http.policy.lease == .seconds(31))
        #expect(bench.source.current == new)
        running.cancel()
        try await running.value
    }

    @Test("an invalid file changes nothing, and every mistake is logged with its line; the next valid one is taken")
    func invalid() async throws {
        let bench = try Bench(configuration(scene: "effect: unknown", "lease: 30s"))
        let before = bench.source.current
        try bench.write(configuration(scene: "effect: unknown", "lease: 3600", "colour: red"))
        await bench.source.reload()
        #expect(bench.source.current == before)
        let mistakes = bench.log.lines.filter { $0.contains(#""level":"error""#) }
        #expect(mistakes.count == 2)
        #expect(mistakes[0].contains(":11:12\"") && mistakes[0].contains("unit is missing") && mistakes[0].contains("3600s"))
        #expect(mistakes[1].contains(":12:5\"") && mistakes[1].contains("no such key"))

        try bench.write(configuration(scene: "effect: unknown", "lease: 32s"))
        await bench.source.reloadIfChanged()
        await bench.source.reloadIfChanged()
        #expect(bench.source.current.scenes[0].http.policy.lease == .seconds(32))
    }

    @Test("a file that disappears changes nothing")
    func gone() async throws {
        let bench = try Bench("drain: 5s\n")
        let before = bench.source.current
        try FileManager.default.removeItem(atPath: bench.path)
        await bench.source.reloadIfChanged()
        await bench.source.reload()
        #expect(bench.source.current == before)
    }

    @Test("addresses and the store's place keep their values until a restart, which is said; the rest is taken")
    func fixedParts() async throws {
        let bench = try Bench("listen: 127.0.0.1:1\nstore: sqlite:a.db\ndrain: 5s\n")
        try bench.write("listen: 127.0.0.1:2\nstore: sqlite:b.db\ndrain: 6s\n")
        await bench.source.reload()
        #expect(bench.source.current.listen.port == 1)
        #expect(bench.source.current.store == .sqlite(path: "a.db"))
        #expect(bench.source.current.drain == .seconds(6))
        #expect(bench.log.lines.contains { $0.contains("listen, store") })
    }

    @Test("a configuration whose levels rest on another kind of store is not used: the open one could not keep them")
    func otherStore() async throws {
        let bench = try Bench("store: memory\ndrain: 5s\n")
        let before = bench.source.current
        try bench.write(configuration(scene: "effect: unknown", "guarantee: atMostOnce"))
        await bench.source.reload()
        #expect(bench.source.current == before)
        #expect(bench.log.lines.contains { $0.contains("rest on another store") })
    }

    @Test("a second store is changed by a restart, which is said; scenes cannot fall back to one that is not open")
    func fallback() async throws {
        let falling = configuration(scene: "effect: deduplicates", "onStoreFailure: fallback")
        let bench = try Bench("fallback: sqlite:a.db\n" + falling)
        try bench.write("fallback: sqlite:b.db\ndrain: 6s\n" + falling)
        await bench.source.reload()
        #expect(bench.source.current.fallback == .sqlite(path: "a.db") && bench.source.current.drain == .seconds(6))
        #expect(bench.log.lines.contains { $0.contains("after a restart only") && $0.contains("fallback") })
        try bench.write(configuration(scene: "effect: deduplicates"))
        await bench.source.reload()
        #expect(bench.source.current.fallback == .sqlite(path: "a.db") && bench.source.current.fallbackScenes.isEmpty)

        let without = try Bench(configuration(scene: "effect: deduplicates"))
        let before = without.source.current
        try without.write("fallback: sqlite:a.db\n" + falling)
        await without.source.reload()
        #expect(without.source.current == before)
        #expect(without.log.lines.contains { $0.contains("rest on another store") && $0.contains("fallback: sqlite:a.db") })
    }

    @Test("what somebody objects to is not used, and the reason is logged")
    func objections() async throws {
        let bench = try Bench("drain: 5s\n")
        bench.source.refuse { old, new in new.drain < old.drain ? "it is too soon" : nil }
        try bench.write("drain: 4s\n")
        await bench.source.reload()
        #expect(bench.source.current.drain == .seconds(5) && bench.log.lines.contains { $0.contains("it is too soon") })
        try bench.write("drain: 6s\n")
        await bench.source.reload()
        #expect(bench.source.current.drain == .seconds(6))
    }

    @Test("a file that was only touched is handed on to nobody")
    func touched() async throws {
        let bench = try Bench("drain: 5s\n")
        var changes = bench.changes().makeAsyncIterator()
        try bench.write("drain: 5s\n")
        await bench.source.reloadIfChanged()
        try bench.write("drain: 6s\n")
        await bench.source.reloadIfChanged()
        await bench.source.reloadIfChanged()
        #expect(await changes.next()?.drain == .seconds(6))
    }

    @Test("a file that is still being written is not read: it must hold the same at two looks")
    func halfWritten() async throws {
        let bench = try Bench("drain: 5s\n")
        for seconds in 6...9 {
            try bench.write("drain: \(seconds)s\n")
            await bench.source.reloadIfChanged()
            #expect(bench.source.current.drain == .seconds(5))
        }
        await bench.source.reloadIfChanged()
        #expect(bench.source.current.drain == .seconds(9))
    }

    @Test("a part of the file that would take a scene's protection away is not used, until somebody says that it is meant")
    func protectionStays() async throws {
        let whole = configuration(scene: "effect: unknown", "lease: 30s")
        let bench = try Bench(whole)
        let before = bench.source.current
        let beginning = String(whole[..<whole.range(of: "scenes:")!.lowerBound])
        for text in [beginning, "", whole + "    mode: observe\n"] {
            try bench.write(text)
            for _ in 1...3 { await bench.source.reloadIfChanged() }
            #expect(bench.source.current == before, "\(text)")
        }
        #expect(bench.log.lines.contains { $0.contains("takes the protection of scenes away") && $0.contains("payment.capture") })
        try bench.write(beginning)
        await bench.source.reload()
        #expect(bench.source.current.scenes.isEmpty)
        #expect(bench.log.lines.contains { $0.contains("Scenes are no longer protected") })
    }

    @Test("SIGHUP reads the file again, though its time did not change")
    func hangup() async throws {
        // Looked at so rarely that only the signal can be why.
        let bench = try Bench("drain: 5s\n", interval: .seconds(3600))
        var changes = bench.changes().makeAsyncIterator()
        // The first signals may come before the handler stands: SIGHUP is ignored by this process until then. Said before the
        // handler is set, which it would undo.
        signal(SIGHUP, SIG_IGN)
        let running = Task { try await bench.source.run() }
        try bench.write("drain: 6s\n")
        let sending = Task {
            while !Task.isCancelled {
                kill(getpid(), SIGHUP)
                try await Task.sleep(for: .milliseconds(5))
            }
        }
        #expect(await changes.next()?.drain == .seconds(6))
        sending.cancel()
        running.cancel()
        try await running.value
    }
}
