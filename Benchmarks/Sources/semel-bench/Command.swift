import Foundation
import Glibc

/// A program that is run to its end. Not Foundation's: its end is sometimes not noticed on a thread of the cooperative pool, and
/// the whole run stands still.
enum Command {
    /// What the program wrote to standard output, without the white space around it.
    /// - Throws: when it cannot be started, or ends with another status than 0. What it wrote to standard error was seen.
    @discardableResult
    static func output(of program: String, _ arguments: [String]) throws -> String {
        var pipe: [Int32] = [0, 0]
        guard Glibc.pipe(&pipe) == 0 else { throw BenchmarkError(description: "no pipe: error \(errno)") }
        for end in pipe { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, pipe[1], STDOUT_FILENO)
        let words = ([program] + arguments).map { strdup($0) }
        defer { words.forEach { free($0) } }
        var process: pid_t = 0
        let code = posix_spawnp(&process, program, &actions, nil, words + [nil], environ)
        close(pipe[1])
        defer { close(pipe[0]) }
        guard code == 0 else { throw BenchmarkError(description: "\(program) cannot be started: error \(code)") }
        var text: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = read(pipe[0], &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { break }
            text += buffer[..<count]
        }
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0, errno == EINTR {}
        guard status == 0 else {
            throw BenchmarkError(description: "\(program) \(arguments.joined(separator: " ")) ended with \(status >> 8), signal \(status & 0x7F)")
        }
        return String(decoding: text, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
    }
}
