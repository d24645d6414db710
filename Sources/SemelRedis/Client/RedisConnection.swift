internal import NIOCore
internal import NIOPosix
internal import NIOSSL
internal import Semel

/// One live connection: commands go out in the order they were sent, replies come back in it.
///
/// Commands of concurrent callers gather while the event loop is busy and leave in one write, so nobody waits for a timer
/// and many share a system call. When the connection ends, every command that was written and not answered is *lost*; one
/// that was still gathering is *not sent*. Nothing is ever sent twice.
final class RedisConnection: Sendable {
    typealias Reply = Result<RESPValue, RedisFailure>

    /// Who waits for the replies to what was sent.
    enum Sink {
        case one(UnsafeContinuation<Reply, Never>)
        case many(Collector)
        /// The reply is of no interest.
        case none
    }

    /// The replies to a batch, in order, for one caller.
    final class Collector: Sendable {
        private let state: Locked<(replies: [Reply], missing: Int)>
        private let continuation: UnsafeContinuation<[Reply], Never>

        init(_ count: Int, _ continuation: UnsafeContinuation<[Reply], Never>) {
            state = Locked(([], count))
            self.continuation = continuation
        }

        func take(_ reply: Reply) {
            let whole: [Reply]? = state.withLock { state in
                state.replies.append(reply)
                state.missing -= 1
                return state.missing == 0 ? state.replies : nil
            }
            if let whole { continuation.resume(returning: whole) }
        }
    }

    fileprivate struct Outbox {
        var buffer = ByteBuffer()
        var sinks: [Sink] = []
        var isScheduled = false
        var end: RedisFailure?
    }

    private let outbox: Locked<Outbox>
    private let channel: any Channel
    private let handler: Handler

    private init(channel: any Channel, handler: Handler) {
        self.channel = channel
        self.handler = handler
        outbox = handler.outbox
    }

    deinit { channel.close(promise: nil) }

    /// - Parameters:
    ///   - patience: how long the server may leave commands unanswered before the connection counts as dead.
    ///   - onPush: takes what the server sends unasked; a connection without it expects none.
    ///   - onEnd: called once, when the connection has ended, with the reason.
    static func connect(
        to endpoint: RedisLocation.Endpoint, tls: NIOSSLContext?, group: any EventLoopGroup, patience: Duration,
        onPush: (@Sendable ([RESPValue]) -> Void)? = nil, onEnd: @escaping @Sendable (RedisFailure) -> Void = { _ in }
    ) async throws -> RedisConnection {
        let patience = TimeAmount.nanoseconds(max(1, patience.microseconds) * 1000)
        return try await ClientBootstrap(group: group)
            .connectTimeout(patience)
            .channelOption(.socketOption(.tcp_nodelay), value: 1)
            .channelOption(.socketOption(.so_keepalive), value: 1)
            .connect(host: endpoint.host, port: endpoint.port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    if let tls {
                        // A certificate for an address is checked against the address itself.
                        let isAddress = (try? SocketAddress(ipAddress: endpoint.host, port: 0)) != nil
                        try channel.pipeline.syncOperations.addHandler(
                            NIOSSLClientHandler(context: tls, serverHostname: isAddress ? nil : endpoint.host))
                    }
                    let handler = Handler(patience: patience, onPush: onPush, onEnd: onEnd)
                    try channel.pipeline.syncOperations.addHandler(handler)
                    return RedisConnection(channel: channel, handler: handler)
                }
            }
    }

    func send(_ command: RedisCommand) async -> Reply {
        await withUnsafeContinuation { continuation in
            if let end = enqueue(command.bytes, .one(continuation)) { continuation.resume(returning: .failure(end)) }
        }
    }

    /// Sends commands as one write; nothing else comes between them.
    func send(_ commands: [RedisCommand]) async -> [Reply] {
        guard !commands.isEmpty else { return [] }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(commands.reduce(0) { $0 + $1.bytes.count })
        for command in commands { bytes.append(contentsOf: command.bytes) }
        return await withUnsafeContinuation { continuation in
            let collector = Collector(commands.count, continuation)
            if let end = enqueue(bytes, .many(collector), count: commands.count) {
                for _ in commands { collector.take(.failure(end)) }
            }
        }
    }

    /// Sends a command whose confirmation is a push, not a reply.
    func sendWithoutReply(_ command: RedisCommand) {
        _ = enqueue(command.bytes, .none, count: 0)
    }

    func close() { channel.close(promise: nil) }

    /// Why nothing can be sent any more, if so.
    var ending: RedisFailure? { outbox.withLock { $0.end } }

    /// - Returns: why nothing can be sent any more, if so.
    private func enqueue(_ bytes: [UInt8], _ sink: Sink, count: Int = 1) -> RedisFailure? {
        enum Step {
            case gathered, first
            case ended(RedisFailure)
        }
        let step: Step = outbox.withLock { outbox in
            if let end = outbox.end { return .ended(end) }
            outbox.buffer.writeBytes(bytes)
            for _ in 0..<count { outbox.sinks.append(sink) }
            if outbox.isScheduled { return .gathered }
            outbox.isScheduled = true
            return .first
        }
        switch step {
        case .gathered: return nil
        case .ended(let end): return .notSent(end.description)
        case .first:
            let handler = handler
            channel.eventLoop.execute { handler.flush() }
            return nil
        }
    }

    // Sendable is unchecked because all of its state but the outbox is touched by the channel's event loop only.
    private final class Handler: ChannelInboundHandler, @unchecked Sendable {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer

        let outbox = Locked(Outbox())
        private let patience: TimeAmount
        private let onPush: (@Sendable ([RESPValue]) -> Void)?
        private let onEnd: @Sendable (RedisFailure) -> Void
        private var context: ChannelHandlerContext?
        private var parser = RESPParser()
        private var unanswered = CircularBuffer<Sink>()
        /// Since when the server owes a reply and has sent nothing.
        private var silentSince: NIODeadline?
        private var watch: RepeatedTask?
        private var failure: String?

        init(patience: TimeAmount, onPush: (@Sendable ([RESPValue]) -> Void)?, onEnd: @escaping @Sendable (RedisFailure) -> Void) {
            self.patience = patience
            self.onPush = onPush
            self.onEnd = onEnd
        }

        func handlerAdded(context: ChannelHandlerContext) {
            self.context = context
            let interval = TimeAmount.nanoseconds(max(1_000_000, patience.nanoseconds / 4))
            watch = context.eventLoop.scheduleRepeatedTask(initialDelay: interval, delay: interval) { [weak self] _ in
                self?.checkSilence()
            }
        }

        func flush() {
            let (buffer, sinks): (ByteBuffer, [Sink]) = outbox.withLock { outbox in
                outbox.isScheduled = false
                let sinks = outbox.sinks
                let buffer = outbox.buffer
                outbox.sinks = []
                outbox.buffer = ByteBuffer()
                return (buffer, sinks)
            }
            guard let context, buffer.readableBytes > 0 else {
                for sink in sinks { Self.answer(sink, .failure(.notSent(failure ?? "the connection has ended"))) }
                return
            }
            unanswered.append(contentsOf: sinks)
            if silentSince == nil, !unanswered.isEmpty { silentSince = .now() }
            context.writeAndFlush(wrapOutboundOut(buffer), promise: nil)
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let buffer = unwrapInboundIn(data)
            buffer.withUnsafeReadableBytes { parser.append($0) }
            do {
                while let value = try parser.next() { take(value) }
            } catch {
                end("the server does not speak Redis' protocol: \(error)")
                return
            }
            silentSince = unanswered.isEmpty ? nil : .now()
        }

        private func take(_ value: RESPValue) {
            if case .push(let elements) = value {
                onPush?(elements)
            } else if let onPush, let elements = value.elements, Self.isMessage(elements) {
                // The second version of the protocol has no type of its own for what comes unasked.
                onPush(elements)
            } else if let sink = unanswered.popFirst() {
                Self.answer(sink, .success(value))
            } else if onPush == nil {
                end("the server sent a reply to nothing that was asked")
            }
        }

        private static func isMessage(_ elements: [RESPValue]) -> Bool {
            ["message", "pmessage", "smessage", "subscribe", "psubscribe", "ssubscribe", "unsubscribe", "punsubscribe"]
                .contains(elements.first?.text ?? "")
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            end(error is NIOSSLError || error is BoringSSLError ? "TLS: \(error)" : "\(error)")
        }

        func channelInactive(context: ChannelHandlerContext) {
            finish()
        }

        func handlerRemoved(context: ChannelHandlerContext) {
            finish()
        }

        private func checkSilence() {
            guard let silentSince, NIODeadline.now() - silentSince > patience else { return }
            end("the server has not answered for \(patience.nanoseconds / 1_000_000) ms")
        }

        private func end(_ why: String) {
            failure = failure ?? why
            context?.close(promise: nil)
        }

        private func finish() {
            guard context != nil else { return }
            context = nil
            watch?.cancel()
            let why = failure ?? "the server closed the connection"
            let gathered: [Sink] = outbox.withLock { outbox in
                outbox.end = .notSent(why)
                let sinks = outbox.sinks
                outbox.sinks = []
                outbox.buffer = ByteBuffer()
                return sinks
            }
            let lost = unanswered
            unanswered = []
            onEnd(.lost(why))
            for sink in lost { Self.answer(sink, .failure(.lost(why))) }
            for sink in gathered { Self.answer(sink, .failure(.notSent(why))) }
        }

        private static func answer(_ sink: Sink, _ reply: Reply) {
            switch sink {
            case .one(let continuation): continuation.resume(returning: reply)
            case .many(let collector): collector.take(reply)
            case .none: break
            }
        }
    }
}
