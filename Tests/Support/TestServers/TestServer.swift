import ChildProcesses
public import Foundation
import Semel

/// A real server on loopback, started by one of `scripts/servers` and stopped when this goes, or when the process ends.
public final class TestServer: Sendable {
    /// What the start script said of it: its URL or address.
    public let address: String
    /// The server's process.
    public let process: pid_t
    public let folder: URL
    private let script: String
    private let environment: [String: String]

    /// Starts a server of its own, for tests that do it harm.
    /// - Parameters:
    ///   - script: its name in `scripts/servers`, such as `start-postgres`.
    ///   - environment: what the script reads.
    ///   - disk: where its files go; by default to the temporary directory.
    public convenience init(_ script: String, environment: [String: String] = [:], on disk: URL = FileManager.default.temporaryDirectory) async throws {
        let folder = disk.appendingPathComponent("semel-\(script)-\(UUID().uuidString.prefix(8))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        // The server may be another user's.
        try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: folder.path)
        try await self.init(script, port: 0, folder: folder, environment: environment)
    }

    private init(_ script: String, port: Int, folder: URL, environment: [String: String]) async throws {
        let program = Repository.file("scripts/servers/\(script)")
        let child = try ChildProcess(program: program, [String(port), folder.path], environment: environment, in: folder)
        guard let line = await child.firstLine(beginning: "ready") else {
            throw ChildError("\(script) did not start a server: \(child.errorOutput)")
        }
        let words = line.split(separator: " ").map(String.init)
        guard words.count > 2, let mark = words.firstIndex(of: "pid"), mark + 1 < words.count, let process = pid_t(words[mark + 1]) else {
            throw ChildError("\(script) said \"\(line)\"")
        }
        address = words[2]
        self.process = process
        self.folder = folder
        self.script = script
        self.environment = environment
        Self.running.withLock { $0[folder.path] = process }
    }

    deinit { stop() }

    public var port: Int { URLComponents(string: address.contains("://") ? address : "server://" + address)?.port ?? 0 }

    public var isGone: Bool { kill(process, 0) != 0 }

    /// Starts it again on its port and its files, after it was killed.
    public func restarted() async throws -> TestServer {
        // What the old one left may be in use for a moment more.
        for _ in 0..<10 {
            do {
                return try await TestServer(script, port: port, folder: folder, environment: environment)
            } catch { try await Task.sleep(for: .milliseconds(300)) }
        }
        return try await TestServer(script, port: port, folder: folder, environment: environment)
    }

    /// Sends a signal to the server and to the processes it has started for its connections.
    public func signal(_ number: Int32) {
        let children = (try? String(contentsOfFile: "/proc/\(process)/task/\(process)/children", encoding: .utf8)) ?? ""
        for child in [process] + children.split(separator: " ").compactMap({ pid_t($0) }) { kill(child, number) }
    }

    /// Waits until the process is gone.
    public func gone(within time: Duration = .seconds(120)) async throws {
        let deadline = ContinuousClock.now + time
        while !isGone {
            guard ContinuousClock.now < deadline else { throw ChildError("process \(process) of \(script) does not end") }
            try await Task.sleep(for: .milliseconds(10))
        }
    }

    /// Ends it at once; the files go when the tests do.
    public func stop() {
        let mine = Self.running.withLock { running in
            guard running[folder.path] == process else { return false }
            running[folder.path] = nil
            return true
        }
        guard mine else { return }
        Self.end(process, folder.path)
    }

    // MARK: One for the whole run

    /// The URL in an environment variable, where the run was given a server (`scripts/test` does); else that of a server
    /// started here, once for the process. A server that cannot be had is an error, never a reason to skip.
    public static func url(_ variable: String, script: String) async throws -> String {
        if let url = ProcessInfo.processInfo.environment[variable], !url.isEmpty { return url }
        return try await shared(script).address
    }

    private static func shared(_ script: String) async throws -> TestServer {
        let task = starting.withLock { starting in
            if let task = starting[script] { return task }
            let task = Task { try await TestServer(script) }
            starting[script] = task
            return task
        }
        return try await task.value
    }

    private static let starting = Locked([String: Task<TestServer, any Error>]())
    private static let running: Locked<[String: pid_t]> = {
        atexit { TestServer.endAll() }
        return Locked([:])
    }()

    private static func endAll() {
        for (folder, process) in running.withLock({ $0 }) { end(process, folder) }
    }

    private static func end(_ process: pid_t, _ folder: String) {
        kill(process, SIGCONT)
        kill(process, SIGQUIT)
        for _ in 0..<200 where kill(process, 0) == 0 { usleep(10_000) }
        kill(process, SIGKILL)
        // What it still writes while it goes would keep its folder.
        for _ in 0..<20 {
            do {
                try FileManager.default.removeItem(atPath: folder)
                return
            } catch { usleep(50_000) }
        }
    }
}
