/// A UUID of version 7 (RFC 9562 §5.7): milliseconds since 1970 first, so identifiers sort by the time of their issue.
public struct UUIDv7: Hashable, Sendable, Comparable, CustomStringConvertible {
    /// The first and the last eight bytes, most significant first.
    private let high: UInt64
    private let low: UInt64

    /// Puts version and variant in their places.
    init(milliseconds: UInt64, randomA: UInt16, randomB: UInt64) {
        high = milliseconds << 16 | 0x7000 | UInt64(randomA & 0x0FFF)
        low = 0x8000_0000_0000_0000 | randomB & 0x3FFF_FFFF_FFFF_FFFF
    }

    /// An identifier from its text, as in `01890a5d-ac96-774b-bcce-b302099a8057` (either case); nil for any other text and
    /// for other versions and variants.
    public init?(_ text: String) {
        var words: [UInt64] = [0, 0]
        var digits = 0
        for (index, byte) in text.utf8.enumerated() {
            if [8, 13, 18, 23].contains(index) {
                guard byte == UInt8(ascii: "-") else { return nil }
            } else {
                guard digits < 32, let digit = hexadecimalValue(of: byte) else { return nil }
                words[digits / 16] = words[digits / 16] << 4 | UInt64(digit)
                digits += 1
            }
        }
        guard digits == 32, words[0] >> 12 & 0xF == 7, words[1] >> 62 == 0b10 else { return nil }
        (high, low) = (words[0], words[1])
    }

    /// The time of issue in milliseconds since 1970.
    public var milliseconds: Int64 { Int64(high >> 16) }

    /// The 16 bytes in network order.
    public var bytes: [UInt8] {
        withUnsafeBytes(of: high.bigEndian, Array.init) + withUnsafeBytes(of: low.bigEndian, Array.init)
    }

    /// The usual text, in lower case.
    public var description: String {
        let digits = Array("0123456789abcdef".utf8)
        var text: [UInt8] = []
        text.reserveCapacity(36)
        for (index, byte) in bytes.enumerated() {
            if [4, 6, 8, 10].contains(index) { text.append(UInt8(ascii: "-")) }
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 0xF)])
        }
        return String(decoding: text, as: UTF8.self)
    }

    public static func < (left: UUIDv7, right: UUIDv7) -> Bool {
        (left.high, left.low) < (right.high, right.low)
    }
}
