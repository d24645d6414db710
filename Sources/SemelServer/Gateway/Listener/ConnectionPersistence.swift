internal import NIOCore
internal import NIOHTTP1

/// Decides where an answer ends and how long a client's connection lives (RFC 9112, 6 and 9): framing, `Connection: close`,
/// HTTP/1.0, idle time, and draining.
///
/// An ending connection is closed for writing first, and read a little longer: a client that is still sending would
/// otherwise lose the answer to a reset.
final class ConnectionPersistence: ChannelDuplexHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias InboundOut = HTTPServerRequestPart
    typealias OutboundIn = HTTPServerResponsePart
    typealias OutboundOut = HTTPServerResponsePart

    private struct Request {
        let version: HTTPVersion
        let isHead: Bool
        let keepsAlive: Bool
    }

    static let lingering = TimeAmount.seconds(2)

    private let idleTimeout: TimeAmount
    /// Those that were read and not yet answered, oldest first.
    private var requests = CircularBuffer<Request>(initialCapacity: 2)
    private var isReadingRequest = false
    /// The last request that will be read has been.
    private var takesNoMore = false
    private var isDraining = false
    private var closesAfterAnswer = false
    private var isClosing = false
    private var lastRead = NIODeadline.now()
    /// Since when the client takes no more of an answer.
    private var stuckSince: NIODeadline?
    private var idleCheck: Scheduled<Void>?

    init(idleTimeout: TimeAmount) {
        self.idleTimeout = idleTimeout
    }

    func handlerAdded(context: ChannelHandlerContext) { scheduleIdleCheck(context, after: idleTimeout) }

    func handlerRemoved(context: ChannelHandlerContext) { idleCheck?.cancel() }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        lastRead = .now()
        guard !takesNoMore || isReadingRequest else { return }
        switch unwrapInboundIn(data) {
        case .head(let head):
            requests.append(Request(version: head.version, isHead: head.method == .HEAD, keepsAlive: head.isKeepAlive))
            isReadingRequest = true
            takesNoMore = !head.isKeepAlive
        case .body: break
        case .end: isReadingRequest = false
        }
        context.fireChannelRead(data)
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        context.fireChannelReadComplete()
        if isClosing { context.read() }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        stuckSince = context.channel.isWritable ? nil : .now()
        context.fireChannelWritabilityChanged()
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        switch unwrapOutboundIn(data) {
        case .head(var head):
            guard head.status.code >= 200, let request = requests.first else { return context.write(data, promise: promise) }
            let isDelimited = Self.frame(&head, as: request)
            closesAfterAnswer =
                !request.keepsAlive || !isDelimited || (isDraining && requests.count == 1)
                || head.headers[canonicalForm: "connection"].contains { $0.lowercased() == "close" }
            head.headers.remove(name: "connection")
            if closesAfterAnswer {
                head.headers.add(name: "connection", value: "close")
            } else if request.version == .http1_0 {
                head.headers.add(name: "connection", value: "keep-alive")
            }
            context.write(wrapOutboundOut(.head(head)), promise: promise)
        case .body:
            context.write(data, promise: promise)
        case .end:
            if !requests.isEmpty { requests.removeFirst() }
            guard closesAfterAnswer || (isDraining && requests.isEmpty) else { return context.write(data, promise: promise) }
            context.writeAndFlush(data, promise: promise)
            closeGently(context)
        }
    }

    /// Sets the fields that frame the body (RFC 9112, 6.3). Returns whether its end shows before the connection's.
    private static func frame(_ head: inout HTTPResponseHead, as request: Request) -> Bool {
        head.version = request.version
        head.headers.remove(name: "transfer-encoding")
        guard head.status.mayHaveResponseBody else {
            if head.status != .notModified { head.headers.remove(name: "content-length") }
            return true
        }
        if request.isHead || head.headers.contains(name: "content-length") { return true }
        guard request.version != .http1_0 else { return false }
        head.headers.add(name: "transfer-encoding", value: "chunked")
        return true
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard event is ChannelShouldQuiesceEvent else { return context.fireUserInboundEventTriggered(event) }
        isDraining = true
        if requests.isEmpty { context.close(promise: nil) }
    }

    private func closeGently(_ context: ChannelHandlerContext) {
        isClosing = true
        takesNoMore = true
        context.close(mode: .output, promise: nil)
        let channel = context.channel
        context.eventLoop.scheduleTask(in: Self.lingering) { channel.close(promise: nil) }
        context.read()
    }

    /// A client that is silent while something is expected of it, or takes nothing of an answer, is let go of after the idle
    /// time: it would hold a connection to an upstream for as long.
    ///
    /// One timer for each connection, that looks now and then, instead of one that is moved with every read.
    private func scheduleIdleCheck(_ context: ChannelHandlerContext, after delay: TimeAmount) {
        idleCheck = context.eventLoop.assumeIsolatedUnsafeUnchecked().scheduleTask(in: delay) { [self] in
            let now = NIODeadline.now()
            let quiet = now - lastRead
            // While a request is answered its client has nothing to say.
            let isWaiting = requests.isEmpty || isReadingRequest
            let isStuck = stuckSince.map { now - $0 >= idleTimeout } ?? false
            if isStuck || (isWaiting && quiet >= idleTimeout) {
                context.close(promise: nil)
            } else {
                scheduleIdleCheck(context, after: isWaiting ? idleTimeout - quiet : idleTimeout)
            }
        }
    }
}
