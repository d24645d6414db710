import ChildProcesses
import Foundation
import NIOCore
import NIOPosix
import Testing

@testable import SemelServer

@Suite("What the documentation shows")
struct DocumentedCommandTests {
    private static let root: URL = {
        var folder = URL(fileURLWithPath: #filePath)
        for _ in 0..<4 { folder.deleteLastPathComponent() }
        return folder
    }()

    /// The pages a user reads, by name.
    private static func pages() throws -> [(name: String, text: String)] {
        let docs = root.appendingPathComponent("docs")
        let names = try FileManager.default.contentsOfDirectory(atPath: docs.path).filter { $0.hasSuffix(".md") }.sorted()
        return try [("README.md", String(contentsOf: root.appendingPathComponent("README.md"), encoding: .utf8))]
            + names.map { ($0, try String(contentsOf: docs.appendingPathComponent($0), encoding: .utf8)) }
    }

    /// Whole fenced blocks of one language.
    private static func blocks(_ language: String, in text: String) -> [String] {
        text.components(separatedBy: "```").enumerated().filter { $0.offset % 2 == 1 }.compactMap { _, block in
            block.hasPrefix(language + "\n") ? String(block.dropFirst(language.count + 1)) : nil
        }
    }

    /// A line's words as a shell reads them: quotes group, `#` begins a comment.
    private static func words(_ line: String) -> [String] {
        var words: [String] = []
        var word: String?
        var isQuoted = false
        for character in line {
            switch character {
            case "\"": (isQuoted, word) = (!isQuoted, word ?? "")
            case "#" where !isQuoted && word == nil: return words
            case " " where !isQuoted:
                if let word { words.append(word) }
                word = nil
            default: word = (word ?? "") + String(character)
            }
        }
        return words + (word.map { [$0] } ?? [])
    }

    @Test("every command is one that the program takes")
    func commands() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("semel-docs-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        // A command that was understood ends with 3 here.
        let port = try RefusingPort()
        var seen = 0
        for (page, text) in try Self.pages() {
            for line in Self.blocks("", in: text).flatMap({ $0.split(separator: "\n") }) where line.hasPrefix("semel ") {
                let arguments = Self.words(String(line).replacing("op_…", with: "op_" + String(repeating: "0", count: 32)).replacing("…", with: "0")).dropFirst()
                guard ["ops", "audit"].contains(arguments.first) else { continue }
                let process = try ChildProcess("semel", Array(arguments), environment: ["SEMEL_URL": "http://127.0.0.1:\(port.number)"], in: folder)
                #expect(await process.end() == .code(3), "\(page): \(line): \(process.errorOutput)")
                seen += 1
            }
        }
        #expect(seen >= 4)
    }

    @Test("every whole configuration is one that can be used")
    func configurations() throws {
        var seen = 0
        for (page, text) in try Self.pages() {
            for block in Self.blocks("yaml", in: text) where block.contains("\nscenes:") && block.contains("\nupstreams:") {
                let reading = ConfigurationReader.read(text: block, file: page)
                #expect(reading.configuration != nil, "\(page): \(reading.diagnostics)")
                seen += 1
            }
        }
        #expect(seen >= 1)
    }
}
