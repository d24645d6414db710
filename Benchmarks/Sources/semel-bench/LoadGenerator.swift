import Foundation

/// Requests from `wrk`, in a process of its own, and what each of them costs the process that answers.
struct LoadGenerator {
    enum Keys {
        /// A new one for each request.
        case fresh
        /// One that has run before.
        case replayed
    }

    struct Load: CustomStringConvertible {
        /// Requests a second.
        var rate: Double
        /// The server's processor time for one request, in microseconds: a busy machine changes it less than the rate.
        var cost: Double
        var description: String { "\(Int(rate)) (\(String(format: "%.1f", cost)) µs)" }
    }

    let folder: String
    let port: Int
    var server = ProcessInfo.processInfo.processIdentifier
    /// Short, and the rounds many: what else the machine does then meets the two sides of a ratio alike.
    static let rounds = 15
    var seconds = 1
    var connections = 64

    /// POSTs a small JSON body to `path`. Every answer must be a success.
    func load(_ path: String, _ keys: Keys, round: Int) async throws -> Load {
        let script = folder + "/requests.lua"
        let key =
            switch keys {
            case .fresh: "string.format('%08d-5d2c-4e3a-9b1f-%012d', \(round), count)"
            case .replayed: "'00000000-5d2c-4e3a-9b1f-000000000000'"
            }
        try """
        count = 0
        request = function()
           count = count + 1
           return 'POST /\(path) HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nIdempotency-Key: "' .. \(key) .. '"\\r\\nContent-Type: application/json\\r\\nContent-Length: 14\\r\\n\\r\\n{"amount":100}'
        end
        """.write(toFile: script, atomically: true, encoding: .utf8)
        // A key that is replayed has run once before: alone, because others would be told that it runs.
        if keys == .replayed, round == 0 { _ = try await run(["-t1", "-c1", "-d1s", "-s", script, "http://127.0.0.1:\(port)"]) }
        let before = try processorSeconds()
        let output = try await run(["-t1", "-c\(connections)", "-d\(seconds)s", "-s", script, "http://127.0.0.1:\(port)"])
        let spent = try processorSeconds() - before
        guard !output.contains("Non-2xx"), !output.contains("Socket errors"),
            let rate = output.split(separator: "\n").first(where: { $0.hasPrefix("Requests/sec:") }).flatMap({ Double($0.split(separator: " ").last ?? "") }),
            let count = output.split(separator: "\n").first(where: { $0.contains(" requests in ") }).flatMap({ Double($0.split(separator: " ").first ?? "") })
        else { throw BenchmarkError(description: "the load on /\(path) went wrong: \(output)") }
        return Load(rate: rate, cost: spent / count * 1e6)
    }

    /// What the server has spent so far.
    private func processorSeconds() throws -> Double {
        let status = try String(contentsOfFile: "/proc/\(server)/stat", encoding: .utf8)
        // After the name, which is in parentheses and may hold blanks: user and system time are the 12th and 13th field.
        let fields = status[(status.lastIndex(of: ")") ?? status.startIndex)...].split(separator: " ")
        guard fields.count > 13, let user = Double(fields[12]), let system = Double(fields[13]) else {
            throw BenchmarkError(description: "/proc/\(server)/stat reads \(status)")
        }
        return (user + system) / Double(sysconf(Int32(_SC_CLK_TCK)))
    }

    private func run(_ arguments: [String]) async throws -> String {
        // On a thread of its own: those of the pool are the server's.
        try await withCheckedThrowingContinuation { continuation in
            Thread.detachNewThread { continuation.resume(with: Result { try Command.output(of: "wrk", arguments) }) }
        }
    }
}
