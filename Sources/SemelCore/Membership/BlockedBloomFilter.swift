#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#elseif canImport(Darwin)
internal import Darwin
#endif

/// Says of a hash that it was surely never inserted, or that it may have been.
///
/// A split-block Bloom filter (Putze, Sanders, Singler 2007; Apache Parquet's variant with words of 64 bits): a hash chooses
/// one cache line and in it one bit of each of eight words, so a question costs one miss of the cache however large the
/// filter is.
///
/// **Guarantee.** What was inserted is never called absent. At ``capacity`` keys a stranger is called a possible member
/// with the probability asked for at the beginning (``expectedRate(at:)`` is exact for uniform hashes); beyond it the rate
/// rises and nothing else changes. It never decides anything: *maybe* is looked up, *surely absent* is still claimed (H32, R5).
///
/// Hashes must be as good as random: the head of a SHA-256, such as ``OperationReference/high``.
public struct BlockedBloomFilter: Sendable, Equatable {
    /// How many keys it was made for.
    public let capacity: Int
    /// How many insertions there were, repeats included.
    public private(set) var count = 0
    private var words: [UInt64]

    private static let wordsPerBlock = 8
    private static let formatVersion: UInt8 = 1

    /// - Parameters:
    ///   - capacity: the most keys at which the rate holds; at least one is taken.
    ///   - rate: how often a stranger may be called a possible member; between 10⁻⁷ and 0.5.
    public init(capacity: Int, falsePositiveRate rate: Double) {
        self.capacity = max(1, capacity)
        let load = Self.load(for: min(max(rate, 1e-7), 0.5))
        let blocks = max(1, Int((Double(self.capacity) / load).rounded(.up)))
        words = Array(repeating: 0, count: blocks * Self.wordsPerBlock)
    }

    /// The memory of its bits.
    public var byteCount: Int { words.count * 8 }

    public mutating func insert(_ hash: UInt64) {
        let (start, mixed) = place(of: hash)
        words.withUnsafeMutableBufferPointer { words in
            for word in 0..<Self.wordsPerBlock { words[start + word] |= Self.bit(word, of: mixed) }
        }
        count += 1
    }

    /// `false`: it was never inserted. `true`: it may have been.
    public func mayContain(_ hash: UInt64) -> Bool {
        let (start, mixed) = place(of: hash)
        return words.withUnsafeBufferPointer { words in
            var missing: UInt64 = 0
            for word in 0..<Self.wordsPerBlock { missing |= ~words[start + word] & Self.bit(word, of: mixed) }
            return missing == 0
        }
    }

    /// Forgets everything and keeps its size.
    public mutating func removeAll() {
        for index in words.indices { words[index] = 0 }
        count = 0
    }

    public mutating func insert(_ id: OperationID) { insert(OperationReference(id).high) }
    public func mayContain(_ id: OperationID) -> Bool { mayContain(OperationReference(id).high) }

    /// How often a stranger is called a possible member once so many different keys were inserted.
    public func expectedRate(at keys: Int) -> Double {
        Self.rate(load: Double(keys) / Double(words.count / Self.wordsPerBlock))
    }

    // MARK: Places

    /// The block is chosen by the hash's high bits, the bits in it by all of them, mixed anew.
    @inline(__always)
    private func place(of hash: UInt64) -> (start: Int, mixed: UInt64) {
        let blocks = UInt64(words.count / Self.wordsPerBlock)
        let block = Int(hash.multipliedFullWidth(by: blocks).high)
        var mixed = (hash ^ hash >> 32) &* 0xD6E8_FEB8_6659_FD93
        mixed = (mixed ^ mixed >> 32) &* 0xD6E8_FEB8_6659_FD93
        return (block * Self.wordsPerBlock, mixed ^ mixed >> 32)
    }

    @inline(__always)
    private static func bit(_ word: Int, of mixed: UInt64) -> UInt64 { 1 << (mixed >> UInt64(word * 6) & 63) }

    // MARK: Theory

    /// The rate at `load` keys a block. Keys fall into blocks as a Poisson process; in a block of i keys a word has a given
    /// bit with probability 1 − (63/64)ⁱ, and the words are independent.
    private static func rate(load: Double) -> Double {
        guard load > 0 else { return 0 }
        var sum = 0.0
        // Terms in logarithms of the Poisson weight, so that large loads do not underflow; 12 deviations are all of it.
        let spread = 12 * load.squareRoot() + 12
        let first = max(0, Int(load - spread))
        let last = Int(load + spread)
        var logWeight = -load
        for keys in 0...last {
            if keys > 0 { logWeight += logarithm(load) - logarithm(Double(keys)) }
            guard keys >= first else { continue }
            let set = 1 - power(63.0 / 64.0, keys)
            sum += exponential(logWeight) * power(set, wordsPerBlock)
        }
        return min(1, sum)
    }

    /// The most keys a block may hold at a rate.
    private static func load(for rate: Double) -> Double {
        var (low, high) = (0.01, 2000.0)
        for _ in 0..<60 {
            let middle = (low + high) / 2
            if Self.rate(load: middle) <= rate { low = middle } else { high = middle }
        }
        return low
    }

    private static func power(_ base: Double, _ exponent: Int) -> Double {
        var (result, factor, rest) = (1.0, base, exponent)
        while rest > 0 {
            if rest & 1 == 1 { result *= factor }
            factor *= factor
            rest >>= 1
        }
        return result
    }

    // MARK: Saving

    /// The filter as bytes with a checksum, for ``init(restoring:)``.
    public func saved() -> [UInt8] {
        var writer = ByteWriter(reservingCapacity: byteCount + 32)
        writer.write(UInt64(capacity))
        writer.write(UInt64(count))
        for word in words { writer.write(word) }
        return ChecksummedFrame.seal(version: Self.formatVersion, payload: writer.bytes)
    }

    /// Restores what ``saved()`` gave.
    /// - Throws: ``RestoreError`` for anything else, damaged bytes included: begin with an empty filter then.
    public init(restoring bytes: [UInt8]) throws(RestoreError) {
        do {
            let frame = try ChecksummedFrame(opening: bytes)
            guard frame.version == Self.formatVersion else {
                throw RestoreError(description: "the saved filter has the unknown format version \(frame.version)")
            }
            var reader = ByteReader(frame.payload)
            capacity = Int(clamping: try reader.read(UInt64.self))
            count = Int(clamping: try reader.read(UInt64.self))
            guard capacity > 0, reader.remaining > 0, reader.remaining % (8 * Self.wordsPerBlock) == 0 else {
                throw RestoreError(description: "the saved filter has \(reader.remaining) bytes of bits, which are no whole blocks")
            }
            words = []
            words.reserveCapacity(reader.remaining / 8)
            while reader.remaining > 0 { words.append(try reader.read()) }
        } catch {
            throw error as? RestoreError ?? RestoreError(description: "the saved filter cannot be read: \(error)")
        }
    }

    public struct RestoreError: Error, Hashable, CustomStringConvertible {
        public let description: String

        package init(description: String) { self.description = description }
    }
}

private func logarithm(_ value: Double) -> Double { log(value) }
private func exponential(_ value: Double) -> Double { exp(value) }
