public import SemelCore

/// One store over several: each key belongs to one shard, which alone decides about it.
///
/// **Guarantee.** What each shard guarantees, for the keys that are its own. A key goes to the same shard in every process
/// and after every restart: the ``ShardMap`` is kept in the home shard, every change of it has an epoch of its own, and
/// ``move(_:to:)`` moves a range of keys to another shard without a moment in which both, or none, decide about it (H59).
///
/// **One process owns the shards**, as it does with the embedded store. A second process with the same shards would not
/// learn of a move in time, so it must not be: an embedded database refuses to be opened twice; on servers it is up to you.
///
/// - Batches are split by shard, worked on at once, and answered in their order. When one shard cannot answer, the whole call
///   fails, as `indeterminate` if another one has answered.
/// - Listings are merged by the time of the last change, as each shard's clock tells it. A listing during a move may show
///   what is moved twice or leave it out.
/// - The limit of live keys of a scope holds over all shards together.
/// - Audit: every shard keeps the entries of its own keys, in its own chain, in the transaction of the act: that is the
///   evidence (`audit` of the shard). ``audit(after:limit:)`` is a view of all of them, in the order in which the acts were made
///   through this value (those of earlier runs by time), numbered and chained anew.
public final class Sharded<Shard: OperationStore>: OperationStore {
    struct State {
        var map: ShardMap
        /// The shard of each slot, by its place in `shards`.
        var owners: [Int]
        var live = LiveKeys()
        /// Where live records were read lately, because every shard has a lease clock of its own.
        var readFrom = ClockCache<FencingToken, Int>(countLimit: 1 << 16, costLimit: 1 << 16)
        /// While slots are copied: which, and the keys in them that something was done to.
        var copied: (slots: Set<Int>, touched: Set<OperationID>)?
        /// Why nothing is done any more.
        var stopped: StoreError?
    }

    let names: [String]
    let shards: [Shard]
    let mapRecord: ShardMapRecord
    let state: Locked<State>
    let gate = Gate<Int>()
    let moving = AsyncLock()
    private let limiting = AsyncLock()
    private let acting = AsyncLock()
    private let auditView: Locked<ShardedAudit>

    /// Opens the shards' map, or makes it.
    ///
    /// - Parameters:
    ///   - shards: all shards that hold keys, and any number of new ones, each under its name. A name must go on meaning the
    ///     same database. New shards are empty until something is moved to them; at the very first start all get an
    ///     equal part.
    ///   - home: the shard that keeps the map; always the same one.
    /// - Throws: `misconfigured` when a shard that holds keys is missing, and whatever a shard throws.
    public init(
        _ shards: [(name: String, store: Shard)], home: String, environment: Environment = .live
    ) async throws(StoreError) {
        let names = shards.map(\.name)
        self.names = names
        self.shards = shards.map(\.store)
        guard let homeStore = shards.first(where: { $0.name == home })?.store, Set(names).count == names.count,
            names.count <= ShardMap.slotCount
        else {
            throw StoreError(
                .misconfigured,
                "the shards \(names.joined(separator: ", ")) must have names of their own, and the home shard \(home) must be one of them")
        }
        mapRecord = ShardMapRecord(home: homeStore, environment: environment)
        var map = try await mapRecord.newest()
        if map == nil {
            let first = ShardMap(evenlyOver: names)
            try await mapRecord.publish(first)
            map = first
        }
        guard let map else { throw StoreError(.damaged, "there is no shard map in \(home)") }
        let missing = map.shards.filter { !names.contains($0) && !map.slots(of: $0).isEmpty }
        guard missing.isEmpty else {
            throw StoreError(
                .misconfigured,
                "the map of epoch \(map.epoch) has keys in the shards \(missing.joined(separator: ", ")), which were not given: add them")
        }
        let owners = Self.owners(in: map, names)
        var live = LiveKeys()
        for (index, shard) in self.shards.enumerated() {
            try await Self.forEachLive(in: shard, scope: nil) { operation in
                if owners[ShardMap.slot(of: operation.reference)] == index { live.insert(operation.id) }
            }
        }
        state = Locked(State(map: map, owners: owners, live: live))
        auditView = Locked(ShardedAudit(shards: shards.count))
    }

    static func owners(in map: ShardMap, _ names: [String]) -> [Int] {
        let places = Dictionary(uniqueKeysWithValues: names.enumerated().map { ($1, $0) })
        return (0..<ShardMap.slotCount).map { places[map.shard(of: $0)] ?? 0 }
    }

    /// The map that holds now.
    public var map: ShardMap { state.withLock { $0.map } }

    /// The shard of that name, such as for its own audit log.
    public func shard(_ name: String) -> Shard? { names.firstIndex(of: name).map { shards[$0] } }

    public var capabilities: StoreCapabilities {
        var capabilities = shards[0].capabilities
        for shard in shards {
            if case .forgetful = shard.capabilities.durability { capabilities.durability = shard.capabilities.durability }
            if !shard.capabilities.isAuthority { capabilities.isAuthority = false }
        }
        capabilities.engine = "sharded \(capabilities.engine)"
        return capabilities
    }

    // MARK: Operations

    public func claim(_ requests: [ClaimRequest]) async throws(StoreError) -> [ClaimResult] {
        try await inside(requests.map(\.id)) { owners throws(StoreError) in
            if state.withLock({ $0.live.expect(requests) }) {
                defer { state.withLock { $0.live.expectNoMore(requests) } }
                return try await claim(requests.map { $0.withLimit(nil) }, at: owners)
            }
            // Near the limit of a scope: one after another, so that each meets what the one before left.
            await limiting.acquire()
            defer { limiting.release() }
            var results: [ClaimResult] = []
            for (request, owner) in zip(requests, owners) {
                results += try await claim([try await limited(request)], at: [owner])
            }
            return results
        }
    }

    private func claim(_ requests: [ClaimRequest], at owners: [Int]) async throws(StoreError) -> [ClaimResult] {
        do throws(StoreError) {
            let results = try await distribute(requests, to: owners) { shard, part throws(StoreError) in try await shard.claim(part) }
            state.withLock { state in
                for (request, result) in zip(requests, results) { state.live.learn(result, of: request.id) }
            }
            return results
        } catch {
            if error.code == .indeterminate { state.withLock { state in for request in requests { state.live.doubt(request.id) } } }
            throw error
        }
    }

    /// The request as its shard is to see it: where the scope is full, only a key that is there already is answered.
    private func limited(_ request: ClaimRequest) async throws(StoreError) -> ClaimRequest {
        guard let limit = request.liveLimit else { return request }
        let scope = request.id.scope
        if state.withLock({ $0.live.count(scope) >= limit && $0.live.doubtful.contains(scope) }) { try await recount(scope) }
        return request.withLimit(state.withLock { $0.live.count(scope) } < limit ? nil : 0)
    }

    private func recount(_ scope: Scope) async throws(StoreError) {
        var found: Set<OperationKey> = []
        for shard in shards { try await Self.forEachLive(in: shard, scope: scope) { found.insert($0.id.key) } }
        state.withLock { $0.live.settle(scope, as: found) }
    }

    public func apply(_ transitions: [Transition]) async throws(StoreError) -> [TransitionResult] {
        try await inside(transitions.map(\.id)) { owners throws(StoreError) in
            let results = try await distribute(transitions, to: owners) { shard, part throws(StoreError) in try await shard.apply(part) }
            state.withLock { state in
                for (transition, result) in zip(transitions, results) { state.live.learn(result, of: transition) }
            }
            return results
        }
    }

    public func record(of id: OperationID) async throws(StoreError) -> Record? {
        try await inside([id]) { owners throws(StoreError) in
            let record = try await shards[owners[0]].record(of: id)
            if let record { remember(record, from: owners[0]) }
            return record
        }
    }

    public func leaseRemaining(of record: Record) async throws(StoreError) -> Duration {
        let shard = state.withLock { $0.readFrom.value(for: record.token) } ?? 0
        return try await shards[shard].leaseRemaining(of: record)
    }

    public func observe(_ id: OperationID) -> Observation {
        // When its key is moved, the watch is signalled by the removal from this shard, and looks for the other one.
        let owner = state.withLock { $0.owners[ShardMap.slot(of: id)] }
        return shards[owner].observe(id)
    }

    public func verify(_ id: OperationID, owner: Owner, lease: Duration) async throws(StoreError) -> Grant? {
        try await inside([id]) { owners throws(StoreError) in
            try await shards[owners[0]].verify(id, owner: owner, lease: lease)
        }
    }

    // MARK: Operators

    public func operations(_ query: OperationQuery) async throws(StoreError) -> OperationPage {
        try check()
        let owners = state.withLock { $0.owners }
        let listing = MergedListing(stores: shards) { shard, operation in
            owners[ShardMap.slot(of: operation.reference)] == shard && operation.id.scope != ShardMapRecord.scope
        }
        let page = try await listing.page(query)
        for operation in page.operations { remember(operation.record, from: owners[ShardMap.slot(of: operation.reference)]) }
        return page
    }

    public func operation(_ reference: OperationReference) async throws(StoreError) -> StoredOperation? {
        try check()
        let slot = ShardMap.slot(of: reference)
        await gate.enter([slot])
        defer { gate.leave([slot]) }
        let owner = state.withLock { $0.owners[slot] }
        guard let operation = try await shards[owner].operation(reference), operation.id.scope != ShardMapRecord.scope else { return nil }
        remember(operation.record, from: owner)
        return operation
    }

    public func resolve(
        _ id: OperationID, as resolution: Resolution, by act: OperatorAct, expecting epoch: Epoch?
    ) async throws(StoreError) -> TransitionResult {
        try await acting(on: id) { shard throws(StoreError) in try await shard.resolve(id, as: resolution, by: act, expecting: epoch) }
    }

    public func forget(_ id: OperationID, by act: OperatorAct, expecting epoch: Epoch?) async throws(StoreError) -> TransitionResult {
        try await acting(on: id) { shard throws(StoreError) in try await shard.forget(id, by: act, expecting: epoch) }
    }

    /// One act at a time, so that the view of the audit logs is in the order of the acts.
    private func acting(
        on id: OperationID, _ body: (Shard) async throws(StoreError) -> TransitionResult
    ) async throws(StoreError) -> TransitionResult {
        await acting.acquire()
        defer { acting.release() }
        let result = try await inside([id]) { owners throws(StoreError) in try await body(shards[owners[0]]) }
        guard result == .applied else { return result }
        state.withLock { $0.live.remove(id) }
        // The act is done and audited; a view that cannot be brought up to date now is when it is asked for.
        do throws(StoreError) { try await updateAuditView() } catch {}
        return result
    }

    public func audit(after sequence: Int64, limit: Int) async throws(StoreError) -> [AuditEntry] {
        try check()
        await acting.acquire()
        defer { acting.release() }
        try await updateAuditView()
        return auditView.withLock { Array($0.entries.dropFirst(Int(max(0, sequence))).prefix(max(0, limit))) }
    }

    private func updateAuditView() async throws(StoreError) {
        var found: [(shard: Int, entry: AuditEntry)] = []
        for (index, shard) in shards.enumerated() {
            var seen = auditView.withLock { $0.seen[index] }
            while true {
                let part = try await shard.audit(after: seen, limit: 500)
                found += part.map { (index, $0) }
                guard part.count == 500, let last = part.last else { break }
                seen = last.sequence
            }
        }
        let entries = found
        auditView.withLock { $0.append(entries) }
    }

    public func policy(_ hash: PolicyHash) async throws(StoreError) -> PinnedPolicy? {
        for shard in shards {
            if let policy = try await shard.policy(hash) { return policy }
        }
        return nil
    }

    @discardableResult
    public func purge(limit: Int) async throws(StoreError) -> PurgeReport {
        var sum = PurgeReport(outcomes: 0, keys: 0)
        for shard in shards where sum.outcomes + sum.keys < limit {
            let part = try await shard.purge(limit: limit - sum.outcomes - sum.keys)
            sum.outcomes += part.outcomes
            sum.keys += part.keys
        }
        return sum
    }

    public func health() async -> StoreHealth {
        if let stopped = state.withLock({ $0.stopped }) { return StoreHealth(isReady: false, detail: stopped.message) }
        var live: Int?
        var problems: [String] = []
        for (name, shard) in zip(names, shards) {
            let health = await shard.health()
            if !health.isReady { problems.append("shard \(name): \(health.detail)") }
            if let count = health.liveRecords { live = (live ?? 0) + count }
        }
        return StoreHealth(
            isReady: problems.isEmpty,
            detail: problems.isEmpty ? "\(shards.count) shards, map of epoch \(map.epoch)" : problems.joined(separator: "; "),
            liveRecords: live)
    }

    // MARK: Routing

    private func check() throws(StoreError) {
        if let stopped = state.withLock({ $0.stopped }) { throw stopped }
    }

    /// Works on keys while none of their slots changes hands; `body` gets the shard of each key.
    func inside<Value>(
        _ ids: [OperationID], _ body: ([Int]) async throws(StoreError) -> Value
    ) async throws(StoreError) -> Value {
        let slots = ids.map { ShardMap.slot(of: $0) }
        let places = Set(slots)
        await gate.enter(places)
        defer {
            state.withLock { state in
                if let copied = state.copied {
                    for (id, slot) in zip(ids, slots) where copied.slots.contains(slot) { state.copied?.touched.insert(id) }
                }
            }
            gate.leave(places)
        }
        try check()
        return try await body(state.withLock { state in slots.map { state.owners[$0] } })
    }

    private func remember(_ record: Record, from shard: Int) {
        guard record.isLive else { return }
        state.withLock { $0.readFrom.insert(shard, for: record.token) }
    }

    /// Gives each shard its part of a batch, at once, and puts the answers back in order.
    private func distribute<Item: Sendable, Answer: Sendable>(
        _ items: [Item], to owners: [Int], _ call: @escaping @Sendable (Shard, [Item]) async throws(StoreError) -> [Answer]
    ) async throws(StoreError) -> [Answer] {
        guard let first = owners.first else { return [] }
        if owners.allSatisfy({ $0 == first }) { return try await call(shards[first], items) }
        let parts = Dictionary(grouping: items.indices, by: { owners[$0] })
        let results = await withTaskGroup(of: (Int, Result<[Answer], StoreError>).self) { group in
            for (owner, indices) in parts {
                let (shard, part) = (shards[owner], indices.map { items[$0] })
                group.addTask {
                    do throws(StoreError) { return (owner, .success(try await call(shard, part))) } catch {
                        return (owner, .failure(error))
                    }
                }
            }
            return await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
        }
        var answers = [Answer?](repeating: nil, count: items.count)
        var failures: [(Int, StoreError)] = []
        for (owner, result) in results {
            switch result {
            case .success(let part): for (index, answer) in zip(parts[owner] ?? [], part) { answers[index] = answer }
            case .failure(let error): failures.append((owner, error))
            }
        }
        guard let (owner, error) = failures.min(by: { $0.0 < $1.0 }) else { return answers.compactMap(\.self) }
        // Where every shard says that nothing happened, nothing did.
        guard failures.count < results.count || failures.contains(where: { $0.1.code == .indeterminate }) else { throw error }
        throw StoreError(
            .indeterminate, "a part of the batch was done, and shard \(names[owner]) says: \(error.message)", underlying: error)
    }

    private static func forEachLive(
        in shard: Shard, scope: Scope?, _ body: (StoredOperation) -> Void
    ) async throws(StoreError) {
        var query = OperationQuery(states: [.claimed, .verifying, .streaming, .uncertain], scope: scope, limit: 1000)
        repeat {
            let page = try await shard.operations(query)
            page.operations.forEach(body)
            query.cursor = page.cursor
        } while query.cursor != nil
    }
}

extension ClaimRequest {
    fileprivate func withLimit(_ limit: Int?) -> ClaimRequest {
        var request = self
        request.liveLimit = limit
        return request
    }
}

/// The audit logs of all shards as one.
private struct ShardedAudit {
    var seen: [Int64]
    var entries: [AuditEntry] = []

    init(shards: Int) { seen = Array(repeating: 0, count: shards) }

    mutating func append(_ found: [(shard: Int, entry: AuditEntry)]) {
        let new = found.filter { $0.entry.sequence > seen[$0.shard] }
            .sorted { ($0.entry.time, $0.shard, $0.entry.sequence) < ($1.entry.time, $1.shard, $1.entry.sequence) }
        for (shard, entry) in new {
            seen[shard] = max(seen[shard], entry.sequence)
            entries.append(
                AuditEntry(
                    sequence: Int64(entries.count) + 1, time: entry.time, act: OperatorAct(actor: entry.actor, reason: entry.reason),
                    action: entry.action, operation: entry.operation, scene: entry.scene, detail: entry.detail,
                    following: entries.last?.hash ?? AuditEntry.genesisHash))
        }
    }
}

extension Sharded: TransactionalStore where Shard: TransactionalStore {
    /// The record and the body's writes are in the key's own shard, so the caller's tables must be in every shard.
    public func perform(
        _ request: ClaimRequest, _ body: @escaping @Sendable (Shard.Transaction, Grant) throws -> AtomicStep
    ) async throws -> AtomicResult {
        let result: Result<AtomicResult, any Error> = try await inside([request.id]) { owners in
            do {
                return .success(try await shards[owners[0]].perform(try await limited(request), body))
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }
}
