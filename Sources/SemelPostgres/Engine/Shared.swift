#if Postgres
import Semel

/// What the threads of one store have in common.
final class Shared: Sendable {
    let target: Target
    let configuration: PostgresStore.Configuration
    let environment: Environment
    let statements: Statements
    let policies: Policies
    let signals: Signals
    let segments: Segments
    let durability: StoreCapabilities.Durability
    private let clock: Locked<Clock>

    private struct Clock {
        var incarnation: Incarnation
        /// No epoch given here from now on is lower.
        var floor: Int64
        var live = LiveCount()
    }

    /// A bound on how many live records there are in the whole store, and so in any scope.
    private struct LiveCount {
        var counted: Int?
        var at: Duration = .zero
        var grantedSince = 0
    }

    /// How many claims a second all other processes together are taken to be able to make.
    private static let othersPerSecond = 150_000.0

    init(
        target: Target, configuration: PostgresStore.Configuration, environment: Environment, durability: StoreCapabilities.Durability,
        incarnation: Incarnation, seen: Int64, segments: Segments
    ) {
        self.target = target
        self.configuration = configuration
        self.environment = environment
        self.durability = durability
        self.segments = segments
        statements = Statements(target)
        policies = Policies(schema: target.quotedSchema)
        signals = Signals()
        clock = Locked(Clock(incarnation: incarnation, floor: Int64(incarnation.rawValue) << 52 | seen + 1))
    }

    // MARK: Epochs

    /// What the top bits of an epoch are, and the least epoch that may be given now.
    var epochs: (incarnation: Incarnation, floor: Int64) { clock.withLock { ($0.incarnation, $0.floor) } }

    /// An epoch was given: every later one given here is higher.
    func gave(_ epoch: Int64) { clock.withLock { $0.floor = max($0.floor, epoch + 1) } }

    func nextEpoch(after previous: Epoch, at now: Timestamp) -> Epoch {
        clock.withLock { clock in
            let least = Epoch(rawValue: max(previous.rawValue, UInt64(bitPattern: clock.floor) - 1))
            let next = least.next(at: now, in: clock.incarnation)
            clock.floor = Int64(bitPattern: next.rawValue) + 1
            return next
        }
    }

    /// What all processes have seen of the server's clock.
    func saw(_ seen: Int64, _ incarnation: Incarnation) {
        clock.withLock { clock in
            clock.incarnation = max(clock.incarnation, incarnation)
            clock.floor = max(clock.floor, Int64(clock.incarnation.rawValue) << 52 | seen + 1)
        }
    }

    // MARK: Limits

    /// Whether no scope can hold so many live records, whatever others did since they were counted.
    func isFarBelow(_ limit: Int) -> Bool {
        let now = environment.uptime()
        return clock.withLock { clock in
            guard let counted = clock.live.counted else { return false }
            let age = now - clock.live.at
            let seconds = Double(age.components.seconds) + Double(age.components.attoseconds) * 1e-18
            return Double(counted + clock.live.grantedSince) + seconds * Self.othersPerSecond < Double(limit)
        }
    }

    /// So many absent keys were claimed.
    func granted(_ count: Int) {
        clock.withLock { $0.live.grantedSince += count }
        segments.added(count)
    }

    /// - Parameter start: when counting began; what was granted since is not in it.
    func counted(_ live: Int, since start: Duration) {
        clock.withLock { $0.live = LiveCount(counted: live, at: start, grantedSince: 0) }
    }

    // MARK: Errors

    /// A refusal of PostgreSQL as the store's own error: nothing happened.
    func error(_ error: any Error) -> StoreError {
        if let error = error as? StoreError { return error }
        let place = target.place
        if let lost = error as? Connection.Lost {
            return StoreError(.indeterminate, "\(place): the answer was lost: \(lost)", underlying: lost)
        }
        guard let cause = error as? PostgresError else { return StoreError(.refused, "\(place): \(error)", underlying: error) }
        if cause.isFull {
            return StoreError(.full, "\(place): the server's disk is full; free some space: \(cause.message)", underlying: cause)
        }
        if cause.isReadOnly {
            return StoreError(.readOnly, "\(place): the server takes no writes: name the primary in the store's URL: \(cause.message)", underlying: cause)
        }
        if cause.isDamage { return StoreError(.damaged, "\(place): \(cause.message)", underlying: cause) }
        if cause.isMissingTable {
            return StoreError(.missingSchema, "\(place): the store's tables are not as they should be; run `semel store migrate`: \(cause.message)", underlying: cause)
        }
        if cause.isConflict || cause.isTimeout || cause.isOverload || cause.isShutdown {
            return StoreError(.unavailable, "\(place): \(cause)", underlying: cause)
        }
        return StoreError(.refused, "\(place): the server refused this call: \(cause)", underlying: cause)
    }
}
#endif
