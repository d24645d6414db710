/// The client's name for one operation inside a ``Scope``: opaque, case-sensitive, 1 to 255 bytes.
///
/// Equality is equality of bytes (H27). The whole key is kept and compared, never a truncated hash of it (H29, R15).
public struct OperationKey: Hashable, Sendable {
    public static let lengthLimit = 255

    public let bytes: [UInt8]

    /// Takes the key's bytes as they are.
    /// - Throws: ``OperationKeyError`` when there are none or more than 255 (H28).
    public init(bytes: [UInt8]) throws(OperationKeyError) {
        guard !bytes.isEmpty else { throw .empty }
        guard bytes.count <= Self.lengthLimit else { throw .tooLong(bytes.count) }
        self.bytes = bytes
    }

    /// Takes the UTF-8 bytes of a string, unchanged.
    public init(_ text: String) throws(OperationKeyError) {
        try self.init(bytes: Array(text.utf8))
    }

    /// Hashes the bytes as one; element by element takes several times as long.
    public func hash(into hasher: inout Hasher) {
        bytes.withUnsafeBytes { hasher.combine(bytes: $0) }
    }

    /// The key as text, for people; bytes that are not UTF-8 show as replacement characters.
    public var text: String { String(decoding: bytes, as: UTF8.self) }
}

public enum OperationKeyError: Error, Hashable, CustomStringConvertible {
    case empty
    case tooLong(Int)

    public var description: String {
        switch self {
        case .empty: "The key is empty; a key has 1 to \(OperationKey.lengthLimit) bytes."
        case .tooLong(let count): "The key has \(count) bytes; a key has 1 to \(OperationKey.lengthLimit)."
        }
    }
}
