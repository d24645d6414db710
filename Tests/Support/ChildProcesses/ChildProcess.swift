public import Foundation
import Semel

/// A real process under test: started, read from, signalled, waited for.
///
/// Its standard output is kept here; its standard error goes to a file. It starts with no signal blocked. When the last
/// reference goes, it is killed.
public final class ChildProcess: Sendable {
    public enum End: Equatable, Sendable {
        case code(Int32)
        case signal(Int32)
    }

    private struct State {
        var output: [UInt8] = []
        var lines: [String] = []
        /// Where the line begins that has not ended yet.
        var begun = 0
        var hasClosed = false
        var end: End?
        var awaitingLine: [(prefix: String, continuation: CheckedContinuation<String?, Never>)] = []
        var awaitingEnd: [CheckedContinuation<End, Never>] = []
    }

    /// A child that is started between the making of another's pipe and its closing to children would keep that pipe open: as
    /// long as a server lives, the other's output would not end.
    private static let spawning = Locked(())

    public let identifier: pid_t
    /// Where its standard error goes.
    public let errors: URL
    private let state = Locked(State())

    /// Starts one of the package's executables, as built beside the tests.
    ///
    /// - Parameters:
    ///   - environment: added to this process's own, of which nothing named `SEMEL_…` is passed on.
    ///   - folder: its working directory, where the file of its standard error is made too.
    public convenience init(_ name: String, _ arguments: [String], environment: [String: String] = [:], in folder: URL) throws {
        try self.init(program: try Self.products().appendingPathComponent(name), arguments, environment: environment, in: folder)
    }

    /// Starts any program.
    public init(program: URL, _ arguments: [String], environment: [String: String] = [:], in folder: URL) throws {
        let name = program.lastPathComponent
        errors = folder.appendingPathComponent("\(name)-\(UUID().uuidString.prefix(8)).stderr")
        var pipe: [Int32] = [0, 0]
        try Self.spawning.withLock { _ in
            guard Foundation.pipe(&pipe) == 0 else { throw ChildError("no pipe for \(name): \(Self.reason(errno))") }
            for end in pipe { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        }
        defer { close(pipe[1]) }

        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, pipe[1], 1)
        posix_spawn_file_actions_addopen(&actions, 2, errors.path, O_WRONLY | O_CREAT | O_APPEND, 0o644)

        // A child inherits the mask of the thread that starts it, and those of the pools here block most signals.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        sigemptyset(&none)
        var all = sigset_t()
        sigfillset(&all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))

        // What is set for this run or in a developer's shell is no configuration of the program under test.
        let inherited = ProcessInfo.processInfo.environment.filter { !$0.key.hasPrefix("SEMEL_") }
        let variables = inherited.merging(environment) { $1 }
        // `env` becomes the program, in its folder.
        var argv: [UnsafeMutablePointer<CChar>?] = (["env", "-C", folder.path, program.path] + arguments).map { strdup($0) } + [nil]
        var envp: [UnsafeMutablePointer<CChar>?] = variables.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for text in argv + envp { free(text) } }
        var started: pid_t = 0
        let failure = Self.spawning.withLock { _ in posix_spawn(&started, "/usr/bin/env", &actions, &attributes, &argv, &envp) }
        guard failure == 0 else {
            close(pipe[0])
            throw ChildError("cannot start \(program.path): \(Self.reason(failure))")
        }
        let pid = started
        identifier = pid

        // A thread of its own: reading a pipe and waiting for a process block.
        let state = state
        let readEnd = pipe[0]
        Thread.detachNewThread {
            Self.read(readEnd, into: state)
            Self.reap(pid, state)
        }
    }

    deinit { signal(SIGKILL) }

    /// Sends a signal; does nothing once the process has ended.
    public func signal(_ number: Int32) {
        state.withLock { if $0.end == nil { kill(identifier, number) } }
    }

    /// Everything it has written to its standard output so far.
    public var output: String { state.withLock { String(decoding: $0.output, as: UTF8.self) } }

    /// The whole lines of its standard output so far.
    public var lines: [String] { state.withLock { $0.lines } }

    /// Everything it has written to its standard error so far.
    public var errorOutput: String { (try? String(contentsOf: errors, encoding: .utf8)) ?? "" }

    /// The first line of output that begins with `prefix`, waited for; `nil` when the output ended without one.
    public func firstLine(beginning prefix: String) async -> String? {
        await withCheckedContinuation { continuation in
            let known: String?? = state.withLock { state in
                if let line = state.lines.first(where: { $0.hasPrefix(prefix) }) { return .some(line) }
                if state.hasClosed { return .some(nil) }
                state.awaitingLine.append((prefix, continuation))
                return nil
            }
            if case .some(let line) = known { continuation.resume(returning: line) }
        }
    }

    /// The first line of output that begins with `prefix`, waited for.
    public func line(beginning prefix: String) async throws -> String {
        if let line = await firstLine(beginning: prefix) { return line }
        throw ChildError("process \(identifier) ended before it wrote a line beginning \"\(prefix)\"; it wrote \(lines) and \(errorOutput)")
    }

    /// Waits until it has ended and its output has been read.
    @discardableResult
    public func end() async -> End {
        await withCheckedContinuation { continuation in
            let known = state.withLock { state in
                if state.end == nil { state.awaitingEnd.append(continuation) }
                return state.end
            }
            if let known { continuation.resume(returning: known) }
        }
    }

    private static func read(_ descriptor: Int32, into state: Locked<State>) {
        defer { close(descriptor) }
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = buffer.withUnsafeMutableBytes { Foundation.read(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            let answered = state.withLock { state in
                state.output += buffer[..<max(0, count)]
                state.hasClosed = count <= 0
                while let newline = state.output[state.begun...].firstIndex(of: UInt8(ascii: "\n")) {
                    state.lines.append(String(decoding: state.output[state.begun..<newline], as: UTF8.self))
                    state.begun = newline + 1
                }
                var answered: [(CheckedContinuation<String?, Never>, String?)] = []
                state.awaitingLine.removeAll { prefix, continuation in
                    let line = state.lines.first { $0.hasPrefix(prefix) }
                    guard line != nil || state.hasClosed else { return false }
                    answered.append((continuation, line))
                    return true
                }
                return answered
            }
            for (continuation, line) in answered { continuation.resume(returning: line) }
            if count <= 0 { return }
        }
    }

    // The parameters are all it needs: it may outlive the value.
    private static func reap(_ pid: pid_t, _ state: Locked<State>) {
        // First only watched: until it is reaped, under the lock, its number cannot become another process's.
        var info = siginfo_t()
        while waitid(P_PID, id_t(pid), &info, WEXITED | WNOWAIT) != 0, errno == EINTR {}
        let (end, waiting) = state.withLock { state in
            var status: Int32 = 0
            waitpid(pid, &status, 0)
            let end: End = status & 0x7F == 0 ? .code((status >> 8) & 0xFF) : .signal(status & 0x7F)
            state.end = end
            defer { state.awaitingEnd = [] }
            return (end, state.awaitingEnd)
        }
        for continuation in waiting { continuation.resume(returning: end) }
    }

    /// Where the executables of this package were built: beside the test bundle.
    private static func products() throws -> URL {
        let tests = CommandLine.arguments.first { $0.hasSuffix(".xctest") } ?? CommandLine.arguments[0]
        let folder = URL(fileURLWithPath: tests).deletingLastPathComponent()
        guard FileManager.default.isExecutableFile(atPath: folder.appendingPathComponent("semel").path) else {
            throw ChildError("the executables are not built; run `swift build --build-tests` first")
        }
        return folder
    }

    private static func reason(_ number: Int32) -> String { String(cString: strerror(number)) }
}

public struct ChildError: Error, CustomStringConvertible {
    public var description: String

    public init(_ description: String) { self.description = description }
}
