import Foundation

/// A program that was built together with this one, in a process of its own, until it is ended.
struct Program {
    let process = Process()
    private let output = Pipe()
    private let input = Pipe()

    init(_ name: String, _ arguments: [String]) throws {
        // Into the same folder.
        process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent().appendingPathComponent(name)
        process.arguments = arguments
        process.standardOutput = output
        process.standardInput = input
        try process.run()
    }

    /// `semel serve` with this configuration.
    static func gateway(_ configuration: String, folder: String) throws -> Program {
        let file = folder + "/semel.yaml"
        try configuration.write(toFile: file, atomically: true, encoding: .utf8)
        return try Program("semel", ["serve", "--config", file])
    }

    /// Waits for the line that begins with `ready NAME ADDRESS`, and returns the address's port.
    func port() throws -> Int { try ports().0 }

    /// The same, with that of the control plane, where there is one.
    func ports() throws -> (Int, admin: Int) {
        var text = ""
        while let piece = String(data: output.fileHandleForReading.availableData, encoding: .utf8), !piece.isEmpty {
            text += piece
            // ready semel 127.0.0.1:4000 admin 127.0.0.1:4001 pid 17
            guard let line = text.split(separator: "\n", omittingEmptySubsequences: false).dropLast().first(where: { $0.hasPrefix("ready ") }) else { continue }
            let ports = line.split(separator: " ").filter { $0.contains(":") }.compactMap { $0.split(separator: ":").last.flatMap { Int($0) } }
            if let port = ports.first { return (port, ports.dropFirst().first ?? 0) }
        }
        throw BenchmarkError(description: "\(process.executableURL?.lastPathComponent ?? "the program") did not start: \(text)")
    }

    /// Says a line to it, and returns what it answers.
    func ask(_ line: String) throws -> String {
        try input.fileHandleForWriting.write(contentsOf: Data((line + "\n").utf8))
        return String(decoding: output.fileHandleForReading.availableData, as: UTF8.self).trimmingCharacters(in: .newlines)
    }

    /// A figure of `/proc/PID/status` in MiB, such as `VmRSS`.
    func memory(_ name: String) throws -> Double {
        let status = try String(contentsOfFile: "/proc/\(process.processIdentifier)/status", encoding: .utf8)
        guard let line = status.split(separator: "\n").first(where: { $0.hasPrefix(name + ":") }),
            let kibibytes = line.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first.flatMap({ Double($0) })
        else { throw BenchmarkError(description: "/proc/\(process.processIdentifier)/status has no \(name)") }
        return kibibytes / 1024
    }

    func end() {
        process.terminate()
        process.waitUntilExit()
    }
}
