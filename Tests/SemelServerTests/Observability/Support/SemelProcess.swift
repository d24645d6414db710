import AsyncHTTPClient
import ChildProcesses
import Foundation
import NIOCore
import NIOHTTP1
import SemelCore
import Testing

/// `semel serve`, a real process on ports of its own.
final class SemelProcess: Sendable {
    let gateway: String
    let admin: String
    private let process: ChildProcess
    private let file: String
    private let head: String

    static let client = HTTPClient(eventLoopGroupProvider: .singleton)

    /// Starts it, and returns once it listens.
    /// - Parameters:
    ///   - text: the configuration but for the addresses and the store.
    ///   - store: a file in `folder`, when `nil`.
    init(_ text: String, store: String? = nil, in folder: String, environment: [String: String] = [:]) async throws {
        file = folder + "/semel.yaml"
        head = "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstore: \"\(store ?? "sqlite:\(folder)/semel.db")\"\n"
        try (head + text).write(toFile: file, atomically: true, encoding: .utf8)
        process = try ChildProcess("semel", ["serve", "--config", file], environment: environment, in: URL(fileURLWithPath: folder))
        let words = try await process.line(beginning: "ready semel ").split(separator: " ")
        gateway = "http://\(words[2])"
        admin = "http://\(words[4])"
    }

    /// Writes another configuration, and sends SIGHUP.
    func reload(_ text: String) throws {
        try (head + text).write(toFile: file, atomically: true, encoding: .utf8)
        process.signal(SIGHUP)
    }

    /// Sends a signal, and returns the exit code (negative: the signal it died of) once it is gone.
    @discardableResult
    func end(_ signal: Int32 = SIGTERM) async -> Int32 {
        process.signal(signal)
        return switch await process.end() {
        case .code(let code): code
        case .signal(let signal): -signal
        }
    }

    /// Every line of the log so far.
    var log: [JSONValue] {
        get throws {
            try process.errorOutput.split(separator: "\n").map { try JSONValue(parsing: Array($0.utf8)) }
        }
    }

    struct Answer: Sendable {
        var status: Int
        var headers: HTTPHeaders
        var text: String
        var isReplay: Bool { headers.first(name: "Idempotent-Replayed") == "true" }
        var json: JSONValue { (try? JSONValue(parsing: Array(text.utf8))) ?? .null }
    }

    func get(_ path: String) async throws -> Answer { try await send(HTTPClientRequest(url: admin + path)) }

    /// One request to the gateway.
    func pay(_ path: String, key: String, body: String = "{}", _ fields: [(String, String)] = []) async throws -> Answer {
        var request = HTTPClientRequest(url: gateway + path)
        request.method = .POST
        request.headers = HTTPHeaders([("Idempotency-Key", "\"\(key)\""), ("Content-Type", "application/json")] + fields)
        request.body = .bytes(ByteBuffer(string: body))
        return try await send(request)
    }

    func post(_ path: String, _ body: JSONValue) async throws -> Answer {
        var request = HTTPClientRequest(url: admin + path)
        request.method = .POST
        request.headers = ["Content-Type": "application/json"]
        request.body = .bytes(body.serialized())
        return try await send(request)
    }

    private func send(_ request: HTTPClientRequest) async throws -> Answer {
        let response = try await Self.client.execute(request, timeout: .seconds(180))
        let body = try await response.body.collect(upTo: 16 << 20)
        return Answer(status: Int(response.status.code), headers: response.headers, text: String(buffer: body))
    }

    /// The metrics: each series by its name and labels.
    func metrics() async throws -> [String: Double] {
        var series: [String: Double] = [:]
        for line in try await get("/metrics").text.split(separator: "\n") where !line.hasPrefix("#") {
            let space = try #require(line.lastIndex(of: " "))
            series[String(line[..<space])] = Double(line[line.index(after: space)...])
        }
        return series
    }
}

/// A double of an HTTP service: keeps what it was sent, and answers what it is told to.
final class ServiceDouble: Sendable {
    struct Received: Sendable {
        var head: RawMessage
        var path: String { String(head.startLine.split(separator: " ")[1]) }
        var json: JSONValue { (try? JSONValue(parsing: Array(head.body.utf8))) ?? .null }
    }

    private let server: RawServer
    private let requests: Locked<[Received]>
    var port: Int { server.port }
    var received: [Received] { requests.withLock { $0 } }

    /// - Parameter answer: status and body; it may take its time.
    init(_ answer: @escaping @Sendable (Received) async -> (status: Int, body: String)) async throws {
        let requests = Locked([Received]())
        self.requests = requests
        server = try await RawServer { peer in
            while true {
                let request = Received(head: try await peer.message())
                requests.withLock { $0.append(request) }
                let (status, body) = await answer(request)
                try await peer.send(
                    "HTTP/1.1 \(status) X\r\nContent-Type: application/json\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
            }
        }
    }
}
