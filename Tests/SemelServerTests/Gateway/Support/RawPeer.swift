#if canImport(Glibc)
import Glibc
#endif
import NIOCore
import NIOPosix
import NIOSSL
import SemelCore

/// One TCP connection, byte by byte: what no HTTP client or server would do can be done with it.
final class RawPeer: @unchecked Sendable {
    let channel: any Channel
    private var iterator: NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator
    private let outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>
    /// What was read and not yet consumed.
    var buffer = ByteBuffer()

    fileprivate init(
        _ channel: any Channel, _ inbound: NIOAsyncChannelInboundStream<ByteBuffer>, _ outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>
    ) {
        self.channel = channel
        iterator = inbound.makeAsyncIterator()
        self.outbound = outbound
    }

    func send(_ text: String) async throws { try await outbound.write(ByteBuffer(string: text)) }

    func send(_ bytes: ByteBuffer) async throws { try await outbound.write(bytes) }

    /// Sends, and returns when the operating system has taken all of it.
    func sendThrough(_ bytes: ByteBuffer) async throws { try await channel.writeAndFlush(bytes).get() }

    /// Sends one byte at a time, each in a write of its own.
    func sendSliced(_ text: String) async throws {
        for byte in text.utf8 { try await outbound.write(ByteBuffer(bytes: [byte])) }
    }

    /// Reads more; `false` at the end of the connection.
    func more() async throws -> Bool {
        guard let bytes = try await iterator.next() else { return false }
        buffer.writeImmutableBuffer(bytes)
        return true
    }

    var text: String { String(buffer: buffer) }

    /// Everything until the peer closes; a reset counts as an end.
    func rest() async -> String {
        while (try? await more()) == true {}
        defer { buffer.clear() }
        return text
    }

    /// Reads until the text appears, and consumes up to and with it.
    func read(through end: String) async throws -> String {
        while true {
            if let range = text.utf8.firstRange(of: end.utf8) {
                let length = text.utf8.distance(from: text.utf8.startIndex, to: range.upperBound)
                return buffer.readString(length: length)!
            }
            guard try await more() else { throw RawError.ended(text) }
        }
    }

    /// Reads one message: its header section, and its body by Content-Length or chunks, as text.
    func message(hasBody: Bool = true) async throws -> RawMessage {
        let head = try await read(through: "\r\n\r\n")
        var message = RawMessage(head: head, body: "")
        guard hasBody else { return message }
        if let length = message.field("content-length").flatMap(Int.init) {
            while buffer.readableBytes < length { guard try await more() else { throw RawError.ended(text) } }
            message.body = buffer.readString(length: length)!
        } else if message.field("transfer-encoding") == "chunked" {
            while true {
                let size = Int(try await read(through: "\r\n").dropLast(1).split(separator: ";")[0], radix: 16)!
                if size == 0 {
                    var trailers = ""
                    while true {
                        let line = try await read(through: "\r\n")
                        if line == "\r\n" { break }
                        trailers += line
                    }
                    message.trailers = trailers
                    break
                }
                while buffer.readableBytes < size + 2 { guard try await more() else { throw RawError.ended(text) } }
                message.body += buffer.readString(length: size)!
                buffer.moveReaderIndex(forwardBy: 2)
            }
        }
        return message
    }

    func close() async { try? await channel.close() }

    /// Sends a reset instead of an end.
    func reset() async throws {
        try await (channel as! any SocketOptionProvider).setSoLinger(linger(l_onoff: 1, l_linger: 0)).get()
        try await channel.close()
    }

    func closeOutput() async throws { try await channel.close(mode: .output) }
}

enum RawError: Error { case ended(String) }

struct RawMessage: Sendable {
    var head: String
    var body: String
    var trailers = ""

    var startLine: String { String(head.prefix { $0 != "\r\n" }) }
    var method: String { String(startLine.prefix { $0 != " " }) }
    var target: String { startLine.split(separator: " ").dropFirst().first.map(String.init) ?? "" }
    var status: Int { Int(head.split(separator: " ")[1]) ?? 0 }
    var fields: [(name: String, value: String)] {
        head.split(separator: "\r\n").dropFirst().map { line in
            let colon = line.firstIndex(of: ":")!
            return (line[..<colon].lowercased(), line[line.index(after: colon)...].trimmingPrefix(" ").description)
        }
    }

    func field(_ name: String) -> String? { fields.first { $0.name == name.lowercased() }?.value }
    func all(_ name: String) -> [String] { fields.filter { $0.name == name.lowercased() }.map(\.value) }
}

/// A TCP server on an ephemeral port whose every connection runs a closure; encrypted, where it is given how.
final class RawServer: Sendable {
    let port: Int
    private let channel: any Channel
    private let task: Task<Void, Never>
    private let count: Locked<Int>

    /// How many connections were accepted.
    var connections: Int { count.withLock { $0 } }

    init(
        host: String = "127.0.0.1", port: Int = 0, tls: NIOSSLContext? = nil, _ handle: @escaping @Sendable (RawPeer) async throws -> Void
    ) async throws {
        let server = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.backlog, value: 1024)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.allowRemoteHalfClosure, value: tls == nil)
            .bind(host: host, port: port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    if let tls { try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: tls)) }
                    return try NIOAsyncChannel<ByteBuffer, ByteBuffer>(
                        wrappingChannelSynchronously: channel, configuration: .init(isOutboundHalfClosureEnabled: true))
                }
            }
        channel = server.channel
        self.port = server.channel.localAddress!.port!
        let count = Locked(0)
        self.count = count
        task = Task {
            try? await withThrowingDiscardingTaskGroup { group in
                try await server.executeThenClose { inbound in
                    for try await connection in inbound {
                        count.withLock { $0 += 1 }
                        group.addTask {
                            try? await connection.executeThenClose { inbound, outbound in
                                try await handle(RawPeer(connection.channel, inbound, outbound))
                            }
                        }
                    }
                }
            }
        }
    }

    /// Takes no more connections, and waits for those that are open to end.
    func stop() async {
        try? await channel.close()
        await task.value
    }

    deinit { channel.close(promise: nil) }
}

/// Connects to a port of this machine for as long as the closure runs.
func withConnection<Value: Sendable>(to port: Int, _ body: @Sendable (RawPeer) async throws -> Value) async throws -> Value {
    let connection = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
        .channelOption(.allowRemoteHalfClosure, value: true)
        .connect(host: "127.0.0.1", port: port) { channel in
            channel.eventLoop.makeCompletedFuture {
                try NIOAsyncChannel<ByteBuffer, ByteBuffer>(
                    wrappingChannelSynchronously: channel, configuration: .init(isOutboundHalfClosureEnabled: true))
            }
        }
    return try await connection.executeThenClose { inbound, outbound in
        try await body(RawPeer(connection.channel, inbound, outbound))
    }
}
