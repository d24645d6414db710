import AsyncHTTPClient
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix

/// What a client got for one request.
struct Answer: Sendable {
    let status: Int
    let body: [UInt8]
    let isReplayed: Bool
    let guarantee: String?
    let retryAfter: Duration?
    /// The code of a problem that the gateway answers itself; nil for every answer of the service.
    let problem: String?
}

/// How one attempt ended.
enum Attempt: Sendable {
    case answered(Answer)
    case hungUp
    case lost
    case notConnected
}

/// The addresses of a storm.
struct Target: Sendable {
    let gateway: String
    let path: String
    let payments: String
}

/// The HTTP client of all clients, with short time-outs and connections enough that none waits for one.
struct Client: Sendable {
    private let http: HTTPClient

    init(connections: Int) {
        var configuration = HTTPClient.Configuration()
        configuration.timeout = .init(connect: .seconds(2), read: .seconds(15))
        configuration.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = connections
        // A refused connection is an answer here.
        configuration.connectionPool.retryConnectionEstablishment = false
        configuration.httpVersion = .http1Only
        http = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
    }

    /// Everything was done when this is called; what is still open is of no interest.
    func close() async { try? await http.shutdown() }

    /// Sends one payment once.
    ///
    /// - Parameter hangsUpAfter: closes the connection after this time when no answer was complete by then.
    func pay(_ payment: Plan.Payment, at target: Target, fault: Plan.Fault?, hangsUpAfter: Duration?) async -> Attempt {
        var request = HTTPClientRequest(url: target.gateway + target.path)
        request.method = .POST
        request.headers = ["Content-Type": "application/json", "Idempotency-Key": "\"\(payment.key)\""]
        if let fault { request.headers.add(name: fault.field, value: fault.value) }
        request.body = .bytes(ByteBuffer(string: payment.body))
        guard let hangsUpAfter else { return await send(request) }

        return await withTaskGroup(of: Attempt?.self) { [request] group in
            group.addTask { await send(request) }
            group.addTask {
                try? await Task.sleep(for: hangsUpAfter)
                return nil
            }
            defer { group.cancelAll() }
            // A cancelled request closes its connection.
            return await group.next()! ?? .hungUp
        }
    }

    func get(_ url: String) async throws -> (status: Int, body: [UInt8]) {
        let response = try await http.execute(HTTPClientRequest(url: url), timeout: .seconds(10))
        let body = try await response.body.collect(upTo: 64 << 20)
        return (Int(response.status.code), Array(body.readableBytesView))
    }

    private func send(_ request: HTTPClientRequest) async -> Attempt {
        do {
            let response = try await http.execute(request, timeout: .seconds(20))
            let body = Array(try await response.body.collect(upTo: 4 << 20).readableBytesView)
            let headers = response.headers
            return .answered(
                Answer(
                    status: Int(response.status.code),
                    body: body,
                    isReplayed: headers.first(name: "Idempotent-Replayed") == "true",
                    guarantee: headers.first(name: "Semel-Guarantee"),
                    retryAfter: headers.first(name: "Retry-After").flatMap(Int64.init).map { .seconds($0) },
                    problem: Self.problem(headers, body)
                ))
        } catch is NIOConnectionError {
            return .notConnected
        } catch let error as IOError where error.errnoCode == ECONNREFUSED {
            return .notConnected
        } catch let error as HTTPClientError where error == .connectTimeout {
            return .notConnected
        } catch {
            return .lost
        }
    }

    private static func problem(_ headers: HTTPHeaders, _ body: [UInt8]) -> String? {
        struct Problem: Decodable { let type: String }
        guard headers.first(name: "Content-Type")?.hasPrefix("application/problem+json") == true,
            let problem = try? JSONDecoder().decode(Problem.self, from: Data(body)),
            problem.type.hasPrefix("urn:semel:")
        else { return nil }
        return String(problem.type.dropFirst("urn:semel:".count))
    }
}
