import NIOCore
import NIOPosix

/// A connection on which a test says exactly the bytes it wants, which a client library would put right.
struct RawClient {
    let channel: NIOAsyncChannel<ByteBuffer, ByteBuffer>

    /// Connects, and closes the connection when `body` is done.
    static func with<Result>(port: Int, _ body: (inout Connection) async throws -> Result) async throws -> Result {
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connect(host: "127.0.0.1", port: port) { channel in
                channel.eventLoop.makeCompletedFuture { try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel) }
            }
        return try await channel.executeThenClose { inbound, outbound in
            var connection = Connection(channel: channel.channel, iterator: inbound.makeAsyncIterator(), outbound: outbound)
            return try await body(&connection)
        }
    }

    struct Connection {
        let channel: any Channel
        var iterator: NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator
        let outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>
        private(set) var received = ""

        init(channel: any Channel, iterator: NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator, outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>) {
            self.channel = channel
            self.iterator = iterator
            self.outbound = outbound
        }

        func say(_ text: String) async throws { try await outbound.write(ByteBuffer(string: text)) }
        func say(_ bytes: [UInt8]) async throws { try await outbound.write(ByteBuffer(bytes: bytes)) }

        /// Reads until the text occurs, or the peer closes; everything that was received.
        mutating func hear(until end: String) async throws -> String {
            while !received.contains(end), let bytes = try await iterator.next() { received += String(buffer: bytes) }
            return received
        }

        /// Reads one piece and forgets it; its length, 0 when the peer has closed.
        mutating func skip() async throws -> Int { try await iterator.next()?.readableBytes ?? 0 }
    }
}

func rawRequest(_ method: String = "POST", _ path: String = "/payments", _ fields: [String], body: String = "{}") -> String {
    "\(method) \(path) HTTP/1.1\r\nHost: test\r\nContent-Length: \(body.utf8.count)\r\n" + fields.map { $0 + "\r\n" }.joined() + "\r\n" + body
}
