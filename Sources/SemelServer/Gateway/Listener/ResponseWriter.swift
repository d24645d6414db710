package import NIOCore
package import NIOHTTP1

/// Writes the answer to one request: a head, a body, an end. A write waits while the client takes no more.
///
/// One task at a time uses it. That is why being Sendable needs no check.
package final class ResponseWriter: @unchecked Sendable {
    private enum State { case fresh, streaming, finished }

    private let outbound: NIOAsyncChannelOutboundWriter<HTTPServerResponsePart>
    private let reader: InboundBody.Reader
    private let isHead: Bool
    private let takesInterim: Bool
    private var state = State.fresh

    init(_ outbound: NIOAsyncChannelOutboundWriter<HTTPServerResponsePart>, _ reader: InboundBody.Reader, to head: HTTPRequestHead) {
        self.outbound = outbound
        self.reader = reader
        isHead = head.method == .HEAD
        takesInterim = head.version == .http1_1
    }

    package var hasBegun: Bool { state != .fresh }
    package var isFinished: Bool { state == .finished }

    /// Whether a response with this status to this request has a body at all (RFC 9112, 6.3).
    package func mayHaveBody(_ status: HTTPResponseStatus) -> Bool { !isHead && status.mayHaveResponseBody }

    /// Sends a whole response in one write.
    package func send(_ status: HTTPResponseStatus, _ headers: HTTPHeaders, _ body: ByteBuffer) async throws {
        state = .finished
        var headers = headers
        if status.mayHaveResponseBody && !headers.contains(name: "content-length") {
            headers.add(name: "content-length", value: String(body.readableBytes))
        }
        let head = HTTPServerResponsePart.head(await prepared(status, headers))
        if mayHaveBody(status) && body.readableBytes > 0 {
            try await outbound.write(contentsOf: [head, .body(.byteBuffer(body)), .end(nil)])
        } else {
            try await outbound.write(contentsOf: [head, .end(nil)])
        }
    }

    /// An answer before the answer, such as 103. HTTP/1.0 knows none (RFC 9110, 15.2).
    package func sendInterim(_ status: HTTPResponseStatus, _ headers: HTTPHeaders) async throws {
        guard takesInterim, state == .fresh else { return }
        try await outbound.write(.head(HTTPResponseHead(version: .http1_1, status: status, headers: headers)))
    }

    package func begin(_ status: HTTPResponseStatus, _ headers: HTTPHeaders) async throws {
        state = .streaming
        try await outbound.write(.head(await prepared(status, headers)))
    }

    package func write(_ body: ByteBuffer) async throws {
        try await outbound.write(.body(.byteBuffer(body)))
    }

    package func finish(_ trailers: HTTPHeaders? = nil) async throws {
        state = .finished
        try await outbound.write(.end(trailers.flatMap { $0.isEmpty ? nil : $0 }))
    }

    /// A body that its sender was not let finish leaves no place for a next request. Neither does one that is too large: its
    /// sender is told at once, however much more it means to send.
    private func prepared(_ status: HTTPResponseStatus, _ headers: HTTPHeaders) async -> HTTPResponseHead {
        var head = HTTPResponseHead(version: .http1_1, status: status, headers: headers)
        let mayRead = state == .finished && status != .payloadTooLarge
        let canFollow = mayRead ? await reader.skipRest(upTo: 64 << 10) : reader.isFinished
        if !canFollow { head.headers.replaceOrAdd(name: "connection", value: "close") }
        return head
    }
}

extension HTTPResponseStatus {
    /// 1xx, 204 and 304 end with their header section (RFC 9112, 6.3). A 205 does not, though it has no content: it says so
    /// with a length of 0 (RFC 9110, 15.3.6), as any other empty response does.
    package var mayHaveResponseBody: Bool { code >= 200 && code != 204 && code != 304 }
}
