package import Semel

/// The latest time that a server's answers carried, for each clock there is: one of a single server; in a cluster one for
/// each bucket, since buckets move between servers and their clocks differ.
///
/// Each question carries a time later than any seen, and the script takes that when the server's clock shows less (H9). So
/// a clock that is set back stands still for this process until it has caught up, and no epoch is given twice.
package final class SeenTime: Sendable {
    private let latest: Locked<[UInt64]>

    package init(isShared: Bool) {
        latest = Locked([UInt64](repeating: 0, count: isShared ? 1 : KeySpace.bucketCount))
    }

    /// The least time that the next answer about a bucket may carry.
    func least(_ bucket: Int) -> UInt64 { latest.withLock { $0[$0.count == 1 ? 0 : bucket] + 1 } }

    func saw(_ now: UInt64, in bucket: Int) {
        latest.withLock { latest in
            let index = latest.count == 1 ? 0 : bucket
            latest[index] = max(latest[index], now)
        }
    }

    /// Lets time pass at once, for tests: from here on it is so much later, and stands until the server's clock gets there.
    package func pass(_ duration: Duration, from now: Timestamp) {
        latest.withLock { latest in
            let start = max(latest.max() ?? 0, UInt64(now.microseconds))
            for index in latest.indices { latest[index] = start + UInt64(duration.microseconds) }
        }
    }
}
