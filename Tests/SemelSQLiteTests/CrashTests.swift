import ChildProcesses
import Foundation
import Semel
@testable import SemelSQLite
import SemelTesting
import Testing

@Suite("The embedded store through crashes")
struct CrashTests {
    let folder = TemporaryFolder()

    @Test("a second process is refused while the first one runs, and let in after it was killed")
    func secondProcess() async throws {
        let holder = try worker(folder, "hold")
        _ = try await holder.line(beginning: "open")
        let second = try worker(folder, "hold")
        let refusal = try await second.line(beginning: "refused")
        #expect(refusal.contains(folder.database))
        #expect(refusal.contains("in another process"))
        holder.signal(SIGKILL)
        await holder.end()
        let third = try worker(folder, "hold")
        _ = try await third.line(beginning: "open")
        third.signal(SIGKILL)
        await third.end()
    }

    @Test(
        "killed before or after a commit, nothing acknowledged is lost and nothing is half done",
        arguments: ["beforeCommit", "afterCommit"], [1, 3, 40])
    func killed(at failpoint: String, passing: Int) async throws {
        for callers in [1, 64] {
            let folder = TemporaryFolder()
            let log = folder.path + "/fired"
            let worker = try self.worker(
                folder, "work", "\(callers)",
                environment: ["SEMEL_FAILPOINTS": "\(failpoint)=kill@\(passing)", "SEMEL_FAILPOINT_LOG": log])
            #expect(await worker.end() == .signal(SIGKILL))
            #expect(try String(contentsOfFile: log, encoding: .utf8) == failpoint + "\n")
            let found = try await check(folder, worker.lines)
            // The batch under way when the process died: before its commit it left nothing, after it, all of it.
            // The answers to the batch before it may still be on their way, so each caller may miss one.
            if failpoint == "afterCommit" { #expect(found.unacknowledged > 0) }
            #expect(found.unacknowledged <= (failpoint == "beforeCommit" && callers == 1 ? 0 : callers))
        }
    }

    @Test("killed at any moment under load, nothing acknowledged is lost")
    func killedAnywhere() async throws {
        var acknowledged = 0
        for round in 1...5 {
            let folder = TemporaryFolder()
            let worker = try self.worker(folder, "work", "64")
            _ = try await worker.line(beginning: "completed \(round * 300)")
            worker.signal(SIGKILL)
            await worker.end()
            acknowledged += worker.lines.count
            _ = try await check(folder, worker.lines)
        }
        #expect(acknowledged > 1000)
    }

    private func worker(_ folder: TemporaryFolder, _ arguments: String..., environment: [String: String] = [:]) throws -> ChildProcess {
        try ChildProcess("store-worker", [folder.database] + arguments, environment: environment, in: URL(fileURLWithPath: folder.path))
    }

    /// Opens what a killed worker left, and compares it with what the worker was told.
    /// - Returns: how many changes are in the store that the worker was not told of.
    private func check(_ folder: TemporaryFolder, _ lines: [String]) async throws -> (unacknowledged: Int, Void) {
        var claimed: [Int: UInt64] = [:]
        var completed: Set<Int> = []
        for line in lines {
            let words = line.split(separator: " ")
            if words[0] == "claimed" { claimed[Int(words[1])!] = UInt64(words[2])! }
            if words[0] == "completed" { completed.insert(Int(words[1])!) }
        }
        let store = try await SQLiteStore(path: folder.database)
        var unacknowledged = 0
        let highest = (claimed.keys.max() ?? 0) + 70
        for number in 0...highest {
            let id = key("key-\(number)", scope: "worker")
            let record = try await store.record(of: id)
            if let epoch = claimed[number] { #expect(record?.epoch.rawValue == epoch, "the claim of key-\(number) is lost") }
            switch record?.state {
            case .completed:
                #expect(record?.outcome?.body == .kept(Array("outcome \(number)".utf8)))
                if !completed.contains(number) { unacknowledged += 1 }
            case nil, .uncertain:
                #expect(!completed.contains(number), "the outcome of key-\(number) is lost")
                if record != nil, claimed[number] == nil { unacknowledged += 1 }
            case let state: Issue.record("key-\(number) is \(String(describing: state)) after a restart")
            }
        }
        // Epochs go on above all that were given.
        let next = try await store.granted(request(key("next"))).token.epoch.rawValue
        #expect(claimed.values.allSatisfy { $0 < next })
        await store.close()
        return (unacknowledged, ())
    }

    @Test("killed while a segment is being sealed, every key is found")
    func killedWhileSealing() async throws {
        var configuration = SQLiteStore.Configuration()
        configuration.keysPerSegment = 512
        configuration.recovery = .acceptRestored
        let store = try await SQLiteStore(path: folder.database, configuration: configuration)
        for number in 0..<700 { try await store.finish(key("key-\(number)")) }
        // A copy of the files as they are, taken in the middle, is what a power cut leaves.
        let copy = TemporaryFolder()
        for suffix in ["", "-wal"] { try FileManager.default.copyItem(atPath: folder.database + suffix, toPath: copy.database + suffix) }
        await store.close()
        #expect(try RawDatabase(path: copy.database).integer("SELECT count(*) FROM semel_piece") ?? 0 > 0)
        let again = try await SQLiteStore(path: copy.database, configuration: configuration)
        for number in 0..<700 {
            guard case .completed = try await again.claim(request(key("key-\(number)"), 5)) else {
                Issue.record("key-\(number) is forgotten")
                return
            }
        }
        await again.close()
    }
}
