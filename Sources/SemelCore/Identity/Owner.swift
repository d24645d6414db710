/// A nonce that tells one claimant from every other: 128 bits, drawn at random for each attempt.
///
/// With it a claimant whose own claim's answer was lost recognises its record and is given the same token again (H14),
/// and nobody who was not given it can finish, renew or release the claim (R13).
public struct Owner: Hashable, Sendable {
    public let high: UInt64
    public let low: UInt64

    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    public init(using generator: inout some RandomNumberGenerator) {
        high = generator.next()
        low = generator.next()
    }

    /// Compares without leaving early, so the time taken tells nothing about how much of a guess was right (H42).
    public static func == (left: Owner, right: Owner) -> Bool {
        (left.high ^ right.high) | (left.low ^ right.low) == 0
    }
}

/// What the holder of a claim presents with every transition: its epoch and its nonce.
public struct FencingToken: Hashable, Sendable, CustomStringConvertible {
    public let epoch: Epoch
    public let owner: Owner

    public init(epoch: Epoch, owner: Owner) {
        self.epoch = epoch
        self.owner = owner
    }

    /// The token as text: 48 hexadecimal digits, the epoch first.
    public var description: String {
        [epoch.rawValue, owner.high, owner.low].map { value in
            let digits = String(value, radix: 16)
            return String(repeating: "0", count: 16 - digits.utf8.count) + digits
        }.joined()
    }

    /// Reads what ``description`` wrote; `nil` for anything else.
    public init?(_ text: some StringProtocol) {
        let digits = Array(text.utf8)
        guard digits.count == 48, digits.allSatisfy({ ($0 >= 0x30 && $0 <= 0x39) || ($0 >= 0x61 && $0 <= 0x66) }),
            let epoch = UInt64(text.prefix(16), radix: 16),
            let high = UInt64(text.dropFirst(16).prefix(16), radix: 16),
            let low = UInt64(text.dropFirst(32), radix: 16)
        else { return nil }
        self.init(epoch: Epoch(rawValue: epoch), owner: Owner(high: high, low: low))
    }
}
