import AsyncHTTPClient
import ChildProcesses
import Foundation
import NIOCore
import NIOHTTP1
import Testing

/// The payments service, a gateway in front of it, and a client: all real processes, all in one temporary folder.
final class CrashBench: Sendable {
    let folder: URL
    let payments: ChildProcess
    let paymentsPort: Int
    let client: HTTPClient

    static func withBench<Result: Sendable>(_ body: (CrashBench) async throws -> Result) async throws -> Result {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("semel-crash-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        var configuration = HTTPClient.Configuration()
        configuration.redirectConfiguration = .disallow
        let client = HTTPClient(configuration: configuration)
        do {
            let payments = try ChildProcess("payments", ["--port", "0", "--database", "payments.db", "--faults"], in: folder)
            let ready = try await payments.line(beginning: "ready payments")
            let port = try #require(ready.split(separator: " ")[2].split(separator: ":").last.flatMap { Int($0) })
            let bench = CrashBench(folder: folder, payments: payments, port: port, client: client)
            let result = try await body(bench)
            payments.signal(SIGTERM)
            await payments.end()
            try await client.shutdown()
            try FileManager.default.removeItem(at: folder)
            return result
        } catch {
            try await client.shutdown()
            throw error
        }
    }

    private init(folder: URL, payments: ChildProcess, port: Int, client: HTTPClient) {
        self.folder = folder
        self.payments = payments
        paymentsPort = port
        self.client = client
    }

    struct Gateway: Sendable {
        let process: ChildProcess
        let address: String
        let admin: String
    }

    /// Starts a gateway with one scene; its store is kept between starts.
    func startGateway(scene: String, failpoints: String? = nil) async throws -> Gateway {
        let process = try launchGateway(scene: scene, failpoints: failpoints)
        let words = try await process.line(beginning: "ready semel").split(separator: " ")
        return Gateway(process: process, address: "http://\(words[2])", admin: "http://\(words[4])")
    }

    /// Starts a gateway that may die before it listens.
    func launchGateway(scene: String, failpoints: String? = nil) throws -> ChildProcess {
        let text = """
            listen: 127.0.0.1:0
            admin: 127.0.0.1:0
            store: sqlite:./semel.db
            upstreams:
              payments: http://127.0.0.1:\(paymentsPort)
            scenes:
              - name: payment
                match: { methods: [POST], path: /v1/** }
                upstream: payments
                key: { header: Idempotency-Key, required: true }
                scope: none
            \(scene.split(separator: "\n").map { "    " + $0 }.joined(separator: "\n"))
            """
        let file = folder.appendingPathComponent("semel.yaml")
        try text.write(to: file, atomically: true, encoding: .utf8)
        var environment = ["SEMEL_FAILPOINT_LOG": failpointLog.path]
        environment["SEMEL_FAILPOINTS"] = failpoints ?? ""
        return try ChildProcess("semel", ["serve", "--config", file.path], environment: environment, in: folder)
    }

    var failpointLog: URL { folder.appendingPathComponent("failpoints.log") }

    var firedFailpoints: [String] {
        ((try? String(contentsOf: failpointLog, encoding: .utf8)) ?? "").split(separator: "\n").map(String.init)
    }

    struct Answer: Equatable {
        var status: Int
        var body: String
        var isReplayed: Bool

        var code: String? {
            (try? JSONSerialization.jsonObject(with: Data(body.utf8)) as? [String: Any])?["code"] as? String
        }
    }

    /// One payment under `key`; throws when no whole answer came.
    func pay(_ gateway: Gateway, key: String, path: String = "/v1/payments", headers: [String: String] = [:]) async throws -> Answer {
        var request = HTTPClientRequest(url: gateway.address + path)
        request.method = .POST
        request.headers.add(name: "Idempotency-Key", value: "\"\(key)\"")
        request.headers.add(name: "Content-Type", value: "application/json")
        for (name, value) in headers { request.headers.add(name: name, value: value) }
        request.body = .bytes(ByteBuffer(string: #"{"order_id":"\#(key)","amount":500,"currency":"EUR"}"#))
        let response = try await client.execute(request, timeout: .seconds(180))
        let body = try await response.body.collect(upTo: 16 << 20)
        return Answer(
            status: Int(response.status.code), body: String(buffer: body),
            isReplayed: response.headers.first(name: "Idempotent-Replayed") == "true")
    }

    /// Repeats a payment, as a patient client does, until the answer is one that `isFinal` accepts.
    func payUntilFinal(
        _ gateway: Gateway, key: String, path: String = "/v1/payments", isFinal: (Answer) -> Bool
    ) async throws -> Answer {
        var last: Answer?
        for _ in 0..<150 {
            let answer = try await pay(gateway, key: key, path: path)
            if isFinal(answer) { return answer }
            last = answer
            try await Task.sleep(for: .milliseconds(100))
        }
        throw ChildError("no final answer for \(key) in 15 s; the last was \(String(describing: last))")
    }

    /// How often the effect of `key` happened, as the payments service counts it.
    func effects(of key: String) async throws -> Int {
        let response = try await client.execute(HTTPClientRequest(url: "http://127.0.0.1:\(paymentsPort)/ledger/keys"), timeout: .seconds(180))
        let text = String(buffer: try await response.body.collect(upTo: 16 << 20))
        for line in text.split(separator: "\n") {
            guard let entry = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any],
                let name = entry["key"] as? String, let count = entry["count"] as? Int
            else { throw ChildError("the ledger wrote \"\(line)\"") }
            if name.trimmingCharacters(in: ["\""]) == key { return count }
        }
        return 0
    }

    func operations(_ gateway: Gateway, state: String) async throws -> Int {
        let response = try await client.execute(HTTPClientRequest(url: "\(gateway.admin)/v1/operations?state=\(state)"), timeout: .seconds(180))
        let body = Data(buffer: try await response.body.collect(upTo: 16 << 20))
        let object = try JSONSerialization.jsonObject(with: body) as? [String: Any]
        return try #require(object?["operations"] as? [Any]).count
    }
}

extension Data {
    init(buffer: ByteBuffer) { self.init(buffer.readableBytesView) }
}
