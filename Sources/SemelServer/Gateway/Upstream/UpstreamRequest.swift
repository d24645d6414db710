package import NIOCore
package import NIOHTTP1

/// A request as it goes to an upstream.
package struct UpstreamRequest: Sendable {
    package enum Body: Sendable {
        case none
        case bytes(ByteBuffer)
        /// Read at most once for each time it is begun to be sent. A length that is not known is sent in chunks.
        case stream(length: Int?, @Sendable () -> any AsyncIteratorProtocol<ByteBuffer, any Error>)
    }

    package var method: HTTPMethod
    /// Path and query as they go into the request line, byte for byte.
    package var target: String
    package var headers: HTTPHeaders
    package var body: Body
    /// Called when the whole request was handed to the operating system.
    package var onWritten: (@Sendable () -> Void)?
    /// The fields behind the body, asked for when that has ended. They are sent only where the body is sent in chunks.
    package var trailers: (@Sendable () -> HTTPHeaders?)?
    /// Called with each answer before the answer (1xx, but 101, which is a final one here). On the connection's event loop.
    package var onInterim: (@Sendable (HTTPResponseStatus, HTTPHeaders) -> Void)?

    package init(
        _ method: HTTPMethod, _ target: String, headers: HTTPHeaders = [:], body: Body = .none,
        onWritten: (@Sendable () -> Void)? = nil, trailers: (@Sendable () -> HTTPHeaders?)? = nil,
        onInterim: (@Sendable (HTTPResponseStatus, HTTPHeaders) -> Void)? = nil
    ) {
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.onWritten = onWritten
        self.trailers = trailers
        self.onInterim = onInterim
    }
}
