import Foundation
import Semel
import Testing

/// The `store-worker` process.
final class Worker: Sendable {
    private struct State {
        var lines: [String] = []
        var rest = ""
        var isOver = false
        var waiting: [(prefix: String, CheckedContinuation<String?, Never>)] = []
    }

    private let process: Locked<Process>
    private let state = Locked(State())
    private let ended: AsyncStream<(Process.TerminationReason, Int32)>

    init(_ arguments: [String], environment: [String: String] = [:]) throws {
        let process = Process()
        process.executableURL = Self.products.appendingPathComponent("store-worker")
        process.arguments = arguments
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        process.standardInput = FileHandle.nullDevice
        let output = Pipe()
        process.standardOutput = output
        let (ended, end) = AsyncStream<(Process.TerminationReason, Int32)>.makeStream()
        self.ended = ended
        try process.run()
        let child = process
        self.process = Locked(child)
        let state = state
        // A thread of its own: reading a pipe blocks.
        Thread.detachNewThread {
            var buffer = [UInt8](repeating: 0, count: 65_536)
            while true {
                let count = buffer.withUnsafeMutableBytes { read(output.fileHandleForReading.fileDescriptor, $0.baseAddress, $0.count) }
                Self.take(buffer[..<max(0, count)], into: state)
                if count <= 0 { break }
            }
            child.waitUntilExit()
            end.yield((child.terminationReason, child.terminationStatus))
            end.finish()
        }
    }

    private static func take(_ bytes: ArraySlice<UInt8>, into state: Locked<State>) {
        let answered: [(CheckedContinuation<String?, Never>, String?)] = state.withLock { state in
            if bytes.isEmpty { state.isOver = true }
            state.rest += String(decoding: bytes, as: UTF8.self)
            var parts = state.rest.components(separatedBy: "\n")
            state.rest = parts.removeLast()
            state.lines += parts
            var answered: [(CheckedContinuation<String?, Never>, String?)] = []
            state.waiting.removeAll { prefix, continuation in
                let line = state.lines.first { $0.hasPrefix(prefix) }
                guard line != nil || state.isOver else { return false }
                answered.append((continuation, line))
                return true
            }
            return answered
        }
        for (continuation, line) in answered { continuation.resume(returning: line) }
    }

    deinit { kill() }

    func kill() { process.withLock { if $0.isRunning { _ = Foundation.kill($0.processIdentifier, SIGKILL) } } }

    /// Waits for a line that begins so; `nil` when the process ended without one. Everything it said is in `lines` then.
    func line(_ prefix: String) async -> String? {
        await withCheckedContinuation { continuation in
            let now: String?? = state.withLock { state in
                if let line = state.lines.first(where: { $0.hasPrefix(prefix) }) { return .some(line) }
                if state.isOver { return .some(nil) }
                state.waiting.append((prefix, continuation))
                return nil
            }
            if case .some(let line) = now { continuation.resume(returning: line) }
        }
    }

    /// Waits for the end: why, and with what status or signal.
    func end() async -> (reason: Process.TerminationReason, status: Int32)? {
        _ = await line("\u{0}")  // No line begins so: this returns when the output has been read to its end.
        for await end in ended { return end }
        return nil
    }

    var lines: [String] { state.withLock { $0.lines } }

    /// Where the package's executables are built, beside the tests.
    private static let products: URL = {
        let tests = ProcessInfo.processInfo.arguments.first { $0.hasSuffix(".xctest") } ?? CommandLine.arguments[0]
        return URL(fileURLWithPath: tests).deletingLastPathComponent()
    }()
}
