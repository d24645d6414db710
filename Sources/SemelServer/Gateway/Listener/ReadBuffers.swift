internal import NIOCore

/// Buffers for reading from a connection, let go of once what was read has been used.
///
/// NIO keeps up to four buffers of 64 KiB with each connection for its next reads, for as long as the connection lives: with ten
/// thousand clients that wait for their answers, that is most of the memory.
struct ReadBuffers: RecvByteBufferAllocator {
    private var sizes = AdaptiveRecvByteBufferAllocator(minimum: 64, initial: 512, maximum: 64 << 10)

    func buffer(allocator: ByteBufferAllocator) -> ByteBuffer { sizes.buffer(allocator: allocator) }

    // Neither telling the next size (`nextBufferSize`) nor ever that the same one will do is what keeps NIO from using a
    // buffer again.
    mutating func record(actualReadBytes: Int) -> Bool {
        _ = sizes.record(actualReadBytes: actualReadBytes)
        return true
    }

    /// On the channel's event loop, before it reads.
    static func use(in channel: any Channel) throws {
        // Only the first buffer, which is the smallest, is kept.
        try channel.syncOptions?.setOption(.maxMessagesPerRead, value: 1)
        try channel.syncOptions?.setOption(.recvAllocator, value: ReadBuffers())
    }
}
