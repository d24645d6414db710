#if MySQL
import Crypto
import Semel

/// The primary key of a record: the whole SHA-256 of scope and key, each length-prefixed (H29, H30).
///
/// Its first half is the operation's reference, so one index serves both.
struct RowID: Hashable, Comparable, Sendable {
    private let words: (UInt64, UInt64, UInt64, UInt64)

    init(_ id: OperationID) {
        var writer = ByteWriter(reservingCapacity: id.scope.bytes.count + id.key.bytes.count + 8)
        writer.writeLengthPrefixed(id.scope.bytes)
        writer.writeLengthPrefixed(id.key.bytes)
        self.init(hashing: writer.bytes)
    }

    /// What live records are counted by.
    init(_ scope: Scope) { self.init(hashing: scope.bytes) }

    private init(hashing bytes: [UInt8]) {
        var hash = SHA256()
        bytes.withUnsafeBytes { hash.update(bufferPointer: $0) }
        words = hash.finalize().withUnsafeBytes { digest in
            func word(_ index: Int) -> UInt64 { UInt64(bigEndian: digest.loadUnaligned(fromByteOffset: 8 * index, as: UInt64.self)) }
            return (word(0), word(1), word(2), word(3))
        }
    }

    init?(_ bytes: [UInt8]?) {
        guard let bytes, bytes.count == 32 else { return nil }
        words = bytes.withUnsafeBytes { bytes in
            func word(_ index: Int) -> UInt64 { UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8 * index, as: UInt64.self)) }
            return (word(0), word(1), word(2), word(3))
        }
    }

    /// The first and the last that share a reference.
    static func range(of reference: OperationReference) -> (first: RowID, last: RowID) {
        (RowID(reference.high, reference.low, 0, 0), RowID(reference.high, reference.low, .max, .max))
    }

    private init(_ first: UInt64, _ second: UInt64, _ third: UInt64, _ fourth: UInt64) { words = (first, second, third, fourth) }

    var reference: OperationReference { OperationReference(high: words.0, low: words.1) }

    var bytes: [UInt8] {
        var writer = ByteWriter(reservingCapacity: 32)
        for word in [words.0, words.1, words.2, words.3] { writer.write(word.byteSwapped) }
        return writer.bytes
    }

    /// Which of a number of lanes its key belongs to.
    func lane(of count: Int) -> Int { Int(words.3 % UInt64(count)) }

    /// Which of a number of locks stands for it.
    func lock(of count: Int) -> Int64 { Int64(words.2 % UInt64(count)) }

    static func == (left: RowID, right: RowID) -> Bool { left.words == right.words }
    static func < (left: RowID, right: RowID) -> Bool { left.words < right.words }

    func hash(into hasher: inout Hasher) { hasher.combine(words.0) }
}
#endif
