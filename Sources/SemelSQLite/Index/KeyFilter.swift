#if canImport(Glibc)
import Glibc
#endif

/// Says which of up to eight sealed ranges may hold a hash: eight Bloom filters side by side, one bit of each byte per
/// range, so that a few reads of memory ask all of them at once.
///
/// "Surely absent" is always true, because a range is complete before its bit is asked; "maybe" (0.1 % of the strangers
/// per range) is looked up. It only saves reads and decides nothing (H32). For one range alone, `BlockedBloomFilter` is
/// the better filter; this one asks eight at the price of one and can forget one of them.
final class KeyFilter {
    static let columns = 8

    private let size: Int
    private let bits: UnsafeMutablePointer<UInt8>
    private static let probes = 7

    /// - Parameter limit: the most keys a range holds; 16 bits are spent on each.
    init(limit: Int) {
        size = 1 << (Int.bitWidth - (16 * limit - 1).leadingZeroBitCount)
        guard let memory = calloc(size, 1) else { fatalError("out of memory") }
        bits = memory.bindMemory(to: UInt8.self, capacity: size)
    }

    deinit { free(bits) }

    func insert(_ hash: UInt64, column: Int) {
        let bit = UInt8(1) << UInt8(column)
        var probe = Probe(hash, size)
        for _ in 0..<Self.probes { bits[probe.next()] |= bit }
    }

    /// One bit for each column that may hold the hash.
    func columns(of hash: UInt64) -> UInt8 {
        var probe = Probe(hash, size)
        var columns = UInt8.max
        for _ in 0..<Self.probes {
            columns &= bits[probe.next()]
            if columns == 0 { break }
        }
        return columns
    }

    func clear(column: Int) {
        let mask = ~(UInt8(1) << UInt8(column))
        for index in 0..<size { bits[index] &= mask }
    }

    /// Places drawn from the two halves of a hash (Kirsch and Mitzenmacher 2006). The hash is the head of a SHA-256, and
    /// all its bits are as good as random.
    private struct Probe {
        private var place: UInt64
        private let step: UInt64
        private let mask: UInt64

        init(_ hash: UInt64, _ size: Int) {
            place = hash
            step = hash >> 32 | hash << 32 | 1
            mask = UInt64(size - 1)
        }

        mutating func next() -> Int {
            defer { place = place &+ step }
            return Int(place & mask)
        }
    }
}
