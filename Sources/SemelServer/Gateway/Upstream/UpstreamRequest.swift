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

    package init(
        _ method: HTTPMethod, _ target: String, headers: HTTPHeaders = [:], body: Body = .none,
        onWritten: (@Sendable () -> Void)? = nil
    ) {
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.onWritten = onWritten
    }
}
