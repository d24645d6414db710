import Crypto

/// A whole SHA-256 digest: 32 bytes, never truncated (H29, R15).
///
/// Comparison takes the same time wherever two digests differ, so it tells a stranger nothing (H42).
public struct Digest256: Hashable, Sendable, CustomStringConvertible {
    public static let byteCount = 32

    /// The digest in four words of eight bytes, held in place so that a digest needs no memory of its own.
    private let words: (UInt64, UInt64, UInt64, UInt64)

    /// A digest from its 32 bytes, as ``bytes`` gave them; nil for any other number of bytes.
    public init?(bytes: some Collection<UInt8>) {
        guard bytes.count == Self.byteCount else { return nil }
        var iterator = bytes.makeIterator()
        func word() -> UInt64 {
            var word: UInt64 = 0
            for _ in 0..<8 { word = word << 8 | UInt64(iterator.next() ?? 0) }
            return word
        }
        words = (word(), word(), word(), word())
    }

    /// A digest from its 64 hexadecimal digits, as ``description`` gave them (either case); nil for anything else.
    public init?(hexadecimal: String) {
        let digits = hexadecimal.utf8
        guard digits.count == 2 * Self.byteCount else { return nil }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Self.byteCount)
        var high: UInt8?
        for digit in digits {
            guard let value = hexadecimalValue(of: digit) else { return nil }
            if let first = high {
                bytes.append(first << 4 | value)
                high = nil
            } else {
                high = value
            }
        }
        self.init(bytes: bytes)
    }

    /// Hashes bytes.
    public init(hashing bytes: [UInt8]) {
        var hasher = SHA256()
        bytes.withUnsafeBytes { hasher.update(bufferPointer: $0) }
        self.init(finalizing: hasher)
    }

    /// Hashes a list of parts.
    public init(hashing parts: LengthPrefixed) {
        self.init(hashing: parts.bytes)
    }

    init(finalizing hasher: SHA256) {
        words = hasher.finalize().withUnsafeBytes { digest in
            func word(_ index: Int) -> UInt64 {
                UInt64(bigEndian: digest.loadUnaligned(fromByteOffset: 8 * index, as: UInt64.self))
            }
            return (word(0), word(1), word(2), word(3))
        }
    }

    /// Appends the 32 bytes.
    func write(to writer: inout ByteWriter) {
        // The first byte is the most significant one, and the writer begins with the least significant.
        writer.write(words.0.byteSwapped)
        writer.write(words.1.byteSwapped)
        writer.write(words.2.byteSwapped)
        writer.write(words.3.byteSwapped)
    }

    /// The 32 bytes.
    public var bytes: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Self.byteCount)
        for word in [words.0, words.1, words.2, words.3] {
            withUnsafeBytes(of: word.bigEndian) { bytes.append(contentsOf: $0) }
        }
        return bytes
    }

    /// The digest in 64 lower-case hexadecimal digits.
    public var description: String {
        let digits = Array("0123456789abcdef".utf8)
        var text: [UInt8] = []
        text.reserveCapacity(2 * Self.byteCount)
        for byte in bytes {
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 0xF)])
        }
        return String(decoding: text, as: UTF8.self)
    }

    public static func == (left: Digest256, right: Digest256) -> Bool {
        // All words are looked at before the one decision.
        let difference =
            (left.words.0 ^ right.words.0) | (left.words.1 ^ right.words.1)
            | (left.words.2 ^ right.words.2) | (left.words.3 ^ right.words.3)
        return difference == 0
    }

    public func hash(into hasher: inout Hasher) {
        hasher.combine(words.0)
        hasher.combine(words.1)
        hasher.combine(words.2)
        hasher.combine(words.3)
    }
}

/// The value of an ASCII hexadecimal digit, nil for any other byte.
func hexadecimalValue(of digit: UInt8) -> UInt8? {
    switch digit {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): digit - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): digit - UInt8(ascii: "A") + 10
    default: nil
    }
}
