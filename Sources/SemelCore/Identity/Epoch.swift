/// The fencing token's number: it rises with every new holder of a key, and never repeats.
///
/// The top 12 bits are the store's *incarnation*, which a restore from a backup raises; the rest counts at least as fast
/// as the store's clock does in microseconds. So a target that remembers the highest epoch it saw never meets a lower
/// one from a later holder, even after the key was forgotten or the store was restored (H21).
public struct Epoch: Hashable, Comparable, Sendable, CustomStringConvertible {
    public let rawValue: UInt64

    public init(rawValue: UInt64) {
        self.rawValue = rawValue
    }

    public static func < (left: Epoch, right: Epoch) -> Bool { left.rawValue < right.rawValue }

    public static let zero = Epoch(rawValue: 0)

    public var incarnation: Incarnation { Incarnation(rawValue: UInt16(rawValue >> 52)) }

    /// The epoch after `self`: max(previous + 1, the store's time in microseconds) under the store's incarnation.
    public func next(at now: Timestamp, in incarnation: Incarnation) -> Epoch {
        let clock = UInt64(incarnation.rawValue) << 52 | UInt64(max(0, now.microseconds)) & (1 << 52 - 1)
        return Epoch(rawValue: max(rawValue + 1, clock))
    }

    public var description: String { String(rawValue) }
}

/// How often a store was restored from a backup: 0 to 2047, only ever raised.
public struct Incarnation: Hashable, Comparable, Sendable {
    public static let limit: UInt16 = 2047

    public let rawValue: UInt16

    public init(rawValue: UInt16) {
        self.rawValue = min(rawValue, Self.limit)
    }

    public static func < (left: Incarnation, right: Incarnation) -> Bool { left.rawValue < right.rawValue }
}
