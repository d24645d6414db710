#if canImport(Glibc)
internal import Glibc
#endif
internal import NIOCore
internal import NIOHTTP1

/// Stands between the HTTP client and its codec in every connection to an upstream: writes each request with its exact
/// target and its trailers, and only if it is still wanted and the connection still stands; tells of answers before the
/// answer, and keeps the answer's trailers.
final class DispatchHandler: ChannelDuplexHandler {
    typealias InboundIn = HTTPClientResponsePart
    typealias InboundOut = HTTPClientResponsePart
    typealias OutboundIn = HTTPClientRequestPart
    typealias OutboundOut = HTTPClientRequestPart

    private let registry: DispatchRegistry
    private let witness: FirstByteWitness
    /// The one that is being written, and the one that is being answered: an upstream may answer first.
    private var outgoing: Dispatch?
    private var current: Dispatch?
    private var isClosed = false

    init(registry: DispatchRegistry, witness: FirstByteWitness) {
        self.registry = registry
        self.witness = witness
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        guard !isClosed else {
            promise?.fail(ChannelError.ioOnClosedChannel)
            return
        }
        switch unwrapOutboundIn(data) {
        case .head(var head):
            guard let number = head.headers.first(name: DispatchRegistry.field).flatMap({ UInt64($0) }),
                let dispatch = registry.remove(number), dispatch.begin()
            else { return refuse(context, promise) }
            guard Self.stands(context.channel) else {
                dispatch.settle(sent: false)
                return refuse(context, promise)
            }
            head.headers.remove(name: DispatchRegistry.field)
            head.uri = dispatch.request.target
            (outgoing, current) = (dispatch, dispatch)
            witness.expect(dispatch)
            context.write(wrapOutboundOut(.head(head)), promise: promise)
        case .body:
            context.write(data, promise: promise)
        case .end(let trailers):
            let request = outgoing?.request
            outgoing = nil
            let end = wrapOutboundOut(.end(request?.trailers?() ?? trailers))
            guard let onWritten = request?.onWritten else { return context.write(end, promise: promise) }
            let written = context.eventLoop.makePromise(of: Void.self)
            written.futureResult.whenSuccess(onWritten)
            written.futureResult.cascade(to: promise)
            context.write(end, promise: written)
        }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head) where head.status.code < 200 && head.status != .switchingProtocols:
            current?.request.onInterim?(head.status, head.headers)
        case .head, .body: break
        case .end(let trailers):
            if let trailers { current?.keep(trailers) }
            current = nil
        }
        context.fireChannelRead(data)
    }

    private func refuse(_ context: ChannelHandlerContext, _ promise: EventLoopPromise<Void>?) {
        isClosed = true
        promise?.fail(ChannelError.ioOnClosedChannel)
        // Not now: the client is in the middle of starting the request.
        let channel = context.channel
        context.eventLoop.execute { channel.close(promise: nil) }
    }

    /// Whether the peer has not closed its side: asked of the kernel, which knows before the event loop does.
    private static func stands(_ channel: any Channel) -> Bool {
        #if os(Linux)
        guard let socket = channel as? any SocketOptionProvider else { return true }
        nonisolated(unsafe) var stands = true
        // Answered at once on the event loop.
        socket.getTCPInfo().whenSuccess { info in stands = info.tcpi_state == Self.established }
        return stands
        #else
        return true
        #endif
    }

    /// `TCP_ESTABLISHED` of netinet/tcp.h.
    private static let established: UInt8 = 1
}

/// Stands next to the socket and sees the first byte of each request go: it is written by itself, so whether it was is
/// known, whatever becomes of the rest.
final class FirstByteWitness: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = IOData
    typealias OutboundOut = IOData

    private var expected: Dispatch?

    func expect(_ dispatch: Dispatch) { expected = dispatch }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        guard let dispatch = expected, case .byteBuffer(var bytes) = unwrapOutboundIn(data), let first = bytes.readSlice(length: 1) else {
            return context.write(data, promise: promise)
        }
        expected = nil
        let firstWritten = context.eventLoop.makePromise(of: Void.self)
        firstWritten.futureResult.whenComplete { result in
            switch result {
            case .success: dispatch.settle(sent: true)
            case .failure: dispatch.settle(sent: false)
            }
        }
        context.write(wrapOutboundOut(.byteBuffer(first)), promise: firstWritten)
        context.write(wrapOutboundOut(.byteBuffer(bytes)), promise: promise)
    }

    func channelInactive(context: ChannelHandlerContext) {
        // Held back by encryption and never flushed: nothing left this machine.
        expected?.settle(sent: false)
        expected = nil
        context.fireChannelInactive()
    }
}
