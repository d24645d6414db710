import Foundation
import Logging

@testable import SemelServer

/// A logger whose lines are read back from the file they are written to.
final class LogCapture: Sendable {
    /// Open as long as anybody can write to it: what is tested may still log when the capture has gone.
    private final class OpenFile: Sendable {
        let descriptor: CInt

        init(_ path: String) {
            descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
            precondition(descriptor >= 0, "cannot write \(path)")
        }

        deinit { close(descriptor) }
    }

    private let writer: LineWriter
    private let path: String
    let logger: Logger

    init(_ configuration: LogConfiguration = LogConfiguration(level: .trace), provider: Logger.MetadataProvider? = nil) {
        path = FileManager.default.temporaryDirectory.appendingPathComponent("semel-\(UUID().uuidString).log").path
        let file = OpenFile(path)
        let writer = LineWriter(descriptor: file.descriptor, owner: file)
        self.writer = writer
        logger = Logger(label: "test") { _ in
            JSONLogHandler(configuration, writer: writer, metadataProvider: provider, now: { 1_700_000_000_123 })
        }
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// Everything written so far.
    var lines: [String] {
        writer.flush()
        return (try? String(contentsOfFile: path, encoding: .utf8))?.split(separator: "\n").map(String.init) ?? []
    }
}
