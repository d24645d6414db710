import Foundation
import Logging

@testable import SemelServer

/// A logger whose lines are read back from the pipe they are written to.
final class LogCapture: Sendable {
    private let writer: LineWriter
    private let file: FileHandle
    private let path: String
    let logger: Logger

    init(_ configuration: LogConfiguration = LogConfiguration(level: .trace), provider: Logger.MetadataProvider? = nil) {
        path = FileManager.default.temporaryDirectory.appendingPathComponent("semel-\(UUID().uuidString).log").path
        _ = FileManager.default.createFile(atPath: path, contents: nil)
        file = FileHandle(forWritingAtPath: path)!
        let writer = LineWriter(descriptor: file.fileDescriptor)
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
