public import SemelCore

/// Keeps completed outcomes in this process, so that a repeated request need not ask the store.
///
/// A completed outcome never changes, so a copy is as good as the record until the response retention ends. Only repeats are
/// answered from here, and only when their fingerprint is that of the record; everything else (a new key, a mismatch,
/// what is running or uncertain, every other call) goes to the store. An outcome is kept from its first replay on: keys
/// that are never repeated cost nothing.
///
/// - Bounds: by number and bytes; the least asked for go first.
/// - Expiry: by the store's clock as far as it is known here. Each grant tells the store's time; from then on the machine's
///   monotonic clock counts, from the moment the request was *sent*, so the estimate never lags behind. A store's clock
///   that is set forward is noticed at the next grant, and at the latest after ``Configuration/maximumAge``.
/// - Staleness: an operator's ``OperationStore/forget(_:by:expecting:)`` through this value takes effect here at once. One made
///   elsewhere (another process, a restored backup) takes effect here after ``Configuration/maximumAge`` at the latest;
///   until then this process goes on replaying the old outcome. That may delay the new run, never double it.
/// - While the store is away, repeats whose outcome is here are still answered.
public final class NearCache<Base: OperationStore>: StoreLayer {
    public struct Configuration: Sendable {
        /// The most outcomes kept.
        public var count: Int
        /// The most bytes they may take together, keys and some overhead included.
        public var bytes: Int
        /// How long a copy may be used without asking the store again.
        public var maximumAge: Duration

        public init(count: Int = 100_000, bytes: Int = 64 << 20, maximumAge: Duration = .seconds(60)) {
            self.count = count
            self.bytes = bytes
            self.maximumAge = maximumAge
        }
    }

    private struct Entry {
        let record: Record
        /// On the local monotonic clock.
        let fetchedAt: Timestamp
    }

    private struct State {
        var entries: ClockCache<OperationID, Entry>
        /// The store's time, not earlier than it was at a moment of the local monotonic clock.
        var anchor: (store: Timestamp, local: Timestamp)?
        /// Rises with every operator's act, so that an answer that was on its way meanwhile is not kept.
        var generation = 0

        /// Not below what the store's retention clock shows.
        func storeTime(at local: Timestamp) -> Timestamp? { anchor.map { $0.store + (local - $0.local) } }
    }

    public let base: Base
    private let configuration: Configuration
    private let clock: any StoreClock
    private let state: Locked<State>

    /// - Parameter clock: only its lease time is used, as a monotonic clock of this machine.
    public init(_ base: Base, configuration: Configuration = Configuration(), clock: any StoreClock = SystemStoreClock()) {
        self.base = base
        self.configuration = configuration
        self.clock = clock
        state = Locked(State(entries: ClockCache(countLimit: configuration.count, costLimit: configuration.bytes)))
    }

    /// How many outcomes are kept now, and their bytes.
    public var size: (count: Int, bytes: Int) { state.withLock { ($0.entries.count, $0.entries.cost) } }

    public func claim(_ requests: [ClaimRequest]) async throws(StoreError) -> [ClaimResult] {
        let sent = clock.now().lease
        var (answers, generation): ([ClaimResult?], Int) = state.withLock { state in
            (requests.map { replay($0, at: sent, in: &state) }, state.generation)
        }
        let open = answers.indices.filter { answers[$0] == nil }
        guard !open.isEmpty else { return answers.compactMap(\.self) }
        let results = try await base.claim(open.count == requests.count ? requests : open.map { requests[$0] })
        state.withLock { state in
            for (index, result) in zip(open, results) {
                learn(result, of: requests[index].id, sentAt: sent, generation, in: &state)
            }
        }
        for (index, result) in zip(open, results) { answers[index] = result }
        return answers.compactMap(\.self)
    }

    public func record(of id: OperationID) async throws(StoreError) -> Record? {
        let sent = clock.now().lease
        let generation = state.withLock { $0.generation }
        let record = try await base.record(of: id)
        if let record { state.withLock { keep(record, of: id, sentAt: sent, generation, in: &$0) } }
        return record
    }

    public func resolve(
        _ id: OperationID, as resolution: Resolution, by act: OperatorAct, expecting epoch: Epoch?
    ) async throws(StoreError) -> TransitionResult {
        drop(id)
        defer { drop(id) }
        return try await base.resolve(id, as: resolution, by: act, expecting: epoch)
    }

    public func forget(_ id: OperationID, by act: OperatorAct, expecting epoch: Epoch?) async throws(StoreError) -> TransitionResult {
        drop(id)
        defer { drop(id) }
        return try await base.forget(id, by: act, expecting: epoch)
    }

    // MARK: Entries

    private func replay(_ request: ClaimRequest, at local: Timestamp, in state: inout State) -> ClaimResult? {
        guard let entry = state.entries.value(for: request.id) else { return nil }
        guard local - entry.fetchedAt < configuration.maximumAge, let now = state.storeTime(at: local),
            now < entry.record.responseUntil
        else {
            state.entries.remove(request.id)
            return nil
        }
        // A mismatch is the store's to report: the key may have been forgotten elsewhere and used anew.
        return entry.record.fingerprint == request.fingerprint ? .completed(entry.record) : nil
    }

    private func learn(
        _ result: ClaimResult, of id: OperationID, sentAt local: Timestamp, _ generation: Int, in state: inout State
    ) {
        switch result {
        case .completed(let record):
            keep(record, of: id, sentAt: local, generation, in: &state)
        case .granted(let grant):
            state.entries.remove(id)
            state.anchor = (grant.grantedAt, local)
        case .inProgress, .expired, .uncertain, .unreadable:
            state.entries.remove(id)
        case .mismatch, .tooManyKeys:
            break
        }
    }

    private func keep(_ record: Record, of id: OperationID, sentAt local: Timestamp, _ generation: Int, in state: inout State) {
        guard record.state == .completed, record.outcome != nil, generation == state.generation, state.anchor != nil else { return }
        state.entries.insert(
            Entry(record: record, fetchedAt: local), for: id, cost: record.cost + id.scope.bytes.count + id.key.bytes.count)
    }

    private func drop(_ id: OperationID) {
        state.withLock { state in
            state.generation += 1
            state.entries.remove(id)
        }
    }
}

extension NearCache: TransactionalStore where Base: TransactionalStore {
    public func perform(
        _ request: ClaimRequest, _ body: @escaping @Sendable (Base.Transaction, Grant) throws -> AtomicStep
    ) async throws -> AtomicResult {
        let sent = clock.now().lease
        let (hit, generation) = state.withLock { (replay(request, at: sent, in: &$0), $0.generation) }
        if let hit { return .notRun(hit) }
        let result = try await base.perform(request, body)
        state.withLock { state in
            switch result {
            case .performed(_, let grant): learn(.granted(grant), of: request.id, sentAt: sent, generation, in: &state)
            case .notRun(let answer): learn(answer, of: request.id, sentAt: sent, generation, in: &state)
            }
        }
        return result
    }
}

extension Record {
    /// About how many bytes a copy takes.
    fileprivate var cost: Int {
        guard let outcome else { return 400 }
        let fields = (outcome.fields + outcome.trailers).reduce(0) { $0 + $1.name.utf8.count + $1.value.utf8.count + 32 }
        return if case .kept(let body) = outcome.body { 400 + fields + body.count } else { 450 + fields }
    }
}
