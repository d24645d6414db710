package import NIOCore
package import NIOHTTP1
internal import SemelCore

/// A request as it came over a client's connection.
package struct InboundRequest: Sendable {
    package let head: HTTPRequestHead
    package let body: InboundBody
    /// The client's address, without its port.
    package let peer: String

    package init(head: HTTPRequestHead, body: InboundBody, peer: String) {
        self.head = head
        self.body = body
        self.peer = peer
    }
}

/// The body of a request, read from the connection as it is asked for: who does not ask holds the client back. It can be
/// read once.
///
/// A body that ends before its framing says throws ``RequestRefusal/truncated``: half a request is never taken for a whole.
package struct InboundBody: AsyncSequence, Sendable {
    package typealias Element = ByteBuffer
    package typealias Failure = any Error

    private let reader: Reader

    init(_ reader: Reader) {
        self.reader = reader
    }

    package func makeAsyncIterator() -> AsyncIterator { AsyncIterator(reader: reader) }

    package struct AsyncIterator: AsyncIteratorProtocol {
        fileprivate let reader: Reader

        package mutating func next() async throws -> ByteBuffer? { try await reader.next() }

        package mutating func next(isolation actor: isolated (any Actor)?) async throws(any Error) -> ByteBuffer? {
            try await reader.next()
        }
    }

    /// Reads one connection's parts, for one task at a time.
    ///
    /// Being Sendable needs no check: the iterator is touched only by whoever has set `isReading`.
    final class Reader: @unchecked Sendable {
        private struct State {
            var isFinished = true
            var isReading = false
            /// The client waits for a sign before it sends the body (RFC 9110, 10.1.1).
            var awaitsContinue = false
            /// What is left of a body whose length is known: its last byte ends it.
            var left: Int?
        }

        private var parts: NIOAsyncChannelInboundStream<HTTPServerRequestPart>.AsyncIterator
        private let outbound: NIOAsyncChannelOutboundWriter<HTTPServerResponsePart>
        private let state = Locked(State())

        init(
            _ parts: NIOAsyncChannelInboundStream<HTTPServerRequestPart>.AsyncIterator,
            _ outbound: NIOAsyncChannelOutboundWriter<HTTPServerResponsePart>
        ) {
            self.parts = parts
            self.outbound = outbound
        }

        var isFinished: Bool { state.withLock { $0.isFinished } }

        /// The next request's head; `nil` when the client has closed.
        func nextHead() async throws -> HTTPRequestHead? {
            while let part = try await parts.next() {
                // What is left of the body before.
                guard case .head(let head) = part else { continue }
                let length = head.headers.first(name: "content-length").flatMap { Int($0) }
                let isEmpty = length ?? 0 == 0 && !head.headers.contains(name: "transfer-encoding")
                let expects = head.version == .http1_1 && head.headers[canonicalForm: "expect"].contains { $0.lowercased() == "100-continue" }
                state.withLock { $0 = State(isFinished: isEmpty, awaitsContinue: expects && !isEmpty, left: length) }
                return head
            }
            return nil
        }

        func next() async throws -> ByteBuffer? {
            let (proceeds, continues) = state.withLock { state in
                guard !state.isFinished else { return (false, false) }
                precondition(!state.isReading, "two tasks read one request's body")
                state.isReading = true
                defer { state.awaitsContinue = false }
                return (true, state.awaitsContinue)
            }
            guard proceeds else { return nil }
            defer { state.withLock { $0.isReading = false } }
            if continues { try await outbound.write(.head(HTTPResponseHead(version: .http1_1, status: .continue))) }
            switch try await parts.next() {
            case .body(let buffer):
                state.withLock { state in
                    guard let left = state.left else { return }
                    state.left = left - buffer.readableBytes
                    state.isFinished = left <= buffer.readableBytes
                }
                return buffer
            case .end:
                state.withLock { $0.isFinished = true }
                return nil
            case .head, nil:
                throw RequestRefusal.truncated
            }
        }

        /// Reads and drops what is left of a body, when that is little and nobody else is at it. Returns whether the next
        /// request can follow.
        func skipRest(upTo limit: Int) async -> Bool {
            var skipped = 0
            while true {
                let (isFinished, isFree) = state.withLock { ($0.isFinished, !$0.isReading && !$0.awaitsContinue) }
                if isFinished { return true }
                guard isFree, skipped <= limit, let buffer = try? await next() else { return self.isFinished }
                skipped += buffer.readableBytes
            }
        }
    }
}
