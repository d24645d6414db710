public import SemelCore

/// Keeps records in this process's memory: for tests, and for effects whose target deduplicates by itself.
///
/// Everything it knows is gone when the process ends, so levels that rest on the store are `bestEffort` on it. What has
/// outlived its retentions is let go of as new claims come in, two for each.
public final class MemoryStore: OperationStore {
    /// What is kept for one key. A class, so that a table that grows moves references and not records.
    private final class Entry: @unchecked Sendable {
        // Sendable is unchecked: it is touched only by whoever holds the lock on the state.
        var scene: String
        var record: Record

        init(_ scene: String, _ record: Record) {
            self.scene = scene
            self.record = record
        }
    }

    /// A key of the table, with its hash: looking for one, and making room for more, need not read the bytes of all those it
    /// meets on the way, which lie all over the memory.
    private struct Key: Hashable {
        let id: OperationID
        private let hash: Int

        init(_ id: OperationID) {
            self.id = id
            var hasher = Hasher()
            hasher.combine(id)
            hash = hasher.finalize()
        }

        static func == (left: Key, right: Key) -> Bool { left.hash == right.hash && left.id == right.id }
        func hash(into hasher: inout Hasher) { hasher.combine(hash) }
    }

    private struct State {
        var operations: [Key: Entry] = [:]
        var live: [Scope: Int] = [:]
        var policies: [PolicyHash: PinnedPolicy] = [:]
        var audit: [AuditEntry] = []
        var lastEpoch = Epoch.zero
        var latest = Timestamp.distantPast
        var due = DueQueue<Key>()

        /// The time, as the lock's holders see it: a wall clock that is set back stands until it has caught up, so nothing
        /// that has expired comes back (H9).
        mutating func now(on clock: any StoreClock) -> StoreTime {
            var now = clock.now()
            latest = max(latest, now.retention)
            now.retention = latest
            return now
        }

        mutating func nextEpoch(after previous: Epoch, at now: StoreTime) -> Epoch {
            lastEpoch = max(lastEpoch, previous).next(at: now.retention, in: Incarnation(rawValue: 0))
            return lastEpoch
        }

        mutating func count(_ scope: Scope, wasLive: Bool, isLive: Bool) {
            guard wasLive != isLive else { return }
            guard let place = live.index(forKey: scope) else { return live[scope] = isLive ? 1 : -1 }
            live.values[place] += isLive ? 1 : -1
            if live.values[place] == 0 { live.remove(at: place) }
        }
    }

    private let state = Locked(State())
    private let observations = ObservationRegistry()
    private let clock: any StoreClock
    private let purgesByItself: Bool

    public let capabilities = StoreCapabilities(
        engine: "memory", durability: .forgetful("it lives in the memory of one process"), isTransactional: false)

    /// - Parameter purgesByItself: `false` leaves that to ``purge(limit:)``.
    public init(clock: any StoreClock = SystemStoreClock(), purgesByItself: Bool = true) {
        self.clock = clock
        self.purgesByItself = purgesByItself
    }

    public func claim(_ requests: [ClaimRequest]) async throws(StoreError) -> [ClaimResult] {
        state.withLock { state in
            let now = state.now(on: clock)
            return requests.map { request in
                let key = Key(request.id)
                let entry = state.operations[key]
                let (result, change) = RecordMachine.claim(
                    request, on: entry?.record, at: now, liveRecords: { state.live[request.id.scope] ?? 0 },
                    nextEpoch: { state.nextEpoch(after: $0, at: now) })
                if case .granted = result, state.policies[request.policy.hash] == nil {
                    state.policies[request.policy.hash] = request.policy
                }
                commit(change, to: key, entry, scene: request.policy.scene, in: &state)
                if purgesByItself { _ = purge(limit: 2, at: now, in: &state) }
                return result
            }
        }
    }

    public func apply(_ transitions: [Transition]) async throws(StoreError) -> [TransitionResult] {
        state.withLock { state in
            let now = state.now(on: clock)
            return transitions.map { transition in
                let key = Key(transition.id)
                let entry = state.operations[key]
                let (result, change) = RecordMachine.apply(transition, to: entry?.record, at: now)
                commit(change, to: key, entry, in: &state)
                return result
            }
        }
    }

    public func record(of id: OperationID) async throws(StoreError) -> Record? {
        state.withLock { state in
            let now = state.now(on: clock)
            return settle(Key(id), at: now, in: &state)?.record
        }
    }

    public func leaseRemaining(of record: Record) async throws(StoreError) -> Duration {
        record.leaseUntil - clock.now().lease
    }

    public func observe(_ id: OperationID) -> Observation { observations.observe(id) }

    public func verify(_ id: OperationID, owner: Owner, lease: Duration) async throws(StoreError) -> Grant? {
        state.withLock { state in
            let now = state.now(on: clock)
            let key = Key(id)
            let entry = state.operations[key]
            let (grant, change) = RecordMachine.verify(
                entry?.record, owner: owner, lease: lease, at: now, nextEpoch: { state.nextEpoch(after: $0, at: now) })
            commit(change, to: key, entry, in: &state)
            return grant
        }
    }

    // MARK: Operators

    public func operations(_ query: OperationQuery) async throws(StoreError) -> OperationPage {
        if let cursor = query.cursor, !StoredOperation.isPosition(cursor) {
            throw StoreError(.refused, "the cursor \"\(cursor)\" is none that a page of this store ended with; begin without one")
        }
        return state.withLock { state in
            let now = state.now(on: clock)
            var found = state.operations.keys.compactMap { key -> StoredOperation? in
                guard let operation = settle(key, at: now, in: &state) else { return nil }
                return query.matches(operation, at: now.retention) ? operation : nil
            }
            found.sort { $0.position < $1.position }
            if let cursor = query.cursor { found.removeAll { $0.position <= cursor } }
            let page = Array(found.prefix(query.limit))
            return OperationPage(operations: page, cursor: found.count > page.count ? page.last?.position : nil, now: now.retention)
        }
    }

    public func operation(_ reference: OperationReference) async throws(StoreError) -> StoredOperation? {
        state.withLock { state in
            let now = state.now(on: clock)
            // Looked for among all: a table of references would make every claim dearer for what operators seldom ask.
            return state.operations.keys.first { OperationReference($0.id) == reference }.flatMap { settle($0, at: now, in: &state) }
        }
    }

    public func resolve(
        _ id: OperationID, as resolution: Resolution, by act: OperatorAct, expecting epoch: Epoch?
    ) async throws(StoreError) -> TransitionResult {
        state.withLock { state in
            let now = state.now(on: clock)
            let key = Key(id)
            let before = state.operations[key]
            let (result, change) = RecordMachine.resolve(
                resolution, on: before?.record, expecting: epoch, at: now, nextEpoch: { state.nextEpoch(after: $0, at: now) })
            return finish(key, before, result, change, act: act, action: resolution.action, at: now, in: &state)
        }
    }

    public func forget(_ id: OperationID, by act: OperatorAct, expecting epoch: Epoch?) async throws(StoreError) -> TransitionResult {
        state.withLock { state in
            let now = state.now(on: clock)
            let key = Key(id)
            let before = state.operations[key]
            let (result, change) = RecordMachine.forget(before?.record, expecting: epoch, at: now)
            return finish(key, before, result, change, act: act, action: "forget", at: now, in: &state)
        }
    }

    public func audit(after sequence: Int64, limit: Int) async throws(StoreError) -> [AuditEntry] {
        state.withLock { Array($0.audit.dropFirst(Int(max(0, sequence))).prefix(limit)) }
    }

    public func policy(_ hash: PolicyHash) async throws(StoreError) -> PinnedPolicy? {
        state.withLock { $0.policies[hash] }
    }

    @discardableResult
    public func purge(limit: Int) async throws(StoreError) -> PurgeReport {
        state.withLock { state in
            let now = state.now(on: clock)
            return purge(limit: limit, at: now, in: &state)
        }
    }

    private func purge(limit: Int, at now: StoreTime, in state: inout State) -> PurgeReport {
        var report = PurgeReport(outcomes: 0, keys: 0)
        while report.outcomes + report.keys < limit, let key = state.due.next(at: now.retention) {
            // It may have been forgotten and claimed anew since; then its own completion says when it is due.
            guard let stored = state.operations[key], stored.record.state == .completed else { continue }
            guard let settled = RecordMachine.settled(stored.record, at: now) else {
                commit(.remove, to: key, stored, in: &state)
                report.keys += 1
                continue
            }
            if settled.outcome == nil, stored.record.outcome != nil {
                stored.record.outcome = nil
                report.outcomes += 1
                state.due.insert(key, at: settled.keyUntil)
            }
        }
        return report
    }

    public func health() async -> StoreHealth {
        StoreHealth(isReady: true, detail: "in memory", liveRecords: state.withLock { $0.live.values.reduce(0, +) })
    }

    // MARK: Changes

    /// The operation as it stands now. That a claim lapsed is written down when it is first seen, so that it is always said
    /// to have lapsed at the same time, whatever the two clocks do, and a listing stays in its order from page to page.
    private func settle(_ key: Key, at now: StoreTime, in state: inout State) -> StoredOperation? {
        guard let stored = state.operations[key], let record = RecordMachine.settled(stored.record, at: now) else { return nil }
        if record.state != stored.record.state { commit(.put(record), to: key, stored, in: &state) }
        return StoredOperation(id: key.id, scene: stored.scene, record: record)
    }

    /// - Parameter entry: what the key has now.
    private func commit(
        _ change: RecordMachine.Change, to key: Key, _ entry: Entry?, scene: String? = nil, in state: inout State
    ) {
        let wasLive = entry?.record.isLive ?? false
        switch change {
        case .keep:
            return
        case .put(let record):
            if let entry {
                if record.attempt == 1, record.state == .claimed, entry.record.epoch != record.epoch { entry.scene = scene ?? "" }
                entry.record = record
            } else {
                state.operations[key] = Entry(scene ?? "", record)
            }
            state.count(key.id.scope, wasLive: wasLive, isLive: record.isLive)
            if record.state == .completed { state.due.insert(key, at: min(record.responseUntil, record.keyUntil)) }
        case .remove:
            state.operations[key] = nil
            state.count(key.id.scope, wasLive: wasLive, isLive: false)
        }
        observations.signal(key.id)
    }

    private func finish(
        _ key: Key, _ before: Entry?, _ result: TransitionResult, _ change: RecordMachine.Change,
        act: OperatorAct, action: String, at now: StoreTime, in state: inout State
    ) -> TransitionResult {
        guard result == .applied, let before else { return result }
        state.audit.append(
            AuditEntry(
                sequence: Int64(state.audit.count) + 1, time: now.retention, act: act, action: action,
                operation: OperationReference(key.id), scene: before.scene,
                detail: change.auditDetail(before: before.record), following: state.audit.last?.hash ?? AuditEntry.genesisHash))
        commit(change, to: key, before, in: &state)
        return result
    }
}

extension StoredOperation {
    /// Sorts by last change, then by reference; also the cursor of a page.
    fileprivate static func isPosition(_ text: String) -> Bool {
        text.utf8.prefix(20).allSatisfy { (0x30...0x39).contains($0) } && OperationReference(text.dropFirst(20)) != nil
    }

    fileprivate var position: String {
        let time = String(record.changedAt.microseconds)
        return String(repeating: "0", count: max(0, 20 - time.count)) + time + reference.description
    }
}

extension MemoryStore: RelocatableStore {
    public func relocatable(
        where isIncluded: @escaping @Sendable (OperationID) -> Bool, after cursor: String?, limit: Int
    ) async throws(StoreError) -> RelocationPage {
        state.withLock { state in
            let now = state.now(on: clock)
            var found = state.operations.keys.filter { isIncluded($0.id) }.compactMap { settle($0, at: now, in: &state) }
            found.sort { $0.position < $1.position }
            if let cursor { found.removeAll { $0.position <= cursor } }
            let page = found.prefix(limit)
            return RelocationPage(
                records: page.map { relocatable($0, at: now, in: state) }, cursor: found.count > page.count ? page.last?.position : nil)
        }
    }

    public func relocatable(_ ids: [OperationID]) async throws(StoreError) -> [RelocatableRecord] {
        state.withLock { state in
            let now = state.now(on: clock)
            return ids.compactMap { id in settle(Key(id), at: now, in: &state).map { relocatable($0, at: now, in: state) } }
        }
    }

    private func relocatable(_ operation: StoredOperation, at now: StoreTime, in state: State) -> RelocatableRecord {
        RelocatableRecord(
            id: operation.id, record: operation.record,
            policy: state.policies[operation.record.policy] ?? PinnedPolicy(scene: operation.scene, text: ""),
            leaseRemaining: operation.record.leaseUntil - now.lease)
    }

    public func adopt(_ records: [RelocatableRecord], above floor: Epoch) async throws(StoreError) {
        state.withLock { state in
            let now = state.now(on: clock)
            state.lastEpoch = max(state.lastEpoch, floor)
            for moved in records {
                state.lastEpoch = max(state.lastEpoch, moved.record.epoch)
                state.policies[moved.policy.hash] = moved.policy
                let key = Key(moved.id)
                commit(.remove, to: key, state.operations[key], in: &state)
                commit(.put(moved.record(at: now)), to: key, nil, scene: moved.policy.scene, in: &state)
            }
        }
    }

    public func relinquish(_ ids: [OperationID]) async throws(StoreError) {
        state.withLock { state in
            for id in ids {
                let key = Key(id)
                commit(.remove, to: key, state.operations[key], in: &state)
            }
        }
    }

    public func highestEpoch() async throws(StoreError) -> Epoch { state.withLock { $0.lastEpoch } }
}
