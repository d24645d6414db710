public import HTTPTypes
public import NIOCore

/// A response: from a handler to the rules, and from the rules to the client.
public struct HTTPAnswer: Sendable {
    /// Takes the next piece of a body, and returns when it may be followed by another.
    public typealias Send = @Sendable (ByteBuffer) async throws -> Void

    public enum Body: Sendable {
        case bytes(ByteBuffer, trailers: HTTPFields? = nil)
        /// A body that comes in pieces: the closure sends them one after the other, and returns the trailers. It is called
        /// at most once. The length is known where the head says it.
        case stream(length: Int?, @Sendable (_ send: @escaping Send) async throws -> HTTPFields?)
    }

    public var head: HTTPResponse
    public var body: Body

    public init(_ head: HTTPResponse, _ body: Body = .bytes(ByteBuffer())) {
        self.head = head
        self.body = body
    }

    /// The length of the body where it is known before it was sent.
    public var length: Int? {
        switch body {
        case .bytes(let bytes, _): bytes.readableBytes
        case .stream(let length, _): length
        }
    }
}

/// Why a handler has no answer. Any other error a handler throws counts as an answer with status 500.
public enum UpstreamFailure: Error {
    /// Nothing was sent: the connection was refused, or failed before the first byte was written. So nothing was applied.
    case notSent(String)
    /// It was lost after something was sent: whether it was applied is unknown. Answered with 504 after a time-out, else 502.
    case lost(String, timedOut: Bool)
}
