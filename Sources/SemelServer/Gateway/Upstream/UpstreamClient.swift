internal import AsyncHTTPClient
package import NIOCore
internal import NIOHTTP1
internal import NIOPosix
internal import NIOSSL
package import SemelHTTP
#if canImport(Glibc)
internal import Glibc
#elseif canImport(Darwin)
internal import Darwin
#endif

/// Sends requests to one upstream over HTTP/1.1, and knows of every failure whether anything was sent.
///
/// - Redirects are not followed, nothing is decompressed, target and method go out as they are.
/// - A failure is ``UpstreamFailure/notSent(_:)`` only when it is proven that not one byte of the request was handed to the
///   operating system; everything else is ``UpstreamFailure/lost(_:timedOut:)``.
/// - A kept connection that turns out to be closed is replaced, as long as nothing was sent.
///
/// Letting go of it closes its connections once the requests under way are through.
package final class UpstreamClient: Sendable {
    /// How many dead kept connections one request meets before it gives up.
    private static let attempts = 8

    package let upstream: Upstream
    private let http: HTTPClient
    private let registry: DispatchRegistry
    private let turnstile: Turnstile
    private let url: String

    /// - Throws: when the file of trusted authorities cannot be read.
    package init(_ upstream: Upstream, group: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton) throws {
        let registry = DispatchRegistry()
        var tls: TLSConfiguration?
        if upstream.transport == .https {
            var client = TLSConfiguration.makeClientConfiguration()
            if let roots = upstream.trustRoots { client.trustRoots = .certificates(try NIOSSLCertificate.fromPEMFile(roots)) }
            tls = client
        }
        var pool = HTTPClient.Configuration.ConnectionPool(
            idleTimeout: TimeAmount(upstream.idleTimeout), concurrentHTTP1ConnectionsPerHostSoftLimit: upstream.connections)
        // A refused connection is told at once: nothing was sent, and the client can try again.
        pool.retryConnectionEstablishment = false
        var configuration = HTTPClient.Configuration(
            tlsConfiguration: tls, redirectConfiguration: .disallow,
            timeout: .init(
                connect: TimeAmount(upstream.connectTimeout), read: TimeAmount(upstream.responseTimeout),
                write: TimeAmount(upstream.responseTimeout)),
            connectionPool: pool, decompression: .disabled)
        configuration.httpVersion = .http1Only
        configuration.http1_1ConnectionDebugInitializer = { channel in
            channel.eventLoop.makeCompletedFuture {
                try ReadBuffers.use(in: channel)
                let pipeline = channel.pipeline.syncOperations
                let witness = FirstByteWitness()
                let decoder = try pipeline.handler(type: ByteToMessageHandler<HTTPResponseDecoder>.self)
                try pipeline.addHandler(witness, position: .first)
                try pipeline.addHandler(DispatchHandler(registry: registry, witness: witness), position: .after(decoder))
            }
        }
        http = HTTPClient(eventLoopGroup: group, configuration: configuration)
        self.upstream = upstream
        self.registry = registry
        turnstile = Turnstile(places: upstream.connections, group: group)
        url = "\(upstream.transport.rawValue)://\(upstream.host.contains(":") ? "[\(upstream.host)]" : upstream.host):\(upstream.port)/"
    }

    deinit {
        http.shutdown { _ in }
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// Cancelling the task gives the request up; what was sent by then counts as lost.
    /// - Throws: ``UpstreamFailure``.
    package func send(_ request: UpstreamRequest) async throws(UpstreamFailure) -> UpstreamResponse {
        try await send(request, in: try await enter())
    }

    /// Waits until there may be one more request to the upstream. Cancelling the task does not end the wait.
    func enter() async throws(UpstreamFailure) -> Turnstile.Place {
        guard let place = await turnstile.enter(within: TimeAmount(upstream.responseTimeout)) else {
            throw .notSent("All \(upstream.connections) connections to upstream \(upstream.name) stayed busy.")
        }
        return place
    }

    /// As ``send(_:)``, for whoever has entered. The place is given back when the answer has ended, or is let go of.
    func send(_ request: UpstreamRequest, in place: Turnstile.Place) async throws(UpstreamFailure) -> UpstreamResponse {
        for attempt in 1... {
            let dispatch = Dispatch(request)
            do {
                return UpstreamResponse(try await execute(request, dispatch), to: dispatch, in: place, of: self)
            } catch {
                switch dispatch.conclude() {
                case .unsent where error.isClosedConnection && attempt < Self.attempts && !Task.isCancelled,
                    .abandoned where error.isClosedConnection && attempt < Self.attempts && !Task.isCancelled: continue
                case .waiting, .unsent, .abandoned: throw .notSent("Upstream \(upstream.name) did not take the request: \(error.plainText).")
                case .writing, .sent:
                    throw .lost("Upstream \(upstream.name) did not answer the request: \(error.plainText).", timedOut: error.isTimeout)
                }
            }
        }
        preconditionFailure("the loop ends by returning or throwing")
    }

    private func execute(_ request: UpstreamRequest, _ dispatch: Dispatch) async throws -> HTTPClientResponse {
        var outgoing = HTTPClientRequest(url: url)
        outgoing.method = request.method
        outgoing.headers = request.headers
        switch request.body {
        case .none: break
        case .bytes(let bytes): outgoing.body = .bytes(bytes)
        case .stream(let length, let begin):
            outgoing.body = .stream(
                DispatchedBody(dispatch: dispatch, begin: begin), length: length.map { .known(Int64($0)) } ?? .unknown)
        }
        let number = registry.add(dispatch)
        defer { registry.remove(number) }
        outgoing.headers.add(name: DispatchRegistry.field, value: String(number))
        // Time-outs are those of connecting, reading and writing: an answer may take as long as it goes on.
        return try await http.execute(outgoing, deadline: .distantFuture)
    }
}

extension Error {
    /// Whether a kept connection was found closed, rather than a new one refused.
    fileprivate var isClosedConnection: Bool {
        self as? ChannelError == .ioOnClosedChannel || self as? HTTPClientError == .remoteConnectionClosed
            || [ECONNRESET, EPIPE, ENOTCONN].contains((self as? IOError)?.errnoCode)
    }
}

/// A body that is not begun before the first byte of its request was sent: a request that was not sent can be tried again.
private struct DispatchedBody: AsyncSequence, Sendable {
    typealias Element = ByteBuffer

    let dispatch: Dispatch
    let begin: @Sendable () -> any AsyncIteratorProtocol<ByteBuffer, any Error>

    func makeAsyncIterator() -> Iterator { Iterator(sequence: self) }

    struct Iterator: AsyncIteratorProtocol {
        let sequence: DispatchedBody
        private var pieces: (any AsyncIteratorProtocol<ByteBuffer, any Error>)?

        init(sequence: DispatchedBody) { self.sequence = sequence }

        mutating func next() async throws -> ByteBuffer? {
            if pieces == nil {
                guard await sequence.dispatch.wasSent() else { throw ChannelError.ioOnClosedChannel }
                pieces = sequence.begin()
            }
            return try await pieces?.next(isolation: nil)
        }
    }
}
