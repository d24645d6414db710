import ArgumentParser
import AsyncHTTPClient
import Foundation
import NIOCore
import NIOHTTP1
import NIOSSL
import SemelCore
import SemelServer

/// Where the control plane is, and who asks.
struct ControlPlaneOptions: ParsableArguments {
    @Option(help: "The control plane's URL (SEMEL_URL).")
    var url = ProcessInfo.processInfo.environment["SEMEL_URL"] ?? "http://127.0.0.1:8081"

    @Option(help: "The bearer token; others on this machine can see it here, so rather set SEMEL_TOKEN.")
    var token: String?

    @Option(help: "A PEM file of the authorities to trust instead of the system's.")
    var authorities: String?

    /// Runs `work` with a client, and closes it.
    func withClient<Value>(_ work: (ControlPlaneClient) async throws -> Value) async throws -> Value {
        let client = try ControlPlaneClient(self)
        do {
            let value = try await work(client)
            await client.close()
            return value
        } catch {
            await client.close()
            throw error
        }
    }
}

/// Asks the control plane, and turns what goes wrong into an exit code and a message.
struct ControlPlaneClient {
    private static let answerLimit = 64 << 20

    private let base: String
    private let token: String?
    private let http: HTTPClient

    init(_ options: ControlPlaneOptions) throws {
        guard let url = URL(string: options.url), let scheme = url.scheme, ["http", "https"].contains(scheme), let host = url.host, url.query == nil else {
            throw CommandFailure(.usage, "\(options.url) is not the URL of a control plane. Remedy: write --url http://127.0.0.1:8081.")
        }
        token = options.token ?? ProcessInfo.processInfo.environment["SEMEL_TOKEN"].flatMap { $0.isEmpty ? nil : $0 }
        if token != nil, scheme == "http", !ListenAddress(host: host, port: 0).isLoopback {
            throw CommandFailure(.usage, "The token would go to \(host) unencrypted. Remedy: use https.")
        }
        base = options.url.hasSuffix("/") ? String(options.url.dropLast()) : options.url
        var configuration = HTTPClient.Configuration(redirectConfiguration: .disallow, timeout: .init(connect: .seconds(5), read: .seconds(30)))
        // Where nobody listens, the answer is known at once.
        configuration.connectionPool.retryConnectionEstablishment = false
        if let authorities = options.authorities {
            var tls = TLSConfiguration.makeClientConfiguration()
            tls.trustRoots = .file(authorities)
            configuration.tlsConfiguration = tls
        }
        http = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
    }

    func close() async { try? await http.shutdown() }

    func get(_ path: String, _ query: [(String, String?)] = []) async throws -> JSONValue {
        let parameters = query.compactMap { name, value in value.map { "\(name)=\(Self.encoded($0))" } }
        return try await send(.GET, path + (parameters.isEmpty ? "" : "?" + parameters.joined(separator: "&")), nil)
    }

    func post(_ path: String, _ body: JSONValue) async throws -> JSONValue { try await send(.POST, path, body) }

    private func send(_ method: HTTPMethod, _ path: String, _ body: JSONValue?) async throws -> JSONValue {
        var request = HTTPClientRequest(url: base + path)
        request.method = method
        request.headers.add(name: "accept", value: "application/json")
        if let token { request.headers.add(name: "authorization", value: "Bearer \(token)") }
        if let body {
            request.headers.add(name: "content-type", value: "application/json")
            request.body = .bytes(ByteBuffer(bytes: body.serialized()))
        }
        let status: Int
        let answer: [UInt8]
        do {
            let response = try await http.execute(request, timeout: .seconds(60))
            status = Int(response.status.code)
            answer = Array(buffer: try await response.body.collect(upTo: Self.answerLimit))
        } catch {
            throw CommandFailure(.unreachable, "The control plane at \(base) cannot be reached: \(error). Remedy: check that `semel serve` runs, and --url.")
        }
        let document = try? JSONValue(parsing: answer)
        guard (200..<300).contains(status) else {
            let problem = [document?["title"]?.string, document?["detail"]?.string].compactMap(\.self).joined(separator: ". ")
            throw CommandFailure(Self.code(for: status), "\(base)\(path.prefix { $0 != "?" }) answered \(status)" + (problem.isEmpty ? "." : ": \(problem)"))
        }
        guard let document else { throw CommandFailure(.unreachable, "What answers at \(base) is not a control plane of semel: it sent no JSON. Remedy: check --url.") }
        return document
    }

    private static func code(for status: Int) -> CommandFailure.Code {
        switch status {
        case 404, 409: .finding
        case 500...: .unreachable
        default: .usage
        }
    }

    /// RFC 3986's unreserved characters stay.
    static func encoded(_ text: String) -> String {
        text.addingPercentEncoding(withAllowedCharacters: CharacterSet(charactersIn: "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")) ?? ""
    }
}
