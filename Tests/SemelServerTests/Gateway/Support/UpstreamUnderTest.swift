import NIOSSL

/// A service behind the gateway: it keeps its connections, remembers what it was sent, and answers as a test wants.
final class UpstreamUnderTest: Sendable {
    enum Reply: Sendable {
        case answer(Int, _ fields: [(String, String)] = [], _ body: String = "")
        /// These bytes, and then the end of the connection.
        case raw(String)
        /// The request was read, and its answer is lost.
        case reset
    }

    /// In the order in which they came.
    let requests: Collected<RawMessage>
    private let server: RawServer

    var port: Int { server.port }

    init(
        host: String = "127.0.0.1", port: Int = 0, tls: NIOSSLContext? = nil, _ reply: @escaping @Sendable (RawMessage) async throws -> Reply
    ) async throws {
        let requests = Collected<RawMessage>()
        self.requests = requests
        server = try await RawServer(host: host, port: port, tls: tls) { peer in
            while true {
                let request = try await peer.message()
                requests.add(request)
                switch try await reply(request) {
                case .answer(let status, let fields, let body):
                    let lines = fields.map { "\($0): \($1)\r\n" }.joined()
                    try await peer.send("HTTP/1.1 \(status) Made\r\n\(lines)Content-Length: \(body.utf8.count)\r\n\r\n\(body)")
                case .raw(let bytes):
                    try await peer.send(bytes)
                    return
                case .reset: return try await peer.reset()
                }
            }
        }
    }

    /// One that makes everything at once.
    static func making() async throws -> UpstreamUnderTest { try await UpstreamUnderTest { _ in .answer(201, [], "made") } }

    /// Those that may have had an effect.
    var posts: [RawMessage] { requests.values.filter { $0.method == "POST" } }

    func stop() async { await server.stop() }
}
