@testable import SemelCore
import Testing

/// Randomness that gives the same word for ever.
private struct Constant: RandomNumberGenerator, Sendable {
    var word: UInt64
    func next() -> UInt64 { word }
}

@Suite("UUIDs of version 7")
struct UUIDv7Tests {
    static let now: Int64 = 0x017F_22E2_79B0

    @Test("the layout is that of RFC 9562, appendix A.6")
    func layout() throws {
        let example = UUIDv7(milliseconds: 0x017F_22E2_79B0, randomA: 0xCC3, randomB: 0x18C4_DC0C_0C07_398F)
        #expect(example.description == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f")
        #expect(UUIDv7("017F22E2-79B0-7CC3-98C4-DC0C0C07398F") == example)
        #expect(example.milliseconds == 1_645_557_742_000)
        #expect(example.bytes == [0x01, 0x7F, 0x22, 0xE2, 0x79, 0xB0, 0x7C, 0xC3, 0x98, 0xC4, 0xDC, 0x0C, 0x0C, 0x07, 0x39, 0x8F])
    }

    @Test("a text that is no UUID of version 7 is refused", arguments: [
        "", "017f22e2-79b0-7cc3-98c4-dc0c0c07398", "017f22e2-79b0-7cc3-98c4-dc0c0c07398ff", "017f22e279b07cc398c4dc0c0c07398f",
        "017f22e2-79b0-4cc3-98c4-dc0c0c07398f", "017f22e2-79b0-7cc3-d8c4-dc0c0c07398f", "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
        "017f22e2--79b-7cc3-98c4-dc0c0c07398f", "{17f22e2-79b0-7cc3-98c4-dc0c0c07398f", "017f22e2-79b0-7cc3-98c4-dc0c0c0739é",
    ])
    func refusesText(text: String) {
        #expect(UUIDv7(text) == nil)
    }

    @Test("identifiers rise strictly, within a millisecond and across, in value, bytes and text")
    func monotonic() throws {
        var random = SeededRandom.fresh()
        var generator = UUIDv7Generator(randomness: SeededRandom(seed: random.next()))
        var now = Self.now
        var previous = try generator.next(milliseconds: now)
        for _ in 0..<5_000 {
            if Int.random(in: 0..<20, using: &random) == 0 { now += .random(in: 1...50, using: &random) }
            let next = try generator.next(milliseconds: now)
            #expect(previous < next, "seed \(random.seed)")
            #expect(previous.description < next.description)
            #expect(previous.bytes.lexicographicallyPrecedes(next.bytes))
            #expect(next.milliseconds == now)
            #expect(UUIDv7(next.description) == next)
            previous = next
        }
    }

    @Test("a clock that goes back is refused, and issuing goes on when it has caught up (H34)")
    func backwardClock() throws {
        var generator = UUIDv7Generator(randomness: SeededRandom(seed: 1))
        let first = try generator.next(milliseconds: Self.now)
        #expect(throws: IdentifierError.clockWentBack(by: .milliseconds(1))) { _ = try generator.next(milliseconds: Self.now - 1) }
        #expect(throws: IdentifierError.clockWentBack(by: .seconds(3600))) { _ = try generator.next(milliseconds: Self.now - 3_600_000) }
        #expect(try generator.next(milliseconds: Self.now) > first)
    }

    @Test("with a clock that jumps about, what is issued is unique and rises (H34)")
    func jumpingClock() throws {
        var random = SeededRandom.fresh()
        // Randomness that never changes: only counter and refusal keep the identifiers apart.
        var generator = UUIDv7Generator(randomness: Constant(word: 0))
        var issued: [UUIDv7] = []
        var refused = 0
        for _ in 0..<5_000 {
            do {
                issued.append(try generator.next(milliseconds: Self.now + .random(in: 0...1_000, using: &random)))
            } catch IdentifierError.clockWentBack {
                refused += 1
            }
        }
        #expect(issued.count > 1 && refused > 1)
        #expect(zip(issued, issued.dropFirst()).allSatisfy { $0 < $1 }, "seed \(random.seed)")
    }

    @Test("an exhausted millisecond refuses instead of repeating; it has at least 2²⁵ identifiers")
    func exhausted() throws {
        // The counter begins as high as it can: just below 2²⁵.
        var generator = UUIDv7Generator(randomness: Constant(word: .max))
        let first = try generator.next(milliseconds: Self.now)
        #expect(generator.last?.counter == UInt32(1 << 25 - 1))
        generator.last?.counter = 1 << 26 - 3
        _ = try generator.next(milliseconds: Self.now)
        let last = try generator.next(milliseconds: Self.now)
        #expect(last > first)
        #expect(throws: IdentifierError.exhausted) { _ = try generator.next(milliseconds: Self.now) }
        #expect(throws: IdentifierError.exhausted) { _ = try generator.next(milliseconds: Self.now) }
        #expect(try generator.next(milliseconds: Self.now + 1) > last)
    }

    @Test("times that 48 bits cannot hold are refused", arguments: [-1, 1 << 48, .max, .min] as [Int64])
    func timeRange(milliseconds: Int64) throws {
        var generator = UUIDv7Generator(randomness: SeededRandom(seed: 1))
        #expect(throws: IdentifierError.timeOutOfRange) { _ = try generator.next(milliseconds: milliseconds) }
        #expect(try generator.next(milliseconds: 0).milliseconds == 0)
        #expect(try generator.next(milliseconds: 1 << 48 - 1).milliseconds == 1 << 48 - 1)
    }

    @Test("many tasks sharing a generator get different identifiers")
    func concurrent() async throws {
        let generator = Locked(UUIDv7Generator(randomness: Constant(word: 0)))
        let issued = try await withThrowingTaskGroup(of: [UUIDv7].self) { group in
            for _ in 0..<8 {
                group.addTask {
                    try (0..<1_000).map { _ in
                        try generator.withLock { generator throws(IdentifierError) in try generator.next(milliseconds: Self.now) }
                    }
                }
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }
        #expect(issued.count == 8_000)
        #expect(Set(issued).count == 8_000)
    }
}

@Suite("Snowflakes")
struct SnowflakeTests {
    static let epoch: Int64 = 1_700_000_000_000
    static let now: Int64 = epoch + 5

    private func generator(node: Int64 = 3, nodeBits: Int = 10, issuedUntil: Int64? = nil) throws -> SnowflakeGenerator {
        try SnowflakeGenerator(node: node, layout: .init(epoch: Self.epoch, nodeBits: nodeBits), issuedUntil: issuedUntil)
    }

    @Test("time, node and sequence stand in their places")
    func layout() throws {
        var generator = try generator()
        #expect(try generator.next(milliseconds: Self.now) == 5 << 22 | 3 << 12)
        #expect(try generator.next(milliseconds: Self.now) == 5 << 22 | 3 << 12 | 1)
        #expect(try generator.next(milliseconds: Self.now + 1) == 6 << 22 | 3 << 12)
        var narrow = try self.generator(node: 0, nodeBits: 0)
        #expect(try narrow.next(milliseconds: Self.now) == 5 << 22)
        var wide = try self.generator(node: 1 << 21 - 1, nodeBits: 21)
        #expect(try wide.next(milliseconds: Self.now) == 5 << 22 | (1 << 21 - 1) << 1)
    }

    @Test("nodes never meet, and no field reaches into the next, in every layout")
    func nodes() throws {
        var issued: Set<Int64> = []
        var count = 0
        for node in [0, 1, 2, 3] as [Int64] {
            var generator = try generator(node: node, nodeBits: 2)
            for millisecond in 0..<3 as Range<Int64> {
                for _ in 0..<500 {
                    issued.insert(try generator.next(milliseconds: Self.now + millisecond))
                    count += 1
                }
            }
        }
        #expect(issued.count == count)
        #expect(issued.allSatisfy { $0 > 0 })
    }

    @Test("a clock that goes back is refused, and issuing goes on when it has caught up (H34)")
    func backwardClock() throws {
        var generator = try generator()
        let first = try generator.next(milliseconds: Self.now)
        #expect(throws: IdentifierError.clockWentBack(by: .milliseconds(2))) { _ = try generator.next(milliseconds: Self.now - 2) }
        #expect(try generator.next(milliseconds: Self.now) == first + 1)
    }

    @Test("after a restart nothing is issued up to the time that the previous generator may have used (H34)")
    func restart() throws {
        var previous = try generator()
        let issued = try previous.next(milliseconds: Self.now)
        var naive = try generator()
        #expect(try naive.next(milliseconds: Self.now) == issued)
        var resumed = try generator(issuedUntil: Self.now)
        #expect(throws: IdentifierError.clockWentBack(by: .milliseconds(1))) { _ = try resumed.next(milliseconds: Self.now - 1) }
        #expect(throws: IdentifierError.exhausted) { _ = try resumed.next(milliseconds: Self.now) }
        #expect(try resumed.next(milliseconds: Self.now + 1) > issued)
    }

    @Test("an exhausted millisecond refuses instead of repeating", arguments: [10, 20, 21])
    func exhausted(nodeBits: Int) throws {
        var generator = try generator(nodeBits: nodeBits)
        var issued: Set<Int64> = []
        let count = Int(generator.layout.identifiersPerMillisecond)
        for _ in 0..<count { issued.insert(try generator.next(milliseconds: Self.now)) }
        #expect(issued.count == count)
        #expect(throws: IdentifierError.exhausted) { _ = try generator.next(milliseconds: Self.now) }
        #expect(try generator.next(milliseconds: Self.now + 1) > issued.max()!)
    }

    @Test("times outside the 69 years of the epoch are refused, never wrapped around", arguments: [epoch - 1, epoch + 1 << 41, .max, .min, -1] as [Int64])
    func timeRange(milliseconds: Int64) throws {
        var generator = try generator()
        #expect(throws: IdentifierError.timeOutOfRange) { _ = try generator.next(milliseconds: milliseconds) }
        #expect(try generator.next(milliseconds: Self.epoch + 1 << 41 - 1) > 0)
    }

    @Test("layouts and node numbers that do not fit are refused")
    func configuration() throws {
        #expect(throws: SnowflakeConfigurationError.nodeBits(22)) { _ = try generator(nodeBits: 22) }
        #expect(throws: SnowflakeConfigurationError.nodeBits(-1)) { _ = try generator(nodeBits: -1) }
        #expect(throws: SnowflakeConfigurationError.node(1024, greatest: 1023)) { _ = try generator(node: 1024) }
        #expect(throws: SnowflakeConfigurationError.node(-1, greatest: 1023)) { _ = try generator(node: -1) }
        #expect(throws: SnowflakeConfigurationError.node(1, greatest: 0)) { _ = try generator(node: 1, nodeBits: 0) }
    }

    @Test("many tasks sharing a generator get different identifiers")
    func concurrent() async throws {
        let generator = Locked(try generator(nodeBits: 8))
        let issued = try await withThrowingTaskGroup(of: [Int64].self) { group in
            for _ in 0..<8 {
                group.addTask {
                    try (0..<1_000).map { _ in
                        try generator.withLock { generator throws(IdentifierError) in try generator.next(milliseconds: Self.now) }
                    }
                }
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }
        #expect(Set(issued).count == 8_000)
    }
}
