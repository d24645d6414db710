public import SemelCore

/// A store with a second one behind it: while the primary is away, the second decides about keys that are new.
///
/// It keeps the service up and **lowers the level**: what only the primary knows (what other processes did, what is older
/// than the memory of this one) may run again while the second decides. So ``capabilities`` declares the pair *forgetful*
/// from the start: only effects whose target deduplicates keep their level on it, and a policy that demands more is
/// refused when it is loaded. It is never silent: ``phase``, ``health()``, `semel_degraded{component}` and
/// ``Configuration/onChange`` tell.
///
/// What is promised:
/// - **No key that this process brought to the primary is decided by the second**, whether the primary granted it, answered
///   otherwise, or gave an answer that was lost (`indeterminate`). While the primary is away such a key is refused with
///   `unavailable` and waits for it: better late than twice. It is remembered in a filter of the last
///   ``Configuration/knownKeys`` keys; a false positive refuses a new key.
/// - A transition goes to the store that granted the claim, so a holder never finishes in the wrong one.
/// - **The primary decides about a key that the second decided only after its record was merged.** The primary's return is
///   noticed by itself. Until it is merged, a key stays with the second. What is finished there is entered into the
///   primary; what runs there ends there first, and what was lost there lapses in the primary;
///   what is uncertain becomes uncertain in the primary, and its owner's
///   late complete is still accepted by this process.
/// - Where the primary turns out to have a record of its own for a merged key, the primary's stands, and the collision is
///   counted and told (``collisions``): that operation may have run twice.
///
/// What is not promised: anything between processes while the primary is away, unless they share the second store *and* the
/// second is only one of them at a time. Give each process a second store of its own, on disk: after a crash its records
/// are merged at the next start. Epochs of the two stores follow their own clocks: a target that fences may refuse the
/// first holder after a change from one to the other (never take one too many). Merged records count their retentions
/// from the merge. Operators' acts on records of the primary wait for it, and each store's audit log is its own.
public final class Fallback: OperationStore {
    public struct Configuration: Sendable {
        /// How many calls in a row the primary must fail to take before the second decides.
        public var failures: Int
        /// How often the primary is asked whether it is back.
        public var probe: Duration
        /// How many keys that the primary decided are remembered at least.
        public var knownKeys: Int
        /// The most keys the second may decide before they are merged; further ones are refused as `full`.
        public var heldKeys: Int
        /// The component's name in `semel_degraded{component}`.
        public var component: String
        /// Called at each change of the phase.
        public var onChange: @Sendable (Phase) -> Void

        public init(
            failures: Int = 3, probe: Duration = .seconds(5), knownKeys: Int = 1_000_000, heldKeys: Int = 1_000_000,
            component: String = "store", onChange: @escaping @Sendable (Phase) -> Void = { _ in }
        ) {
            self.failures = max(1, failures)
            self.probe = probe
            self.knownKeys = max(1, knownKeys)
            self.heldKeys = max(1, heldKeys)
            self.component = component
            self.onChange = onChange
        }
    }

    /// Who decides.
    public enum Phase: Hashable, Sendable {
        /// The primary, about every key.
        case primary
        /// The second, about new keys; the reason is the primary's last error.
        case degraded(String)
        /// The primary is back and decides about every key but so many that are still the second's.
        case merging(Int)
    }

    struct State {
        var phase = Phase.primary
        var failures = 0
        /// Keys that the primary decided or may have decided, in two halves.
        var known: BlockedBloomFilter
        var knownBefore: BlockedBloomFilter
        /// Calls to the primary that are not answered yet.
        var asked: [OperationID: Int] = [:]
        /// Keys that the second decided and that are not merged.
        var held: Set<OperationID> = []
        /// The token under which the primary knows what the second's token was granted for.
        var renamed = ClockCache<FencingToken, FencingToken>(countLimit: 1 << 16, costLimit: 1 << 16)
        var readFromSecond = ClockCache<FencingToken, Bool>(countLimit: 1 << 16, costLimit: 1 << 16)
        var collisions = 0
        var lastTended: Duration = .zero
        var isTending = false

        func isKnown(_ id: OperationID) -> Bool {
            if asked[id] != nil { return true }
            let hash = OperationReference(id).high
            return known.mayContain(hash) || knownBefore.mayContain(hash)
        }

        mutating func know(_ id: OperationID) {
            let hash = OperationReference(id).high
            guard !known.mayContain(hash) else { return }
            if known.count >= known.capacity {
                swap(&known, &knownBefore)
                known.removeAll()
            }
            known.insert(hash)
        }
    }

    enum Route { case primary, second, refused }

    public let primary: any OperationStore
    public let second: any OperationStore
    let configuration: Configuration
    let environment: Environment
    private let metrics: SemelMetrics?
    let state: Locked<State>
    /// Who works on a key in the second store, against who moves it to the primary.
    let gate = Gate<OperationID>()

    /// Takes over what an earlier run left in the second store, to merge it.
    ///
    /// - Parameters:
    ///   - second: this process's own; empty, or as an earlier run of it left it.
    /// - Throws: when the second store cannot be read.
    public init(
        primary: any OperationStore, second: any OperationStore, configuration: Configuration = Configuration(),
        metrics: SemelMetrics? = nil, environment: Environment = .live
    ) async throws(StoreError) {
        self.primary = primary
        self.second = second
        self.configuration = configuration
        self.metrics = metrics
        self.environment = environment
        // Both halves are asked: each may have half of the rate.
        let empty = BlockedBloomFilter(capacity: configuration.knownKeys, falsePositiveRate: 0.000_5)
        var state = State(known: empty, knownBefore: empty)
        var query = OperationQuery(limit: 1000)
        repeat {
            let page = try await second.operations(query)
            for operation in page.operations { state.held.insert(operation.id) }
            query.cursor = page.cursor
        } while query.cursor != nil
        if !state.held.isEmpty { state.phase = .merging(state.held.count) }
        let isDegraded = !state.held.isEmpty
        self.state = Locked(state)
        metrics?.setDegraded(isDegraded, component: configuration.component)
    }

    public var capabilities: StoreCapabilities { Self.capabilities(primary: primary.capabilities, second: second.capabilities) }

    /// What a pair of such stores declares, before there is one.
    package static func capabilities(primary: StoreCapabilities, second: StoreCapabilities) -> StoreCapabilities {
        StoreCapabilities(
            engine: "\(primary.engine), or \(second.engine)",
            durability: .forgetful("while the \(primary.engine) store is away, the \(second.engine) store decides without its records"),
            isTransactional: false, isAuthority: primary.isAuthority && second.isAuthority)
    }

    public var phase: Phase { state.withLock { $0.phase } }

    /// How many keys are the second's until they are merged.
    public var heldKeys: Int { state.withLock { $0.held.count } }

    /// Whether the second has the say about a key, which it keeps until the key is merged.
    public func isHeld(_ id: OperationID) -> Bool { state.withLock { $0.held.contains(id) } }

    /// For how many keys the primary had a record of its own when the second's was merged.
    public var collisions: Int { state.withLock { $0.collisions } }

    // MARK: Claims and transitions

    public func claim(_ requests: [ClaimRequest]) async throws(StoreError) -> [ClaimResult] {
        try await batch(requests, id: { $0.id }, mayHold: true) { store, part throws(StoreError) in
            try await store.claim(part)
        } learn: { result, _ in
            result.tellsOfRecord
        }
    }

    public func apply(_ transitions: [Transition]) async throws(StoreError) -> [TransitionResult] {
        let transitions = state.withLock { state in
            transitions.map { transition in
                guard !state.held.contains(transition.id), let token = state.renamed.value(for: transition.token) else { return transition }
                return Transition(id: transition.id, token: token, change: transition.change)
            }
        }
        return try await batch(transitions, id: { $0.id }, mayHold: false) { store, part throws(StoreError) in
            try await store.apply(part)
        } learn: { _, _ in
            true
        }
    }

    /// Sends each item to the store that decides about its key. The primary's part first: when the primary turns out to be
    /// away, nothing was done yet, and the items find their way anew.
    private func batch<Item: Sendable, Answer: Sendable>(
        _ items: [Item], id: (Item) -> OperationID, mayHold: Bool,
        _ call: @Sendable (any OperationStore, [Item]) async throws(StoreError) -> [Answer],
        learn: (Answer, OperationID) -> Bool
    ) async throws(StoreError) -> [Answer] {
        tendInTime()
        var answers = [Answer?](repeating: nil, count: items.count)
        while true {
            let open = answers.indices.filter { answers[$0] == nil }
            let (primaryPart, secondPart) = try split(open, ids: open.map { id(items[$0]) }, mayHold: mayHold)
            if !primaryPart.isEmpty {
                let ids = primaryPart.map { id(items[$0]) }
                do throws(StoreError) {
                    let results = try await call(primary, primaryPart.map { items[$0] })
                    state.withLock { state in
                        state.failures = 0
                        for (id, result) in zip(ids, results) where learn(result, id) { state.know(id) }
                        answered(ids, in: &state)
                    }
                    for (index, result) in zip(primaryPart, results) { answers[index] = result }
                } catch {
                    state.withLock { state in
                        // An answer that was lost may have been a grant: it is never decided anew elsewhere.
                        if error.code == .indeterminate { for id in ids { state.know(id) } }
                        answered(ids, in: &state)
                    }
                    guard missed(error), answers.allSatisfy({ $0 == nil }) else { throw error }
                    continue
                }
            }
            guard !secondPart.isEmpty else { break }
            let ids = secondPart.map { id(items[$0]) }
            let places = Set(ids)
            await gate.enter(places)
            defer { gate.leave(places) }
            // Some may have been merged while this waited for it.
            guard state.withLock({ state in ids.allSatisfy { state.held.contains($0) || route($0, in: state) == .second } }) else {
                continue
            }
            let results = try await call(second, secondPart.map { items[$0] })
            for (index, result) in zip(secondPart, results) { answers[index] = result }
            break
        }
        return answers.compactMap(\.self)
    }

    /// Which items go where. Throws before anything is done when one of them must wait for the primary.
    private func split(_ open: [Int], ids: [OperationID], mayHold: Bool) throws(StoreError) -> (primary: [Int], second: [Int]) {
        try state.withLock { state throws(StoreError) in
            var (toPrimary, toSecond, new): ([Int], [Int], Set<OperationID>) = ([], [], [])
            for (index, id) in zip(open, ids) {
                switch route(id, in: state) {
                case .primary: toPrimary.append(index)
                case .second:
                    toSecond.append(index)
                    if !state.held.contains(id) { new.insert(id) }
                case .refused: throw refusal(id, in: state)
                }
            }
            if mayHold, !new.isEmpty {
                guard state.held.count + new.count <= configuration.heldKeys else {
                    throw StoreError(
                        .full,
                        "the second store decides about \(state.held.count) keys, as many as it may while the primary is away; bring the primary back"
                    )
                }
                state.held.formUnion(new)
            }
            let chosen = Set(toPrimary)
            for (index, id) in zip(open, ids) where chosen.contains(index) { state.asked[id, default: 0] += 1 }
            return (toPrimary, toSecond)
        }
    }

    func route(_ id: OperationID, in state: State) -> Route {
        if state.held.contains(id) { return .second }
        guard case .degraded = state.phase else { return .primary }
        return state.isKnown(id) ? .refused : .second
    }

    private func refusal(_ id: OperationID, in state: State) -> StoreError {
        guard case .degraded(let why) = state.phase else { return StoreError(.unavailable, "the primary store is away") }
        return StoreError(
            .unavailable, "\(OperationReference(id)) is the primary store's to decide, which is away (\(why)): try again when it is back")
    }

    private func answered(_ ids: [OperationID], in state: inout State) {
        for id in ids {
            let rest = (state.asked[id] ?? 1) - 1
            state.asked[id] = rest == 0 ? nil : rest
        }
    }

    /// The primary gave an error.
    /// - Returns: whether the second store decides from now on, so that the same may be tried there.
    private func missed(_ error: StoreError) -> Bool {
        guard error.code == .unavailable || error.code == .stopped else { return false }
        let (isDegraded, isNew) = state.withLock { state in
            if case .degraded = state.phase { return (true, false) }
            state.failures += 1
            guard state.failures >= configuration.failures else { return (false, false) }
            state.phase = .degraded(error.message)
            state.lastTended = environment.uptime()
            return (true, true)
        }
        if isNew { tell() }
        return isDegraded
    }

    func tell() {
        let phase = phase
        metrics?.setDegraded(phase != .primary, component: configuration.component)
        configuration.onChange(phase)
    }

    // MARK: One key

    public func record(of id: OperationID) async throws(StoreError) -> Record? {
        try await at(id) { store, isSecond throws(StoreError) in
            let record = try await store.record(of: id)
            if let record { remember(record, isOfSecond: isSecond) }
            return record
        }
    }

    public func leaseRemaining(of record: Record) async throws(StoreError) -> Duration {
        let isOfSecond = state.withLock { state in
            if let known = state.readFromSecond.value(for: record.token) { return known }
            if case .degraded = state.phase { return true }
            return false
        }
        return try await (isOfSecond ? second : primary).leaseRemaining(of: record)
    }

    public func observe(_ id: OperationID) -> Observation { Observation(of: [primary.observe(id), second.observe(id)], in: environment) }

    public func verify(_ id: OperationID, owner: Owner, lease: Duration) async throws(StoreError) -> Grant? {
        try await at(id) { store, _ throws(StoreError) in try await store.verify(id, owner: owner, lease: lease) }
    }

    public func resolve(
        _ id: OperationID, as resolution: Resolution, by act: OperatorAct, expecting epoch: Epoch?
    ) async throws(StoreError) -> TransitionResult {
        try await at(id) { store, _ throws(StoreError) in try await store.resolve(id, as: resolution, by: act, expecting: epoch) }
    }

    public func forget(_ id: OperationID, by act: OperatorAct, expecting epoch: Epoch?) async throws(StoreError) -> TransitionResult {
        try await at(id) { store, _ throws(StoreError) in try await store.forget(id, by: act, expecting: epoch) }
    }

    private func at<Value>(
        _ id: OperationID, _ body: (_ store: any OperationStore, _ isSecond: Bool) async throws(StoreError) -> Value
    ) async throws(StoreError) -> Value {
        tendInTime()
        await gate.enter([id])
        defer { gate.leave([id]) }
        let (way, refused) = state.withLock { state in (route(id, in: state), refusal(id, in: state)) }
        switch way {
        case .second: return try await body(second, true)
        case .refused: throw refused
        case .primary:
            do throws(StoreError) {
                return try await body(primary, false)
            } catch {
                _ = missed(error)
                throw error
            }
        }
    }

    private func remember(_ record: Record, isOfSecond: Bool) {
        guard record.isLive else { return }
        state.withLock { $0.readFromSecond.insert(isOfSecond, for: record.token) }
    }

    // MARK: All keys

    private var deciding: [(store: any OperationStore, isSecond: Bool)] {
        state.withLock { state in
            if case .degraded = state.phase { return [(second, true)] }
            return state.held.isEmpty ? [(primary, false)] : [(primary, false), (second, true)]
        }
    }

    public func operations(_ query: OperationQuery) async throws(StoreError) -> OperationPage {
        tendInTime()
        let (stores, held) = (deciding, state.withLock { $0.held })
        // A record that was merged is the primary's, and its copy is about to go.
        let listing = MergedListing(stores: stores.map(\.store)) { index, operation in
            stores.count == 1 || stores[index].isSecond == held.contains(operation.id)
        }
        let page = try await (stores.count == 1 ? stores[0].store.operations(query) : listing.page(query))
        for operation in page.operations {
            remember(operation.record, isOfSecond: stores[0].isSecond || held.contains(operation.id))
        }
        return page
    }

    public func operation(_ reference: OperationReference) async throws(StoreError) -> StoredOperation? {
        for (store, isSecond) in deciding.reversed() {
            if let found = try await store.operation(reference) {
                remember(found.record, isOfSecond: isSecond)
                return found
            }
        }
        return nil
    }

    public func audit(after sequence: Int64, limit: Int) async throws(StoreError) -> [AuditEntry] {
        try await deciding[0].store.audit(after: sequence, limit: limit)
    }

    public func policy(_ hash: PolicyHash) async throws(StoreError) -> PinnedPolicy? {
        for (store, _) in deciding {
            if let policy = try await store.policy(hash) { return policy }
        }
        return nil
    }

    @discardableResult
    public func purge(limit: Int) async throws(StoreError) -> PurgeReport {
        tendInTime()
        return try await deciding[0].store.purge(limit: limit)
    }

    public func health() async -> StoreHealth {
        tendInTime()
        switch phase {
        case .primary:
            return await primary.health()
        case .degraded(let why):
            var health = await second.health()
            health.detail = "degraded: the primary store is away (\(why)), and the second decides about new keys: \(health.detail)"
            return health
        case .merging(let count):
            var health = await primary.health()
            health.detail = "degraded: the primary store is back, and \(count) keys are still to be merged: \(health.detail)"
            return health
        }
    }
}
