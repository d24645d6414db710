/// Collects the bytes of a stored record: fixed-width integers (little-endian), varints, and length-prefixed fields.
///
/// What it writes, ``ByteReader`` reads back. There is exactly one encoding of each value, so equal records have equal bytes.
package struct ByteWriter: Hashable, Sendable {
    package private(set) var bytes: [UInt8]

    package init(reservingCapacity capacity: Int = 0) {
        bytes = []
        bytes.reserveCapacity(capacity)
    }

    /// Appends an integer in its full width, least significant byte first.
    package mutating func write(_ integer: some FixedWidthInteger) {
        withUnsafeBytes(of: integer.littleEndian) { bytes.append(contentsOf: $0) }
    }

    /// Appends one byte: 1 for true, 0 for false.
    package mutating func write(_ flag: Bool) {
        bytes.append(flag ? 1 : 0)
    }

    /// Appends an unsigned integer in 1–10 bytes of seven bits, the least significant first (unsigned LEB128).
    package mutating func writeVarint(_ integer: UInt64) {
        var rest = integer
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(rest))
    }

    /// Appends a varint length, then the bytes.
    package mutating func writeLengthPrefixed(_ field: some Collection<UInt8>) {
        writeVarint(UInt64(field.count))
        bytes.append(contentsOf: field)
    }

    /// Appends a varint length, then the bytes: the same, for the type that stores write all the time.
    package mutating func writeLengthPrefixed(_ field: [UInt8]) {
        writeVarint(UInt64(field.count))
        bytes.append(contentsOf: field)
    }

    /// Appends a varint length in UTF-8 bytes, then the text.
    package mutating func writeLengthPrefixed(_ text: String) {
        writeLengthPrefixed(text.utf8)
    }

    /// Appends the bytes as they are. The reader must know their number.
    package mutating func writeRaw(_ field: some Collection<UInt8>) {
        bytes.append(contentsOf: field)
    }

    /// Appends a presence byte, and the value through `write` if there is one, so that nil and empty differ.
    package mutating func writeOptional<Value>(_ value: Value?, _ write: (inout ByteWriter, Value) -> Void) {
        self.write(value != nil)
        if let value { write(&self, value) }
    }
}
