internal import NIOCore
internal import Semel

/// The end of one connection, to wait for: the client has closed it, or its sending half of it.
final class ConnectionEnd: Sendable {
    private struct State {
        var hasEnded = false
        var next: UInt64 = 0
        var waiters: [UInt64: AsyncStream<Never>.Continuation] = [:]
    }

    private let state = Locked(State())

    /// Returns when the connection has ended, or when the task is cancelled.
    func wait() async {
        let (stream, continuation) = AsyncStream<Never>.makeStream()
        let number: UInt64? = state.withLock { state in
            guard !state.hasEnded else { return nil }
            state.next += 1
            state.waiters[state.next] = continuation
            return state.next
        }
        guard let number else { return }
        for await _ in stream {}
        state.withLock { $0.waiters[number] = nil }
    }

    func end() {
        let waiters = state.withLock { state in
            state.hasEnded = true
            defer { state.waiters = [:] }
            return Array(state.waiters.values)
        }
        for waiter in waiters { waiter.finish() }
    }
}

/// Notices that the client went away while its request is being worked on.
final class ConnectionEndHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = NIOAny
    typealias InboundOut = NIOAny

    let end = ConnectionEnd()

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case ChannelEvent.inputClosed = event { end.end() }
        context.fireUserInboundEventTriggered(event)
    }

    func channelInactive(context: ChannelHandlerContext) {
        end.end()
        context.fireChannelInactive()
    }
}
