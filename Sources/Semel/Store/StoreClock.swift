internal import Foundation
public import SemelCore
#if canImport(Glibc)
internal import Glibc
#endif

/// The clock of a store that lives inside this process. Engines with a server use the server's.
public protocol StoreClock: Sendable {
    func now() -> StoreTime
}

/// Leases on the machine's monotonic clock; retention on its real-time one, read once when this is made and advanced by
/// the monotonic one from then on.
///
/// So whatever is done to the wall clock while the process lives, no key expires early, and time never goes back. Not
/// corrected: a wall clock that was wrong when this was made stays wrong by as much until the process starts again. A store
/// on disk also persists the highest time it saw, and looks at the difference when it is opened.
public final class SystemStoreClock: StoreClock {
    private let anchor: (real: Int64, monotonic: Int64)

    public convenience init() { self.init(real: Self.microseconds(CLOCK_REALTIME)) }

    /// - Parameter real: what the wall clock shows, in microseconds since 1970.
    init(real: Int64) { anchor = (real, Self.microseconds(CLOCK_BOOTTIME)) }

    public func now() -> StoreTime {
        let monotonic = Self.microseconds(CLOCK_BOOTTIME)
        return StoreTime(
            lease: Timestamp(microseconds: monotonic),
            retention: Timestamp(microseconds: anchor.real + (monotonic - anchor.monotonic)))
    }

    /// `CLOCK_BOOTTIME` goes on while the machine sleeps, as a holder's remote effects do.
    private static func microseconds(_ clock: clockid_t) -> Int64 {
        var time = timespec()
        clock_gettime(clock, &time)
        return Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1000
    }
}
