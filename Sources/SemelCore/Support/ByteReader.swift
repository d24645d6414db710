/// Reads what ``ByteWriter`` wrote.
///
/// Every read is checked against the bytes that are really there: whatever the input, a read returns a value or throws a
/// ``ByteReaderError``; it never traps, and never reserves memory for a length that the input only claims.
package struct ByteReader: Sendable {
    private let bytes: ArraySlice<UInt8>
    private var position: Int

    package init(_ bytes: ArraySlice<UInt8>) {
        self.bytes = bytes
        position = bytes.startIndex
    }

    package init(_ bytes: [UInt8]) {
        self.init(bytes[...])
    }

    /// How many bytes have been read.
    package var offset: Int { position - bytes.startIndex }

    /// How many bytes are left to read.
    package var remaining: Int { bytes.endIndex - position }

    /// Reads an integer of full width, least significant byte first.
    package mutating func read<Value: FixedWidthInteger>(_: Value.Type = Value.self) throws(ByteReaderError) -> Value {
        try readRaw(count: Value.bitWidth / 8).withUnsafeBytes {
            Value(littleEndian: $0.loadUnaligned(as: Value.self))
        }
    }

    /// Reads a Boolean. Any byte other than 0 and 1 is an error.
    package mutating func readFlag() throws(ByteReaderError) -> Bool {
        let start = offset
        switch try read(UInt8.self) {
        case 0: return false
        case 1: return true
        case let byte: throw ByteReaderError(offset: start, reason: .invalidFlag(byte))
        }
    }

    /// Reads a varint. An encoding longer than needed, or beyond 64 bits, is an error: each value has one encoding.
    package mutating func readVarint() throws(ByteReaderError) -> UInt64 {
        let start = offset
        var value: UInt64 = 0
        for shift in stride(from: 0, through: 63, by: 7) {
            let byte = try read(UInt8.self)
            // The tenth byte holds only the 64th bit.
            if shift == 63, byte > 1 { throw ByteReaderError(offset: start, reason: .varintTooLarge) }
            value |= UInt64(byte & 0x7F) << UInt64(shift)
            if byte < 0x80 {
                if byte == 0, shift > 0 { throw ByteReaderError(offset: start, reason: .varintNotShortest) }
                return value
            }
        }
        throw ByteReaderError(offset: start, reason: .varintTooLarge)
    }

    /// Reads a field that is preceded by its length.
    package mutating func readLengthPrefixed() throws(ByteReaderError) -> ArraySlice<UInt8> {
        let start = offset
        let length = try readVarint()
        guard length <= UInt64(remaining) else {
            throw ByteReaderError(offset: start, reason: .truncated(needed: length, available: remaining))
        }
        return try readRaw(count: Int(length))
    }

    /// Reads a text that is preceded by its length; bytes that are not UTF-8 are an error, never repaired.
    package mutating func readLengthPrefixedText() throws(ByteReaderError) -> String {
        let start = offset
        guard let text = String(validating: try readLengthPrefixed(), as: UTF8.self) else {
            throw ByteReaderError(offset: start, reason: .invalidUTF8)
        }
        return text
    }

    /// Reads exactly `count` bytes.
    package mutating func readRaw(count: Int) throws(ByteReaderError) -> ArraySlice<UInt8> {
        guard count >= 0, count <= remaining else {
            throw ByteReaderError(offset: offset, reason: .truncated(needed: UInt64(max(0, count)), available: remaining))
        }
        defer { position += count }
        return bytes[position..<position + count]
    }

    /// Reads a value that may be absent, as ``ByteWriter/writeOptional(_:_:)`` wrote it.
    package mutating func readOptional<Value>(
        _ read: (inout ByteReader) throws(ByteReaderError) -> Value
    ) throws(ByteReaderError) -> Value? {
        try readFlag() ? try read(&self) : nil
    }

    /// Asserts that everything was read. Bytes that nobody understands mean a newer format or damage.
    package func finish() throws(ByteReaderError) {
        guard remaining == 0 else {
            throw ByteReaderError(offset: offset, reason: .trailingBytes(remaining))
        }
    }
}

/// Why stored bytes could not be read, and where.
package struct ByteReaderError: Error, Hashable, Sendable, CustomStringConvertible {
    package enum Reason: Hashable, Sendable {
        case truncated(needed: UInt64, available: Int)
        case varintTooLarge
        case varintNotShortest
        case invalidFlag(UInt8)
        case invalidUTF8
        case trailingBytes(Int)
    }

    /// The position of the faulty field, in bytes from the start.
    package var offset: Int
    package var reason: Reason

    package var description: String {
        let what =
            switch reason {
            case .truncated(let needed, let available): "\(needed) bytes are needed and \(available) are left"
            case .varintTooLarge: "a varint exceeds 64 bits"
            case .varintNotShortest: "a varint is longer than its value needs"
            case .invalidFlag(let byte): "a flag is \(byte), neither 0 nor 1"
            case .invalidUTF8: "a text is not valid UTF-8"
            case .trailingBytes(let count): "\(count) bytes are left over"
            }
        return "stored bytes cannot be read at byte \(offset): \(what)"
    }
}
