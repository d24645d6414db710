internal import NIOCore
internal import NIOPosix
internal import Semel

/// A TCP proxy in front of a server on this machine, whose connections a test can cut or make lossy.
public final class TestProxy: Sendable {
    fileprivate struct Faults {
        var dropsReplies = false
        /// Cut each connection after so many bytes of replies.
        var replyBytes: Int?
        /// Connections are refused.
        var isDown = false
        var repliesDropped = 0
        var cuts = 0
        var live: [ObjectIdentifier: any Channel] = [:]
    }

    public let port: Int
    private let listener: any Channel
    private let faults: Locked<Faults>

    /// Listens on a free port, and passes everything on to `target` on 127.0.0.1.
    public init(to target: Int) async throws {
        let faults = Locked(Faults())
        let group = MultiThreadedEventLoopGroup.singleton
        let listener = try await ServerBootstrap(group: group)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.socketOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { client in
                if faults.withLock({ $0.isDown }) { return client.close() }
                // Both ends on one event loop: what each does to the other needs no lock.
                return ClientBootstrap(group: client.eventLoop)
                    .channelOption(.socketOption(.tcp_nodelay), value: 1)
                    .connect(host: "127.0.0.1", port: target)
                    .flatMapThrowing { server in
                        faults.withLock {
                            $0.live[ObjectIdentifier(client)] = client
                            $0.live[ObjectIdentifier(server)] = server
                        }
                        try client.pipeline.syncOperations.addHandler(Pass(to: server, isReply: false, faults))
                        try server.pipeline.syncOperations.addHandler(Pass(to: client, isReply: true, faults))
                    }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        guard let port = listener.localAddress?.port else { throw ChannelError.unknownLocalAddress }
        self.port = port
        self.listener = listener
        self.faults = faults
    }

    deinit {
        listener.close(promise: nil)
        cut()
    }

    /// Cuts every connection that is open now; new ones are let through.
    public func cut() {
        let live = faults.withLock { faults in
            defer { faults.live = [:] }
            return Array(faults.live.values)
        }
        for channel in live { channel.close(promise: nil) }
    }

    /// From now on what the server answers never arrives; what is sent to it does.
    public func dropReplies() { faults.withLock { $0.dropsReplies = true } }

    /// Cuts the connection, once, after so many more bytes of replies.
    public func cutReplies(after bytes: Int) { faults.withLock { $0.replyBytes = bytes } }

    /// Refuses connections, and cuts those that are open.
    public func goDown() {
        faults.withLock { $0.isDown = true }
        cut()
    }

    /// Lets everything through again.
    public func heal() {
        faults.withLock { faults in
            faults.dropsReplies = false
            faults.replyBytes = nil
            faults.isDown = false
        }
    }

    /// How many pieces of replies were thrown away: a test of a lost reply must see some.
    public var repliesDropped: Int { faults.withLock { $0.repliesDropped } }

    /// How many connections were cut in mid-reply.
    public var cuts: Int { faults.withLock { $0.cuts } }

    private final class Pass: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer

        private let other: any Channel
        private let isReply: Bool
        private let faults: Locked<Faults>

        init(to other: any Channel, isReply: Bool, _ faults: Locked<Faults>) {
            self.other = other
            self.isReply = isReply
            self.faults = faults
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            var buffer = unwrapInboundIn(data)
            guard isReply else { return other.writeAndFlush(buffer, promise: nil) }
            let (isDropped, isLast): (Bool, Bool) = faults.withLock { faults in
                if faults.dropsReplies {
                    faults.repliesDropped += 1
                    return (true, false)
                }
                guard let left = faults.replyBytes else { return (false, false) }
                if buffer.readableBytes < left {
                    faults.replyBytes = left - buffer.readableBytes
                    return (false, false)
                }
                faults.replyBytes = nil
                faults.cuts += 1
                return (false, true)
            }
            if isDropped { return }
            if isLast {
                // Half of what came: the reply breaks off in its midst.
                buffer = buffer.readSlice(length: buffer.readableBytes / 2) ?? buffer
                let other = other
                other.writeAndFlush(buffer).whenComplete { _ in other.close(promise: nil) }
                context.close(promise: nil)
                return
            }
            other.writeAndFlush(buffer, promise: nil)
        }

        func channelInactive(context: ChannelHandlerContext) {
            faults.withLock { $0.live[ObjectIdentifier(context.channel)] = nil }
            other.close(promise: nil)
            context.fireChannelInactive()
        }
    }
}
