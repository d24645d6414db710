/// The space a key lives in: tenant, stable subject, and whatever else keeps one caller's keys apart from another's.
///
/// Two operations are the same only when both scope and key are the same. The parts are kept length-prefixed, so
/// `("ab", "c")` and `("a", "bc")` are different scopes (H30). Comparison is byte-exact: no Unicode folding (H27).
///
/// Never build a scope from a bearer token: it rotates, and a retry after the rotation would be a new operation.
public struct Scope: Hashable, Sendable, CustomStringConvertible {
    /// The parts, each preceded by its length as a variable-length integer.
    public let bytes: [UInt8]

    public init(_ parts: String...) {
        self.init(parts: parts)
    }

    public init(parts: [String]) {
        var writer = ByteWriter()
        for part in parts { writer.writeLengthPrefixed(Array(part.utf8)) }
        bytes = writer.bytes
    }

    /// A scope read back from storage, as ``bytes`` had it.
    public init(bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// The parts the scope was made of; empty when the stored bytes are not a scope.
    public var parts: [String] {
        var reader = ByteReader(bytes)
        var parts: [String] = []
        while reader.remaining > 0 {
            guard let part = try? reader.readLengthPrefixed() else { return [] }
            parts.append(String(decoding: part, as: UTF8.self))
        }
        return parts
    }

    /// Hashes the bytes as one; element by element takes several times as long.
    public func hash(into hasher: inout Hasher) {
        bytes.withUnsafeBytes { hasher.combine(bytes: $0) }
    }

    public var description: String { parts.joined(separator: "/") }
}
