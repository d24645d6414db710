import Foundation
import Synchronization

/// A process of the demonstration, with its output in a file.
final class Child: Sendable {
    let name: String
    let log: String
    // Foundation.Process is used from one place at a time here: started by `init`, then only read and signalled.
    private let process = Process()

    /// Starts the program.
    init(_ name: String, program: String, arguments: [String], log: String) throws {
        self.name = name
        self.log = log
        let descriptor = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw Failure("cannot write \(log): \(String(cString: strerror(errno)))") }
        let output = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = output
        process.standardError = output
        // A child inherits the mask of the thread that starts it, and those of the pools here block most signals.
        var none = sigset_t()
        var mask = sigset_t()
        sigemptyset(&none)
        pthread_sigmask(SIG_SETMASK, &none, &mask)
        defer { pthread_sigmask(SIG_SETMASK, &mask, nil) }
        do {
            try process.run()
        } catch {
            throw Failure("cannot start \(program): \(error.localizedDescription)")
        }
    }

    var identifier: Int32 { process.processIdentifier }
    var isRunning: Bool { process.isRunning }

    func send(_ signal: Int32) {
        if process.isRunning { kill(process.processIdentifier, signal) }
    }

    /// Waits until the process has ended, at most for the limit; says whether it has.
    func ends(within limit: Duration) async throws -> Bool {
        let clock = ContinuousClock()
        let start = clock.now
        while process.isRunning {
            if start.duration(to: clock.now) > limit { return false }
            try await Task.sleep(for: .milliseconds(10))
        }
        return true
    }

    /// Ends the process and waits, blocking: politely first, so that it drains.
    func stop() {
        send(SIGTERM)
        for _ in 0..<500 where process.isRunning { usleep(10_000) }
        send(SIGKILL)
        if process.isRunning { process.waitUntilExit() }
    }

    /// The end of what it wrote, for an error message.
    var lastLines: String {
        let text = (try? String(contentsOfFile: log, encoding: .utf8)) ?? ""
        return text.split(separator: "\n").suffix(15).map { "    " + $0 }.joined(separator: "\n")
    }
}
