/// The CRC-32C checksum (Castagnoli polynomial) of RFC 3720 §12.1 and RFC 9260 appendix A.
///
/// It detects every error of one, two or three bits and every burst of up to 32 bits in the records that Semel stores.
/// It is **not** a protection against an adversary: whoever can write the bytes can also write a matching checksum.
package struct CRC32C: Sendable {
    private var register: UInt32 = .max

    package init() {}

    /// The checksum of all bytes seen so far. More bytes may follow.
    package var value: UInt32 { ~register }

    package mutating func update(_ bytes: UnsafeRawBufferPointer) {
        register = Self.tables.withUnsafeBufferPointer { tables in
            var register = register
            var index = 0
            // Eight bytes a step (slicing-by-8): table k holds the effect of a byte that is followed by k more.
            while index + 8 <= bytes.count {
                let low = register ^ UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: index, as: UInt32.self))
                let high = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: index + 4, as: UInt32.self))
                register =
                    tables[7 * 256 + Int(low & 0xFF)] ^ tables[6 * 256 + Int(low >> 8 & 0xFF)]
                    ^ tables[5 * 256 + Int(low >> 16 & 0xFF)] ^ tables[4 * 256 + Int(low >> 24)]
                    ^ tables[3 * 256 + Int(high & 0xFF)] ^ tables[2 * 256 + Int(high >> 8 & 0xFF)]
                    ^ tables[256 + Int(high >> 16 & 0xFF)] ^ tables[Int(high >> 24)]
                index += 8
            }
            while index < bytes.count {
                register = register >> 8 ^ tables[Int((register ^ UInt32(bytes[index])) & 0xFF)]
                index += 1
            }
            return register
        }
    }

    /// The checksum of `bytes`.
    package static func checksum(of bytes: UnsafeRawBufferPointer) -> UInt32 {
        var checksum = CRC32C()
        checksum.update(bytes)
        return checksum.value
    }

    /// The checksum of `bytes`.
    package static func checksum(of bytes: [UInt8]) -> UInt32 {
        bytes.withUnsafeBytes { checksum(of: $0) }
    }

    /// Eight tables of 256 entries, one after another.
    private static let tables: [UInt32] = {
        let reflectedPolynomial: UInt32 = 0x82F6_3B78
        var tables = [UInt32](repeating: 0, count: 8 * 256)
        for byte in 0..<256 {
            var register = UInt32(byte)
            for _ in 0..<8 {
                register = register & 1 == 1 ? register >> 1 ^ reflectedPolynomial : register >> 1
            }
            tables[byte] = register
        }
        for entry in 256..<tables.count {
            let previous = tables[entry - 256]
            tables[entry] = previous >> 8 ^ tables[Int(previous & 0xFF)]
        }
        return tables
    }()
}
