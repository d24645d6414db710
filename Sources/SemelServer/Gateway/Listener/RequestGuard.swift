internal import NIOCore

/// Stands before the HTTP decoder and lets through only requests that nobody can read differently (``RequestFraming``).
///
/// A refusal travels down the pipeline as an error, behind the requests that came before it on the connection: it is
/// answered after them. From then on the connection's bytes are read and dropped, so the client gets to see the answer.
final class RequestGuard: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer

    private var framing = RequestFraming()
    private var hasRefused = false

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !hasRefused else { return }
        let verdict = framing.receive(unwrapInboundIn(data))
        hasRefused = verdict.refusal != nil
        if verdict.accepted.readableBytes > 0 { context.fireChannelRead(wrapInboundOut(verdict.accepted)) }
        if let refusal = verdict.refusal { context.fireErrorCaught(refusal) }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        context.fireChannelReadComplete()
        // Nobody behind asks for more any longer.
        if hasRefused { context.read() }
    }
}
