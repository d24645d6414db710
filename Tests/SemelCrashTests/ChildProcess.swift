import Foundation
import Semel

/// A real process under test: started, waited for, killed.
final class ChildProcess: Sendable {
    struct Ended: Equatable {
        var signal: Int32?
        var code: Int32?
    }

    let name: String
    private let process: Locked<Process>
    private let ended: AsyncStream<Ended>
    private let lines: Locked<[String]>
    private let lineSignal: AsyncStream<Void>

    /// Starts one of the package's executables, as built beside the tests.
    init(_ name: String, _ arguments: [String], environment: [String: String] = [:], in folder: URL) throws {
        self.name = name
        let process = Process()
        process.executableURL = try Self.productsFolder().appendingPathComponent(name)
        process.arguments = arguments
        process.currentDirectoryURL = folder
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        let output = Pipe()
        process.standardOutput = output
        let errors = folder.appendingPathComponent("\(name)-\(UUID().uuidString.prefix(6)).stderr")
        _ = FileManager.default.createFile(atPath: errors.path, contents: nil)
        process.standardError = try FileHandle(forWritingTo: errors)
        process.standardInput = FileHandle.nullDevice

        let (ended, end) = AsyncStream<Ended>.makeStream()
        process.terminationHandler = { process in
            end.yield(
                process.terminationReason == .uncaughtSignal
                    ? Ended(signal: process.terminationStatus) : Ended(code: process.terminationStatus))
            end.finish()
        }
        let lines = Locked([String]())
        let (lineSignal, signal) = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
        let rest = Locked("")
        output.fileHandleForReading.readabilityHandler = { handle in
            let data = handle.availableData
            guard !data.isEmpty else {
                handle.readabilityHandler = nil
                signal.finish()
                return
            }
            let complete = rest.withLock { rest -> [String] in
                rest += String(decoding: data, as: UTF8.self)
                var parts = rest.components(separatedBy: "\n")
                rest = parts.removeLast()
                return parts
            }
            lines.withLock { $0 += complete }
            signal.yield()
        }
        self.ended = ended
        self.lines = lines
        self.lineSignal = lineSignal
        try process.run()
        self.process = Locked(process)
    }

    deinit {
        process.withLock { if $0.isRunning { kill($0.processIdentifier, SIGKILL) } }
    }

    /// The first line of output that begins with `prefix`.
    func line(beginning prefix: String) async throws -> String {
        var signals = lineSignal.makeAsyncIterator()
        while true {
            if let line = lines.withLock({ $0.first { $0.hasPrefix(prefix) } }) { return line }
            guard await signals.next() != nil else {
                if let line = lines.withLock({ $0.first { $0.hasPrefix(prefix) } }) { return line }
                throw ChildError(description: "\(name) ended before it wrote a line beginning \"\(prefix)\"; it wrote \(lines.withLock { $0 })")
            }
        }
    }

    func waitUntilEnded() async -> Ended {
        for await ended in ended { return ended }
        return Ended()
    }

    func signal(_ number: Int32) {
        process.withLock { _ = kill($0.processIdentifier, number) }
    }

    /// Where the executables of this package were built: beside the test bundle.
    private static func productsFolder() throws -> URL {
        var folder = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
        for _ in 0..<4 {
            if FileManager.default.isExecutableFile(atPath: folder.appendingPathComponent("payments").path) { return folder }
            folder.deleteLastPathComponent()
        }
        throw ChildError(description: "the executables are not built; run `swift build --build-tests` first")
    }
}

struct ChildError: Error, CustomStringConvertible {
    var description: String
}
