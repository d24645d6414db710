import Foundation
import SemelCore
import Testing

@Suite("The blocked Bloom filter")
struct BlockedBloomFilterTests {
    /// Ten million with `SEMEL_FILTER_KEYS=10000000`.
    private static let keys = ProcessInfo.processInfo.environment["SEMEL_FILTER_KEYS"].flatMap { Int($0) } ?? 300_000

    /// The n-th number of a stream in which none occurs twice: SplitMix64's output is a bijection of its state.
    private func number(_ index: Int, stream: UInt64) -> UInt64 {
        var value = stream &+ UInt64(index) &* 0x9E37_79B9_7F4A_7C15
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }

    @Test("calls nothing absent that was inserted, and strangers present within 1.2 of theory at its load", arguments: [0.01, 0.001])
    func rates(_ rate: Double) {
        var filter = BlockedBloomFilter(capacity: Self.keys, falsePositiveRate: rate)
        let start = UInt64.random(in: 0 ... .max)
        for index in 0..<Self.keys { filter.insert(number(index, stream: start)) }
        let lost = (0..<Self.keys).count { !filter.mayContain(number($0, stream: start)) }
        #expect(lost == 0, "of \(Self.keys) keys, stream \(start)")
        let strangers = max(Self.keys, 1_000_000)
        let wrong = (Self.keys..<Self.keys + strangers).count { filter.mayContain(number($0, stream: start)) }
        let measured = Double(wrong) / Double(strangers)
        print(
            "false positives: \(measured) measured, \(rate) asked for, \(filter.expectedRate(at: Self.keys)) expected; \(Double(filter.byteCount * 8) / Double(Self.keys)) bits a key, stream \(start)"
        )
        #expect(measured <= 1.2 * rate)
        #expect(filter.expectedRate(at: Self.keys) <= rate * 1.001)
    }

    @Test("is restored as it was saved")
    func restores() throws {
        var filter = BlockedBloomFilter(capacity: 1000, falsePositiveRate: 0.01)
        for index in 0..<1000 { filter.insert(number(index, stream: 7)) }
        let restored = try BlockedBloomFilter(restoring: filter.saved())
        #expect(restored == filter)
    }

    @Test("refuses saved bytes with any bit flipped, and any part of them")
    func refusesDamage() {
        var filter = BlockedBloomFilter(capacity: 20, falsePositiveRate: 0.1)
        filter.insert(42)
        let bytes = filter.saved()
        for index in bytes.indices {
            var damaged = bytes
            damaged[index] ^= 1 << UInt8(index % 8)
            #expect(throws: BlockedBloomFilter.RestoreError.self) { try BlockedBloomFilter(restoring: damaged) }
            #expect(throws: BlockedBloomFilter.RestoreError.self) { try BlockedBloomFilter(restoring: Array(bytes[..<index])) }
        }
    }

    @Test("says maybe of everything rather than no when it is overfull")
    func overfull() {
        var filter = BlockedBloomFilter(capacity: 1, falsePositiveRate: 0.5)
        for index in 0..<10_000 { filter.insert(number(index, stream: 3)) }
        #expect((0..<10_000).allSatisfy { filter.mayContain(number($0, stream: 3)) })
    }
}

@Suite("The sliding window set")
struct SlidingWindowSetTests {
    private func time(_ seconds: Int64) -> Timestamp { Timestamp(microseconds: 1_000_000_000 + seconds * 1_000_000) }

    @Test("remembers each element for the window, and at most one slice longer")
    func window() {
        for entered in Int64(0)..<40 {
            var set = SlidingWindowSet<String>(window: .seconds(80), limit: 100, slices: 8)
            _ = set.enter("other", at: time(0))
            #expect(set.enter("a", at: time(entered)) == .entered)
            #expect(set.enter("a", at: time(entered + 79)) == .present)
            #expect(set.contains("a", at: time(entered + 79)))
            #expect(!set.contains("a", at: time(entered + 91)))
        }
    }

    @Test("is exact and bounded: when it is full it refuses, and never forgets early")
    func bounded() {
        var set = SlidingWindowSet<Int>(window: .seconds(10), limit: 3, slices: 2)
        for number in 0..<3 { #expect(set.enter(number, at: time(0)) == .entered) }
        guard case .full(let until) = set.enter(3, at: time(1)) else { return _ = Issue.record("it is full") }
        #expect(set.enter(0, at: time(9)) == .present)
        #expect(set.count == 3)
        #expect(set.enter(3, at: until) == .entered)
        #expect(set.count == 1)
        set.remove(3)
        #expect(set.count == 0 && set.enter(3, at: until) == .entered)
    }

    @Test("does not go back with its clock")
    func backwards() {
        var set = SlidingWindowSet<Int>(window: .seconds(10), limit: 3)
        _ = set.enter(1, at: time(100))
        #expect(set.enter(2, at: time(0)) == .entered)
        #expect(set.contains(2, at: time(109)))
    }
}

@Suite("The clock cache")
struct ClockCacheTests {
    @Test("keeps within its bounds and spares what is asked for")
    func evicts() {
        var cache = ClockCache<Int, String>(countLimit: 4, costLimit: 1000)
        for number in 0..<4 { cache.insert("\(number)", for: number, cost: 10) }
        for number in 4..<100 {
            #expect(cache.value(for: 0) == "0")
            cache.insert("\(number)", for: number, cost: 10)
            #expect(cache.count == 4 && cache.cost == 40)
        }
    }

    @Test("counts its cost through every insertion, replacement and removal")
    func cost() {
        var cache = ClockCache<Int, Int>(countLimit: 50, costLimit: 400)
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<5000 {
            let key = Int.random(in: 0..<80, using: &generator)
            if Bool.random(using: &generator) {
                cache.insert(key, for: key, cost: Int.random(in: 1...50, using: &generator))
            } else {
                cache.remove(key)
            }
            #expect(cache.cost <= 400 && cache.count <= 50)
        }
        for key in 0..<80 { cache.remove(key) }
        #expect(cache.cost == 0 && cache.count == 0)
        cache.insert(1, for: 1, cost: 51)
        #expect(cache.value(for: 1) == nil, "it costs more than an eighth")
    }
}
