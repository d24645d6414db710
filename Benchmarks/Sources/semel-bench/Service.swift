import NIOCore
import NIOHTTP1
import NIOPosix
import Semel

/// What stands behind a gateway under measurement: it answers every request with 201, at once or once it may.
struct Service: Sendable {
    private struct State {
        var isOpen: Bool
        var taken = 0
        var waiting: [@Sendable () -> Void] = []
    }

    let port: Int
    private let channel: any Channel
    private let state: Locked<State>

    /// - Parameter isOpen: whether it answers before ``open()``.
    static func start(isOpen: Bool = true) async throws -> Service {
        let state = Locked(State(isOpen: isOpen))
        let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.backlog, value: 4096)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline(withPipeliningAssistance: false)
                    try channel.pipeline.syncOperations.addHandler(Handler(state: state))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        return Service(port: channel.localAddress?.port ?? 0, channel: channel, state: state)
    }

    /// How many requests it has taken whole.
    var taken: Int { state.withLock { $0.taken } }

    /// Answers those that wait, and from now on every one at once.
    func open() {
        let waiting = state.withLock { state in
            state.isOpen = true
            defer { state.waiting = [] }
            return state.waiting
        }
        for answer in waiting { answer() }
    }

    func stop() async throws { try await channel.close().get() }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = HTTPServerRequestPart
        typealias OutboundOut = HTTPServerResponsePart

        let state: Locked<State>

        init(state: Locked<State>) { self.state = state }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            guard case .end = unwrapInboundIn(data) else { return }
            let channel = context.channel
            let isOpen = state.withLock { state in
                state.taken += 1
                if !state.isOpen { state.waiting.append { channel.eventLoop.execute { Self.answer(channel) } } }
                return state.isOpen
            }
            if isOpen { Self.answer(channel) }
        }

        private static func answer(_ channel: any Channel) {
            let head = HTTPResponseHead(version: .http1_1, status: .created, headers: ["content-type": "text/plain", "content-length": "4"])
            channel.write(HTTPServerResponsePart.head(head), promise: nil)
            channel.write(HTTPServerResponsePart.body(.byteBuffer(ByteBuffer(string: "made"))), promise: nil)
            channel.writeAndFlush(HTTPServerResponsePart.end(nil), promise: nil)
        }
    }
}
