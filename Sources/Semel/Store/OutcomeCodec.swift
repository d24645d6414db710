package import SemelCore

// An outcome's bytes, and the small signed numbers around it: shared by the stores that keep records as bytes.

/// Why stored bytes are no outcome.
package struct OutcomeFormatError: Error, Hashable, CustomStringConvertible {
    package let description: String
}

extension ByteWriter {
    /// A signed integer, small in either direction: zigzag, then a varint.
    package mutating func writeSigned(_ value: Int64) {
        writeVarint(UInt64(bitPattern: value << 1 ^ value >> 63))
    }

    package mutating func write(_ outcome: Outcome) {
        write(outcome.status)
        write(outcome.fields)
        switch outcome.body {
        case .kept(let bytes):
            write(UInt8(1))
            writeLengthPrefixed(bytes)
        case .omitted(let length, let digest):
            write(UInt8(2))
            writeOptional(length) { $0.writeVarint($1) }
            writeOptional(digest) { $0.writeLengthPrefixed($1) }
        }
        write(outcome.trailers)
    }

    private mutating func write(_ fields: [Outcome.Field]) {
        writeVarint(UInt64(fields.count))
        for field in fields {
            writeLengthPrefixed(field.name)
            writeLengthPrefixed(field.value)
        }
    }
}

extension ByteReader {
    package mutating func readSigned() throws(ByteReaderError) -> Int64 {
        let value = try readVarint()
        return Int64(bitPattern: value >> 1) ^ -Int64(bitPattern: value & 1)
    }

    /// - Throws: ``ByteReaderError``, or ``OutcomeFormatError`` for a kind of body that this version does not know.
    package mutating func readOutcome() throws -> Outcome {
        let status: UInt16 = try read()
        let fields = try readFields()
        let body: Outcome.Body
        switch try read(UInt8.self) {
        case 1: body = .kept(Array(try readLengthPrefixed()))
        case 2:
            let length = try readOptional { reader throws(ByteReaderError) in try reader.readVarint() }
            let digest = try readOptional { reader throws(ByteReaderError) in Array(try reader.readLengthPrefixed()) }
            body = .omitted(length: length, digest: digest)
        case let tag: throw OutcomeFormatError(description: "the outcome has a body of the unknown kind \(tag)")
        }
        return Outcome(status: status, fields: fields, body: body, trailers: try readFields())
    }

    private mutating func readFields() throws -> [Outcome.Field] {
        var fields: [Outcome.Field] = []
        // Not reserved ahead: the count is only claimed by the input.
        for _ in 0..<(try readVarint()) {
            fields.append(Outcome.Field(try readLengthPrefixedText(), try readLengthPrefixedText()))
        }
        return fields
    }
}
