/// The envelope of a stored record: what was half written or damaged is recognised, never taken for data (H19).
///
/// Layout: format version (1 byte, never 0) · payload length (varint) · payload · CRC-32C of all that precedes
/// (4 bytes, little-endian). A frame is stored as a whole, so its bytes must add up exactly. A truncated frame is always
/// detected by its length; any error of up to three bits, and any burst of up to 32, by its checksum; other damage with
/// a probability of 1 − 2⁻³².
package struct ChecksummedFrame: Hashable, Sendable {
    /// The format of the payload. A reader refuses versions that it does not know.
    package var version: UInt8
    package var payload: ArraySlice<UInt8>

    /// The bytes of a frame around `payload`.
    ///
    /// - Precondition: `version` is not 0, so that a run of zero bytes is never a frame.
    package static func seal(version: UInt8, payload: some Collection<UInt8>) -> [UInt8] {
        precondition(version != 0, "version 0 is reserved: zeroed storage must not look like a frame")
        var writer = ByteWriter(reservingCapacity: payload.count + 10)
        writer.write(version)
        writer.writeLengthPrefixed(payload)
        writer.write(CRC32C.checksum(of: writer.bytes))
        return writer.bytes
    }

    /// Checks a frame and opens it. The payload shares the storage of `bytes`.
    package init(opening bytes: ArraySlice<UInt8>) throws(ChecksummedFrameError) {
        var reader = ByteReader(bytes)
        let stored: UInt32
        do {
            version = try reader.read()
            payload = try reader.readLengthPrefixed()
            stored = try reader.read()
            try reader.finish()
        } catch {
            throw .malformed(error)
        }
        let computed = bytes.dropLast(4).withUnsafeBytes { CRC32C.checksum(of: $0) }
        guard stored == computed else { throw .checksumMismatch(stored: stored, computed: computed) }
        guard version != 0 else { throw .unknownVersion(0) }
    }

    package init(opening bytes: [UInt8]) throws(ChecksummedFrameError) {
        try self.init(opening: bytes[...])
    }
}

package enum ChecksummedFrameError: Error, Hashable, Sendable, CustomStringConvertible {
    case malformed(ByteReaderError)
    case checksumMismatch(stored: UInt32, computed: UInt32)
    case unknownVersion(UInt8)

    package var description: String {
        switch self {
        case .malformed(let error): "the record is damaged: \(error)"
        case .checksumMismatch(let stored, let computed):
            "the record is damaged: its checksum is \(String(stored, radix: 16)), its content has \(String(computed, radix: 16))"
        case .unknownVersion(let version): "the record has the unknown format version \(version)"
        }
    }
}
