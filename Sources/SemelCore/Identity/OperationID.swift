internal import Crypto

/// What makes two requests the same operation: the scope and the key, whole.
public struct OperationID: Hashable, Sendable {
    public let scope: Scope
    public let key: OperationKey

    public init(scope: Scope, key: OperationKey) {
        self.scope = scope
        self.key = key
    }
}

/// An opaque name for an operation, for logs, support and the console: it does not show the key.
///
/// It is the first half of a SHA-256 over the length-prefixed scope and key. A reference finds a record; it never
/// decides whether two operations are the same: stores compare the whole key.
public struct OperationReference: Hashable, Comparable, Sendable, CustomStringConvertible {
    public let high: UInt64
    public let low: UInt64

    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    public init(_ id: OperationID) {
        var writer = ByteWriter()
        writer.writeLengthPrefixed(id.scope.bytes)
        writer.writeLengthPrefixed(id.key.bytes)
        var hash = SHA256()
        hash.update(data: writer.bytes)
        (high, low) = hash.finalize().withUnsafeBytes { digest in
            (
                UInt64(bigEndian: digest.loadUnaligned(fromByteOffset: 0, as: UInt64.self)),
                UInt64(bigEndian: digest.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
            )
        }
    }

    /// Reads `op_` and 32 hexadecimal digits; `nil` for anything else.
    public init?(_ text: some StringProtocol) {
        let digits = Array(text.utf8)
        guard digits.count == 35, text.hasPrefix("op_"),
            digits[3...].allSatisfy({ ($0 >= 0x30 && $0 <= 0x39) || ($0 >= 0x61 && $0 <= 0x66) }),
            let high = UInt64(text.dropFirst(3).prefix(16), radix: 16),
            let low = UInt64(text.dropFirst(19), radix: 16)
        else { return nil }
        self.init(high: high, low: low)
    }

    /// The order of their texts.
    public static func < (left: OperationReference, right: OperationReference) -> Bool { (left.high, left.low) < (right.high, right.low) }

    public var description: String { "op_" + Self.hexadecimal(high) + Self.hexadecimal(low) }

    private static func hexadecimal(_ value: UInt64) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 16 - digits.utf8.count) + digits
    }
}
