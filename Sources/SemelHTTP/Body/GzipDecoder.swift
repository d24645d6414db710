internal import CZlib

/// Decodes `gzip` (RFC 1952) as it comes, so that what is fingerprinted is what was compressed, not how.
final class GzipDecoder {
    enum Failure: Error {
        /// The bytes are no gzip, or end too early.
        case malformed
        /// There is more behind them than is allowed.
        case tooLarge
    }

    private var stream = z_stream()
    private var room: Int
    private var isBetweenMembers = true
    private var chunk = [UInt8](repeating: 0, count: 16 << 10)

    /// - Parameter limit: how many decoded bytes there may be; a few bytes can stand for gigabytes.
    init(limit: Int) {
        room = limit
        // 16 more than the largest window: gzip, and nothing else.
        let result = inflateInit2_(&stream, 15 + 16, ZLIB_VERSION, CInt(MemoryLayout<z_stream>.size))
        precondition(result == Z_OK, "zlib cannot be set up (\(result))")
    }

    deinit { inflateEnd(&stream) }

    /// Decodes the next bytes and passes on what they give.
    func decode(_ bytes: some Sequence<UInt8>, _ body: (UnsafeBufferPointer<UInt8>) throws -> Void) throws {
        var input = Array(bytes)
        try input.withUnsafeMutableBufferPointer { input in
            stream.next_in = input.baseAddress
            stream.avail_in = UInt32(input.count)
            while stream.avail_in > 0 {
                if isBetweenMembers {
                    // A gzip file may have several members, one after the other.
                    inflateReset(&stream)
                    isBetweenMembers = false
                }
                try step(body)
            }
        }
    }

    private func step(_ body: (UnsafeBufferPointer<UInt8>) throws -> Void) throws {
        try chunk.withUnsafeMutableBufferPointer { chunk in
            repeat {
                stream.next_out = chunk.baseAddress
                stream.avail_out = UInt32(chunk.count)
                let result = inflate(&stream, Z_NO_FLUSH)
                guard result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR else { throw Failure.malformed }
                let count = chunk.count - Int(stream.avail_out)
                room -= count
                guard room >= 0 else { throw Failure.tooLarge }
                if count > 0 { try body(UnsafeBufferPointer(rebasing: chunk[..<count])) }
                if result == Z_STREAM_END {
                    isBetweenMembers = true
                    return
                }
            } while stream.avail_out == 0
        }
    }

    /// - Throws: when the last member is not complete.
    func finish() throws {
        guard isBetweenMembers else { throw Failure.malformed }
    }
}
