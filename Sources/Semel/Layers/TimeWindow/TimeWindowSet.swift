public import SemelCore

/// A set of keys over a sliding window of time, kept in a store: each badge reading, device event or command once within
/// the window.
///
/// A key enters in two steps, because a key that is marked *before* the work is lost with a crash (R1): ``enter(_:in:occurredAt:)``
/// gives the first caller a ``Place``; the caller does the work and then keeps the place, or gives it up. While it
/// works, others are told that the key is *taken*; when it dies, its lease lapses and the key is free again.
///
/// - The store decides, so the set survives restarts and is shared between processes as far as its store does and is.
/// - In front of it stands an exact set of at most `limit` recent keys in this process (``SlidingWindowSet``), which answers
///   repeats without asking the store. When it is full, further keys are simply not remembered *here*: memory is
///   bounded, and no answer changes.
/// - Two readings with different event ids are two keys, whatever else they share: choose the key as the device told it.
/// - An event older than the window cannot be told from a new one any more and is refused as *too old* (H24).
///
/// It is also a store: every other call passes through.
public final class TimeWindowSet<Base: OperationStore>: StoreLayer {
    public enum Entry: Sendable {
        /// The caller is the first within the window: do the work, then keep the place.
        case new(Place)
        /// It was kept within the window.
        case repeated
        /// Somebody is at work on it, and has this long before its lease lapses.
        case taken(Duration)
        /// It happened before the window began.
        case tooOld
    }

    /// The first caller's hold on a key.
    public struct Place: Sendable {
        public let id: OperationID
        public let token: FencingToken
        fileprivate let set: TimeWindowSet

        /// The work is done: the key is in the set from now on, for the window.
        /// - Returns: *superseded* when the lease lapsed and somebody else took the key.
        @discardableResult
        public func keep() async throws(StoreError) -> TransitionResult { try await set.keep(self) }

        /// The work was *not* done: the key is free.
        @discardableResult
        public func giveUp() async throws(StoreError) -> TransitionResult {
            try await set.base.apply(.release, to: id, token: token)
        }
    }

    public let base: Base
    public let window: Duration
    private let lease: Duration
    private let clock: any StoreClock
    private let environment: Environment
    private let policy: PinnedPolicy
    private let recent: Locked<SlidingWindowSet<OperationID>>

    /// - Parameters:
    ///   - name: the scene's name under which the keys are kept.
    ///   - limit: the most keys remembered in this process.
    ///   - lease: how long the work may take.
    ///   - clock: for the age of events, and for what is remembered here.
    public init(
        _ base: Base, name: String, window: Duration, limit: Int = 100_000, lease: Duration = .seconds(30),
        clock: any StoreClock = SystemStoreClock(), environment: Environment = .live
    ) {
        self.base = base
        self.window = window
        self.lease = lease
        self.clock = clock
        self.environment = environment
        policy = PinnedPolicy(scene: name, text: "time window \(window)")
        // Eight slices: what is remembered here must not outlive the store's window, so it is remembered for 7/8 of it.
        recent = Locked(SlidingWindowSet(window: window * 7 / 8, limit: limit, slices: 7))
    }

    /// How many keys are remembered in this process.
    public var remembered: Int { recent.withLock { $0.count } }

    /// - Parameter occurredAt: when it happened, in real time as the device told it; `nil` when that is not known.
    public func enter(_ key: OperationKey, in scope: Scope = Scope(), occurredAt: Timestamp? = nil) async throws(StoreError) -> Entry {
        try await enter([key], in: scope, occurredAt: [occurredAt])[0]
    }

    /// Enters many at once, such as the backlog of a gate that was offline. A key that is repeated within the batch is taken.
    public func enter(
        _ keys: [OperationKey], in scope: Scope = Scope(), occurredAt: [Timestamp?]
    ) async throws(StoreError) -> [Entry] {
        precondition(occurredAt.count == keys.count, "every key has a time, or nil")
        let now = clock.now()
        let ids = keys.map { OperationID(scope: scope, key: $0) }
        var entries: [Entry?] = recent.withLock { recent in
            zip(ids, occurredAt).map { id, time in
                if let time, now.retention - time >= window { return .tooOld }
                return recent.contains(id, at: now.lease) ? .repeated : nil
            }
        }
        let open = entries.indices.filter { entries[$0] == nil }
        let results = open.isEmpty ? [] : try await base.claim(open.map { request(ids[$0]) })
        for (index, result) in zip(open, results) {
            switch result {
            case .granted(let grant): entries[index] = .new(Place(id: ids[index], token: grant.token, set: self))
            case .inProgress(let lease): entries[index] = .taken(lease)
            case .completed, .expired: entries[index] = .repeated
            case .uncertain, .mismatch, .tooManyKeys, .unreadable:
                throw StoreError(
                    .refused,
                    "\(OperationReference(ids[index])) cannot be entered: its record is of another use of the key, or cannot be read")
            }
        }
        return entries.compactMap(\.self)
    }

    private func request(_ id: OperationID) -> ClaimRequest {
        ClaimRequest(
            id: id, fingerprint: Self.fingerprint, owner: environment.newOwner(), lease: lease, onLapse: .reclaim, policy: policy,
            retention: Retention(response: window, key: window))
    }

    private func keep(_ place: Place) async throws(StoreError) -> TransitionResult {
        let entered = clock.now().lease
        let result = try await base.apply(.complete(Outcome()), to: place.id, token: place.token)
        if result == .applied { recent.withLock { _ = $0.enter(place.id, at: entered) } }
        return result
    }

    private static var fingerprint: Fingerprint { Fingerprint(of: Array("semel.time-window".utf8)) }
}
