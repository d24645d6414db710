#if canImport(Glibc)
import Glibc
#endif

/// Where the newest finished operations stand: an open-addressed table from the hash of a key to the number of its row.
///
/// A slot's place is the top bits of its hash, so the table as it stands is nearly sorted: sealing reads it region by
/// region, a little at a time. A hash may occur several times (H29: the whole key decides), and nothing is ever removed:
/// an entry whose row is gone is passed over by whoever reads the row.
final class RecentKeys {
    /// The row before the first one this table may hold; rows are kept as distances from it.
    let base: Int64
    let limit: Int
    private(set) var count = 0
    private(set) var lastRow: Int64

    private let bits: Int
    private let slots: Int
    private let hashes: UnsafeMutablePointer<UInt64>
    /// The row's distance from `base`; 0 for an empty slot.
    private let rows: UnsafeMutablePointer<UInt32>

    /// Probing runs past the last region instead of around, into slots kept for that.
    private static let overrun = 1024

    init(after base: Int64, limit: Int) {
        self.base = base
        self.limit = limit
        lastRow = base
        // At most half full, so a probe ends after one or two slots.
        bits = Int.bitWidth - (2 * limit - 1).leadingZeroBitCount
        slots = 1 << bits + Self.overrun
        // Zeroed memory is not touched until it is used, so an empty store stays small.
        hashes = Self.zeroed(slots)
        rows = Self.zeroed(slots)
    }

    deinit {
        free(hashes)
        free(rows)
    }

    var isFull: Bool { count >= limit }

    /// - Returns: `false` when there is no slot left near the hash's place: seal this table and use the next.
    func insert(_ hash: UInt64, row: Int64) -> Bool {
        guard let distance = UInt32(exactly: row - base), distance > 0 else { return false }
        var slot = place(of: hash)
        while rows[slot] != 0 {
            slot += 1
            if slot == slots { return false }
        }
        hashes[slot] = hash
        rows[slot] = distance
        count += 1
        lastRow = max(lastRow, row)
        return true
    }

    /// The rows under a hash.
    func rows(under hash: UInt64) -> [Int64] {
        var found: [Int64] = []
        var slot = place(of: hash)
        while slot < slots, rows[slot] != 0 {
            if hashes[slot] == hash { found.append(base + Int64(rows[slot])) }
            slot += 1
        }
        return found
    }

    /// The entries whose hash begins with the `width` bits of `prefix`, sorted by hash.
    func entries(prefix: Int, width: Int) -> [SealedKeys.Entry] {
        var found: [SealedKeys.Entry] = []
        found.reserveCapacity(count >> width * 5 / 4)
        var slot = prefix << (bits - width)
        let end = (prefix + 1) << (bits - width)
        // Entries pushed past the end of their region lie before the next empty slot.
        while slot < slots, slot < end || rows[slot] != 0 {
            if rows[slot] != 0, Int(hashes[slot] >> UInt64(64 - width)) == prefix {
                found.append(SealedKeys.Entry(hash: hashes[slot], row: rows[slot]))
            }
            slot += 1
        }
        found.sort { $0.hash < $1.hash }
        return found
    }

    private func place(of hash: UInt64) -> Int { Int(hash >> UInt64(64 - bits)) }

    private static func zeroed<Value>(_ count: Int) -> UnsafeMutablePointer<Value> {
        guard let memory = calloc(count, MemoryLayout<Value>.stride) else { fatalError("out of memory") }
        return memory.bindMemory(to: Value.self, capacity: count)
    }
}
