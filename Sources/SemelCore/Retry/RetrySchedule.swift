/// When to try again: exponential pauses with full jitter, inside a deadline.
///
/// The pause before attempt n + 1 is random between nothing and `from` × 2ⁿ⁻¹, at most `upTo`. Full jitter spreads those who
/// failed together as widely as possible (M. Brooker, "Exponential Backoff And Jitter"). A schedule never asks for a
/// pause that would reach the deadline: giving up at once is better than waiting for an attempt that comes too late.
///
/// It is a value without a clock or randomness of its own; every time in it is a `Duration` (R3).
public struct RetrySchedule: Hashable, Sendable {
    public struct Configuration: Hashable, Sendable {
        /// The bound of the first pause.
        public var from: Duration
        /// The bound of every pause, but for one that the other side asked for.
        public var upTo: Duration
        /// How many attempts there may be, the first included.
        public var attempts: Int
        /// How long after the beginning of the first attempt the last one must have begun; nil for no such bound.
        public var deadline: Duration?

        /// - Throws: when an attempt could never be made or a pause could never grow: `from` not above 0, `upTo` below
        ///   `from`, fewer attempts than one, or a deadline not above 0.
        public init(
            from: Duration, upTo: Duration, attempts: Int, deadline: Duration?
        ) throws(RetryConfigurationError) {
            guard from > .zero else { throw .firstPause }
            guard upTo >= from else { throw .longestPause }
            guard attempts >= 1 else { throw .attempts }
            if let deadline, deadline <= .zero { throw .deadline }
            self.from = from
            self.upTo = upTo
            self.attempts = attempts
            self.deadline = deadline
        }
    }

    public let configuration: Configuration

    /// How many attempts have been granted, the first included. It begins with 1.
    public private(set) var attempt = 1

    public init(_ configuration: Configuration) {
        self.configuration = configuration
    }

    /// Decides after a failed attempt: how long to pause before the next one, or nil to give up.
    ///
    /// - Parameters:
    ///   - elapsed: the time since the first attempt began, on a clock that never goes back.
    ///   - retryAfter: the pause that the other side asked for (`Retry-After`). The pause is then that long plus the jitter,
    ///     so that those who were told the same do not return at the same moment. One that reaches the deadline is a
    ///     reason to give up.
    public mutating func next(
        elapsed: Duration, retryAfter: Duration? = nil, using randomness: inout some RandomNumberGenerator
    ) -> Duration? {
        guard attempt < configuration.attempts else { return nil }
        let floor = max(retryAfter ?? .zero, .zero)
        var bound = pauseBound
        if let remaining = remaining(elapsed: elapsed) {
            let room = remaining - floor
            guard room > .zero else { return nil }
            // One step less than the room: the next attempt begins before the deadline, not on it.
            bound = min(bound, room - .nanoseconds(1))
        }
        attempt += 1
        return floor + .random(upTo: max(bound, .zero), using: &randomness)
    }

    /// The longest that the attempt now beginning should take: an equal share, for it and for each one after it, of the time
    /// until the deadline; nil without a deadline, zero when it has passed.
    ///
    /// A first attempt that hangs thus leaves time for the others.
    public func share(elapsed: Duration) -> Duration? {
        remaining(elapsed: elapsed).map { $0 / (configuration.attempts - attempt + 1) }
    }

    private func remaining(elapsed: Duration) -> Duration? {
        configuration.deadline.map { max($0 - elapsed, .zero) }
    }

    /// `from` × 2ⁿ⁻¹, at most `upTo`, by doublings that stop before they could overflow.
    private var pauseBound: Duration {
        var bound = configuration.from
        for _ in 1..<max(attempt, 1) {
            guard bound < configuration.upTo / 2 else { return configuration.upTo }
            bound *= 2
        }
        return bound
    }
}

/// Why a configuration of retries makes no sense.
public enum RetryConfigurationError: Error, Hashable, Sendable, CustomStringConvertible {
    case firstPause, longestPause, attempts, deadline

    public var description: String {
        switch self {
        case .firstPause: "the first pause (from) must be longer than 0, such as 200ms"
        case .longestPause: "the longest pause (upTo) must not be shorter than the first (from)"
        case .attempts: "there must be at least 1 attempt"
        case .deadline: "the deadline must be longer than 0, such as 30s"
        }
    }
}

extension Duration {
    /// A random duration from zero to `bound` inclusive, in whole nanoseconds.
    fileprivate static func random(upTo bound: Duration, using randomness: inout some RandomNumberGenerator) -> Duration {
        let attosecondsPerNanosecond: Int128 = 1_000_000_000
        let nanoseconds = Int128.random(in: 0...bound.attoseconds / attosecondsPerNanosecond, using: &randomness)
        return Duration(attoseconds: nanoseconds * attosecondsPerNanosecond)
    }
}
