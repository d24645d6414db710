/// Issues UUIDs of version 7, each greater than the one before it.
///
/// Within a millisecond a counter of 26 bits rises (RFC 9562 §6.2, method 1): it takes the 12 bits after the version and
/// the first 14 after the variant; the last 48 are random in every identifier. In each new millisecond the counter begins
/// at a random number below 2²⁵, so there are at least 2²⁵ identifiers for it.
///
/// One generator never issues an identifier twice, and refuses when the clock goes back (H34). Generators of different
/// processes, or of a process before and after its restart, are told apart by 73 random bits, not by a promise.
///
/// It is a value and takes the time from outside. Share one through ``Locked``; do not copy it, as the copies' identifiers
/// would rise side by side.
public struct UUIDv7Generator<Randomness: RandomNumberGenerator & Sendable>: Sendable {
    private var randomness: Randomness
    /// What the last identifier was made of.
    var last: (milliseconds: UInt64, counter: UInt32)?

    static var counterBits: UInt32 { 26 }

    public init(randomness: Randomness) {
        self.randomness = randomness
    }

    /// Issues an identifier.
    ///
    /// - Parameter milliseconds: the time since 1970.
    /// - Throws: when the clock went back, the millisecond is exhausted, or the time does not fit in 48 bits. Nothing is
    ///   issued then and the generator goes on from where it was.
    public mutating func next(milliseconds: Int64) throws(IdentifierError) -> UUIDv7 {
        guard let now = UInt64(exactly: milliseconds), now < 1 << 48 else { throw .timeOutOfRange }
        let counter: UInt32
        if let last, now <= last.milliseconds {
            guard now == last.milliseconds else {
                throw .clockWentBack(by: .milliseconds(Int64(last.milliseconds - now)))
            }
            guard last.counter < 1 << Self.counterBits - 1 else { throw .exhausted }
            counter = last.counter + 1
        } else {
            counter = UInt32.random(in: 0..<1 << (Self.counterBits - 1), using: &randomness)
        }
        last = (now, counter)
        return UUIDv7(
            milliseconds: now,
            randomA: UInt16(counter >> 14),
            randomB: UInt64(counter & 0x3FFF) << 48 | UInt64.random(in: 0..<1 << 48, using: &randomness)
        )
    }
}

extension UUIDv7Generator where Randomness == SystemRandomNumberGenerator {
    public init() {
        self.init(randomness: SystemRandomNumberGenerator())
    }
}
