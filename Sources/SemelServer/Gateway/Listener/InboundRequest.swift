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
/// So does one whose rest the connection has dropped, because the request was answered without it.
package struct InboundBody: AsyncSequence, Sendable {
    package typealias Element = ByteBuffer
    package typealias Failure = any Error

    private let reader: Reader
    private let progress: Reader.Progress

    /// The body of the request whose head was read last.
    init(_ reader: Reader) {
        self.reader = reader
        progress = reader.current
    }

    /// The fields behind the body (RFC 9110, 6.5), once its end was read.
    package var trailers: HTTPHeaders? { progress.state.withLock { $0.trailers } }

    package func makeAsyncIterator() -> AsyncIterator { AsyncIterator(reader: reader, progress: progress) }

    package struct AsyncIterator: AsyncIteratorProtocol {
        fileprivate let reader: Reader
        fileprivate let progress: Reader.Progress

        package mutating func next() async throws -> ByteBuffer? { try await reader.next(of: progress, as: .answerer) }

        package mutating func next(isolation actor: isolated (any Actor)?) async throws(any Error) -> ByteBuffer? {
            try await reader.next(of: progress, as: .answerer)
        }
    }

    /// Reads one connection's parts, for one task at a time.
    ///
    /// Being Sendable needs no check: the iterator is touched only by whoever has set `isReading` of the current request,
    /// and by ``nextHead()``, which is not called before that request's body has ended.
    final class Reader: @unchecked Sendable {
        /// Who reads a body: whoever answers the request, or the connection, to get rid of the rest.
        enum Role { case answerer, connection }

        /// How far one request's body was read. It outlives the request: an upstream may answer before it has taken the
        /// body, and whoever was sending that must then not read on into the next request.
        final class Progress: Sendable {
            struct State {
                var isFinished = true
                var isReading = false
                /// The first who reads a body is the only one.
                var owner: Role?
                /// The client waits for a sign before it sends the body (RFC 9110, 10.1.1).
                var awaitsContinue = false
                /// What is left of a body whose length is known: its last byte ends it.
                var left: Int?
                var trailers: HTTPHeaders?
            }

            let state: Locked<State>

            init(_ state: State = State()) { self.state = Locked(state) }
        }

        private var parts: NIOAsyncChannelInboundStream<HTTPServerRequestPart>.AsyncIterator
        private let outbound: NIOAsyncChannelOutboundWriter<HTTPServerResponsePart>
        private let latest = Locked(Progress())

        init(
            _ parts: NIOAsyncChannelInboundStream<HTTPServerRequestPart>.AsyncIterator,
            _ outbound: NIOAsyncChannelOutboundWriter<HTTPServerResponsePart>
        ) {
            self.parts = parts
            self.outbound = outbound
        }

        var current: Progress { latest.withLock { $0 } }
        var isFinished: Bool { current.state.withLock { $0.isFinished } }

        /// The next request's head; `nil` when the client has closed.
        func nextHead() async throws -> HTTPRequestHead? {
            while let part = try await parts.next() {
                // What is left of the body before.
                guard case .head(let head) = part else { continue }
                let length = head.headers.first(name: "content-length").flatMap { Int($0) }
                let isEmpty = length ?? 0 == 0 && !head.headers.contains(name: "transfer-encoding")
                let expects = head.version == .http1_1 && head.headers[canonicalForm: "expect"].contains { $0.lowercased() == "100-continue" }
                let progress = Progress(.init(isFinished: isEmpty, awaitsContinue: expects && !isEmpty, left: length))
                latest.withLock { $0 = progress }
                return head
            }
            return nil
        }

        func next(of progress: Progress, as role: Role) async throws -> ByteBuffer? {
            let (isFinished, continues) = try progress.state.withLock { state in
                // Who comes late to a body that is dropped must not take the end of the dropping for the end of the body.
                guard (state.owner ?? role) == role, !state.isReading else { throw RequestRefusal.truncated }
                guard !state.isFinished else { return (true, false) }
                state.owner = role
                state.isReading = true
                defer { state.awaitsContinue = false }
                return (false, state.awaitsContinue)
            }
            guard !isFinished else { return nil }
            defer { progress.state.withLock { $0.isReading = false } }
            if continues { try await outbound.write(.head(HTTPResponseHead(version: .http1_1, status: .continue))) }
            switch try await parts.next() {
            case .body(let buffer):
                progress.state.withLock { state in
                    guard let left = state.left else { return }
                    state.left = left - buffer.readableBytes
                    state.isFinished = left <= buffer.readableBytes
                }
                return buffer
            case .end(let trailers):
                progress.state.withLock { state in
                    state.isFinished = true
                    state.trailers = trailers
                }
                return nil
            case .head, nil:
                throw RequestRefusal.truncated
            }
        }

        /// Reads and drops a body that nobody has begun to read, when that is little. Returns whether the next request can
        /// follow.
        func skipRest(upTo limit: Int) async -> Bool {
            let progress = current
            let isLittle = progress.state.withLock { state in
                state.owner == nil && !state.awaitsContinue && state.left ?? 0 <= limit
            }
            guard isLittle else { return isFinished }
            var skipped = 0
            while skipped <= limit, let buffer = try? await next(of: progress, as: .connection) { skipped += buffer.readableBytes }
            return isFinished
        }
    }
}
