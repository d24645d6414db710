public import Semel

/// A store to be held to the laws: fresh, in a namespace of its own, with what a test may do to it.
///
/// What a backend cannot do (`nil`) makes the laws that need it *not applicable*, which is reported, never hidden.
public struct StoreSubject: Sendable {
    /// Something a law may need beyond the store itself.
    public enum Capability: String, Hashable, Sendable, CaseIterable {
        /// A new store object can be opened over the same data.
        case reopening
        /// Leases rest on the process that opened the store, so opening it anew ends them.
        case leasesEndOnReopening
        /// A second connection to the same data can be had while the first is open.
        case secondConnection
        /// The clock that retentions and epochs rest on can be set back under the store.
        case wallClock
        /// A record of an unknown state can be planted.
        case corruption
    }

    public var store: any OperationStore

    /// The unit of time of the laws: leases and retentions are a few of these, and a law waits a few of these. Long
    /// against a round trip to the store, and short enough to be waited for.
    public var moment: Duration

    /// Lets the store's time pass: advances a manual clock, or really waits for a server's.
    public var elapse: @Sendable (Duration) async throws -> Void

    /// Whether ``elapse`` really waits; laws that take many steps then take fewer.
    public var waitsForReal = true

    /// How long, in real time, a law waits for a signal or for concurrent calls before it says that they never came.
    public var patience: Duration

    /// Closes the store and opens it again over the same data, as a restart of the process would.
    public var reopen: (@Sendable () async throws -> any OperationStore)?

    /// Whether ``reopen`` ends the leases of before.
    public var leasesEndOnReopening: Bool

    /// Another store object over the same data, while the first stays open.
    public var connect: (@Sendable () async throws -> any OperationStore)?

    /// Sets the store's wall clock back.
    public var setWallClockBack: (@Sendable (Duration) async throws -> Void)?

    /// Overwrites the stored state of a record by a number that no version knows.
    public var corrupt: (@Sendable (OperationID, _ state: UInt8) async throws -> Void)?

    /// Decides everything random. A violation found by chance names it; the same seed repeats it.
    public var seed: UInt64

    /// A store inside this process, on a manual clock: no law waits for real.
    public init(
        _ store: any OperationStore, clock: ManualStoreClock, patience: Duration = .seconds(120),
        seed: UInt64 = .random(in: 0...UInt64.max)
    ) {
        self.init(
            store, moment: .seconds(60), patience: patience, seed: seed, elapse: { clock.advance(by: $0) })
        waitsForReal = false
        setWallClockBack = { clock.setWallClockBack(by: $0) }
    }

    /// A store whose time nobody commands: the laws really wait.
    ///
    /// - Parameter moment: at least ten times a slow round trip.
    public init(
        _ store: any OperationStore, moment: Duration = .milliseconds(300), patience: Duration = .seconds(120),
        seed: UInt64 = .random(in: 0...UInt64.max),
        elapse: @escaping @Sendable (Duration) async throws -> Void = { try await Task.sleep(for: $0) }
    ) {
        self.store = store
        self.moment = moment
        self.patience = patience
        self.seed = seed
        self.elapse = elapse
        leasesEndOnReopening = false
    }

    public var capabilities: Set<Capability> {
        var capabilities: Set<Capability> = []
        if reopen != nil { capabilities.insert(.reopening) }
        if reopen != nil, leasesEndOnReopening { capabilities.insert(.leasesEndOnReopening) }
        if connect != nil { capabilities.insert(.secondConnection) }
        if setWallClockBack != nil { capabilities.insert(.wallClock) }
        if corrupt != nil { capabilities.insert(.corruption) }
        return capabilities
    }
}
