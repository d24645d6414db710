/// The keys of one range of rows, sorted by hash and written down for good.
///
/// On disk they are cut into ``pieces`` by the first bits of the hash; a piece is one row of `semel_piece`, twelve bytes
/// an entry: the hash, then the row's distance from the range's base, both most significant byte first.
struct SealedKeys {
    struct Entry {
        var hash: UInt64
        var row: UInt32
    }

    static let prefixBits = 7
    static let pieces = 1 << prefixBits
    static let entrySize = 12

    var number: Int64
    /// The row before the first.
    var base: Int64
    var lastRow: Int64
    /// When housekeeping may next find something to remove here, in microseconds on the retention clock.
    var due: Int64

    static func pieceNumber(_ segment: Int64, _ prefix: Int) -> Int64 { segment << Int64(prefixBits) | Int64(prefix) }
    static func prefix(of hash: UInt64) -> Int { Int(hash >> UInt64(64 - prefixBits)) }

    static func encode(_ entries: [Entry]) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: entries.count * entrySize) { buffer, count in
            for (index, entry) in entries.enumerated() {
                let start = UnsafeMutableRawPointer(buffer.baseAddress! + index * entrySize)
                start.storeBytes(of: entry.hash.bigEndian, as: UInt64.self)
                start.storeBytes(of: entry.row.bigEndian, toByteOffset: 8, as: UInt32.self)
            }
            count = entries.count * entrySize
        }
    }

    /// Every entry of a piece.
    static func forEach(in piece: UnsafeRawBufferPointer, _ body: (Entry) -> Void) {
        for index in 0..<piece.count / entrySize { body(entry(index, of: piece)) }
    }

    /// The distances of the rows under a hash: a binary search, then a run.
    static func distances(under hash: UInt64, in piece: UnsafeRawBufferPointer) -> [UInt32] {
        var low = 0
        var high = piece.count / entrySize
        let count = high
        while low < high {
            let middle = (low + high) / 2
            if entry(middle, of: piece).hash < hash { low = middle + 1 } else { high = middle }
        }
        var found: [UInt32] = []
        while low < count, case let entry = entry(low, of: piece), entry.hash == hash {
            found.append(entry.row)
            low += 1
        }
        return found
    }

    private static func entry(_ index: Int, of piece: UnsafeRawBufferPointer) -> Entry {
        Entry(
            hash: UInt64(bigEndian: piece.loadUnaligned(fromByteOffset: index * entrySize, as: UInt64.self)),
            row: UInt32(bigEndian: piece.loadUnaligned(fromByteOffset: index * entrySize + 8, as: UInt32.self)))
    }
}
