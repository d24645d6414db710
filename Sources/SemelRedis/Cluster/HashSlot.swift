/// One of the 16,384 parts of a cluster's keys.
package struct HashSlot: Hashable, Sendable {
    package static let count = 16_384

    package let number: UInt16

    package init(_ number: UInt16) { self.number = number }

    /// The slot of a key: CRC16 of what stands between its first braces, or of the whole key without such.
    package init(of key: some BidirectionalCollection<UInt8>) {
        var hashed = key[...]
        if let open = key.firstIndex(of: UInt8(ascii: "{")) {
            let inside = key[key.index(after: open)...]
            if let close = inside.firstIndex(of: UInt8(ascii: "}")), close != inside.startIndex { hashed = inside[..<close] }
        }
        number = Self.crc16(hashed) % UInt16(Self.count)
    }

    package init(of key: String) { self.init(of: Array(key.utf8)) }

    /// CRC-16/XMODEM, as the specification of Redis Cluster names it.
    package static func crc16(_ bytes: some Sequence<UInt8>) -> UInt16 {
        var crc: UInt16 = 0
        for byte in bytes { crc = crc << 8 ^ table[Int(UInt8(truncatingIfNeeded: crc >> 8) ^ byte)] }
        return crc
    }

    private static let table: [UInt16] = (0..<256).map { byte in
        (0..<8).reduce(UInt16(byte) << 8) { crc, _ in crc & 0x8000 == 0 ? crc << 1 : crc << 1 ^ 0x1021 }
    }
}
