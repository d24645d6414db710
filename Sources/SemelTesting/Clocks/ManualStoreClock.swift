public import Semel

/// A store's clock that stands still until it is told otherwise, for tests of stores that live inside this process.
///
/// Leases and retentions have separate times, as on a real machine: a monotonic clock, and a wall clock that somebody may
/// set back. ``advance(by:)`` moves both. Safe to use from any thread.
public final class ManualStoreClock: StoreClock {
    private let time: Locked<StoreTime>

    /// - Parameter start: the first reading of both times; by default the beginning of 2026.
    public init(start: Timestamp = Timestamp(microseconds: 1_767_225_600_000_000)) {
        time = Locked(StoreTime(start))
    }

    public func now() -> StoreTime { time.withLock { $0 } }

    /// Time passes, for leases and for retentions.
    public func advance(by duration: Duration) {
        time.withLock { time in
            time.lease = time.lease + duration
            time.retention = time.retention + duration
        }
    }

    /// Time passes for leases alone: the wall clock stands.
    public func advanceLeases(by duration: Duration) {
        time.withLock { $0.lease = $0.lease + duration }
    }

    /// Time passes for retentions alone.
    public func advanceRetentions(by duration: Duration) {
        time.withLock { $0.retention = $0.retention + duration }
    }

    /// Somebody sets the wall clock back. The monotonic clock, which leases run on, does not care.
    public func setWallClockBack(by duration: Duration) {
        time.withLock { $0.retention = $0.retention + .zero - duration }
    }
}

extension Timestamp {
    fileprivate static func - (time: Timestamp, duration: Duration) -> Timestamp { time + (.zero - duration) }
}
