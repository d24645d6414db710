/// A point on a store's own clock, in microseconds since 1970-01-01T00:00:00Z.
///
/// Only the store's clock decides leases and retention; a `Timestamp` of one store is never compared with a time read
/// anywhere else (H9).
public struct Timestamp: Hashable, Comparable, Sendable {
    public let microseconds: Int64

    public init(microseconds: Int64) {
        self.microseconds = microseconds
    }

    public static let distantPast = Timestamp(microseconds: 0)
    public static let distantFuture = Timestamp(microseconds: .max)

    public static func < (left: Timestamp, right: Timestamp) -> Bool { left.microseconds < right.microseconds }

    public static func + (time: Timestamp, duration: Duration) -> Timestamp {
        let (sum, overflow) = time.microseconds.addingReportingOverflow(duration.microseconds)
        return overflow ? .distantFuture : Timestamp(microseconds: sum)
    }

    public static func - (later: Timestamp, earlier: Timestamp) -> Duration {
        .microseconds(later.microseconds - earlier.microseconds)
    }
}

extension Duration {
    /// The whole microseconds in this duration; the largest representable number when there are more.
    package var microseconds: Int64 {
        let (seconds, attoseconds) = components
        let (whole, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000)
        return overflow ? .max : whole + attoseconds / 1_000_000_000_000
    }
}

/// What a store's clock says at one moment.
///
/// Most engines have one clock and both times are the same. An embedded store has none of its own: its leases run on the
/// machine's monotonic clock, its retentions on a persisted one that never goes back.
public struct StoreTime: Hashable, Sendable {
    /// The time leases are measured in.
    public var lease: Timestamp
    /// The time retentions are measured in, and epochs are drawn from.
    public var retention: Timestamp

    public init(lease: Timestamp, retention: Timestamp) {
        self.lease = lease
        self.retention = retention
    }

    public init(_ now: Timestamp) {
        self.init(lease: now, retention: now)
    }
}
