public import SemelCore

/// Keeps records in this process's memory: for tests, and for effects whose target deduplicates by itself.
///
/// Everything it knows is gone when the process ends, so levels that rest on the store are `bestEffort` on it.
public final class MemoryStore: OperationStore {
    private struct State {
        var operations: [OperationID: (scene: String, record: Record)] = [:]
        var references: [OperationReference: OperationID] = [:]
        var live: [Scope: Int] = [:]
        var policies: [PolicyHash: PinnedPolicy] = [:]
        var audit: [AuditEntry] = []
        var lastEpoch = Epoch.zero
        var latest = Timestamp.distantPast

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
            let count = (live[scope] ?? 0) + (isLive ? 1 : -1)
            live[scope] = count == 0 ? nil : count
        }
    }

    private let state = Locked(State())
    private let observations = ObservationRegistry()
    private let clock: any StoreClock

    public let capabilities = StoreCapabilities(
        engine: "memory", durability: .forgetful("it lives in the memory of one process"), isTransactional: false)

    public init(clock: any StoreClock = SystemStoreClock()) {
        self.clock = clock
    }

    public func claim(_ requests: [ClaimRequest]) async throws(StoreError) -> [ClaimResult] {
        state.withLock { state in
            let now = state.now(on: clock)
            return requests.map { request in
                let (result, change) = RecordMachine.claim(
                    request, on: state.operations[request.id]?.record, at: now,
                    liveRecords: { state.live[request.id.scope] ?? 0 },
                    nextEpoch: { state.nextEpoch(after: $0, at: now) })
                if case .granted = result { state.policies[request.policy.hash] = request.policy }
                commit(change, to: request.id, scene: request.policy.scene, in: &state)
                return result
            }
        }
    }

    public func apply(_ transitions: [Transition]) async throws(StoreError) -> [TransitionResult] {
        state.withLock { state in
            let now = state.now(on: clock)
            return transitions.map { transition in
                let (result, change) = RecordMachine.apply(transition, to: state.operations[transition.id]?.record, at: now)
                commit(change, to: transition.id, in: &state)
                return result
            }
        }
    }

    public func record(of id: OperationID) async throws(StoreError) -> Record? {
        state.withLock { state in
            let now = state.now(on: clock)
            return settle(id, at: now, in: &state)?.record
        }
    }

    public func leaseRemaining(of record: Record) async throws(StoreError) -> Duration {
        record.leaseUntil - clock.now().lease
    }

    public func observe(_ id: OperationID) -> Observation { observations.observe(id) }

    public func verify(_ id: OperationID, owner: Owner, lease: Duration) async throws(StoreError) -> Grant? {
        state.withLock { state in
            let now = state.now(on: clock)
            let (grant, change) = RecordMachine.verify(
                state.operations[id]?.record, owner: owner, lease: lease, at: now,
                nextEpoch: { state.nextEpoch(after: $0, at: now) })
            commit(change, to: id, in: &state)
            return grant
        }
    }

    // MARK: Operators

    public func operations(_ query: OperationQuery) async throws(StoreError) -> OperationPage {
        state.withLock { state in
            let now = state.now(on: clock)
            var found = state.operations.keys.compactMap { id -> StoredOperation? in
                guard let operation = settle(id, at: now, in: &state) else { return nil }
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
            return state.references[reference].flatMap { settle($0, at: now, in: &state) }
        }
    }

    public func resolve(_ id: OperationID, as resolution: Resolution, by act: OperatorAct) async throws(StoreError) -> TransitionResult {
        state.withLock { state in
            let now = state.now(on: clock)
            let before = state.operations[id]
            let (result, change) = RecordMachine.resolve(
                resolution, on: before?.record, at: now, nextEpoch: { state.nextEpoch(after: $0, at: now) })
            return finish(id, before, result, change, act: act, action: resolution.action, at: now, in: &state)
        }
    }

    public func forget(_ id: OperationID, by act: OperatorAct) async throws(StoreError) -> TransitionResult {
        state.withLock { state in
            let now = state.now(on: clock)
            let before = state.operations[id]
            let (result, change) = RecordMachine.forget(before?.record, at: now)
            return finish(id, before, result, change, act: act, action: "forget", at: now, in: &state)
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
            var report = PurgeReport(outcomes: 0, keys: 0)
            for (id, stored) in state.operations where report.outcomes + report.keys < limit {
                guard let settled = RecordMachine.settled(stored.record, at: now) else {
                    commit(.remove, to: id, in: &state)
                    report.keys += 1
                    continue
                }
                if settled.state == .completed, settled.outcome == nil, stored.record.outcome != nil {
                    state.operations[id]?.record.outcome = nil
                    report.outcomes += 1
                }
            }
            return report
        }
    }

    public func health() async -> StoreHealth {
        StoreHealth(isReady: true, detail: "in memory", liveRecords: state.withLock { $0.live.values.reduce(0, +) })
    }

    // MARK: Changes

    /// The operation as it stands now. That a claim lapsed is written down when it is first seen, so that it is always said
    /// to have lapsed at the same time, whatever the two clocks do, and a listing stays in its order from page to page.
    private func settle(_ id: OperationID, at now: StoreTime, in state: inout State) -> StoredOperation? {
        guard let stored = state.operations[id], let record = RecordMachine.settled(stored.record, at: now) else { return nil }
        if record.state != stored.record.state { commit(.put(record), to: id, in: &state) }
        return StoredOperation(id: id, scene: stored.scene, record: record)
    }

    private func commit(_ change: RecordMachine.Change, to id: OperationID, scene: String? = nil, in state: inout State) {
        let before = state.operations[id]
        switch change {
        case .keep:
            return
        case .put(let record):
            let isNew = record.attempt == 1 && record.state == .claimed && before?.record.epoch != record.epoch
            state.operations[id] = (isNew ? scene ?? "" : before?.scene ?? scene ?? "", record)
            state.references[OperationReference(id)] = id
            state.count(id.scope, wasLive: before?.record.isLive ?? false, isLive: record.isLive)
        case .remove:
            state.operations[id] = nil
            state.references[OperationReference(id)] = nil
            state.count(id.scope, wasLive: before?.record.isLive ?? false, isLive: false)
        }
        observations.signal(id)
    }

    private func finish(
        _ id: OperationID, _ before: (scene: String, record: Record)?, _ result: TransitionResult, _ change: RecordMachine.Change,
        act: OperatorAct, action: String, at now: StoreTime, in state: inout State
    ) -> TransitionResult {
        guard result == .applied, let before else { return result }
        state.audit.append(
            AuditEntry(
                sequence: Int64(state.audit.count) + 1, time: now.retention, act: act, action: action,
                operation: OperationReference(id), scene: before.scene,
                detail: change.auditDetail(before: before.record), following: state.audit.last?.hash ?? AuditEntry.genesisHash))
        commit(change, to: id, in: &state)
        return result
    }
}

extension StoredOperation {
    /// Sorts by last change, then by reference; also the cursor of a page.
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
            var found = state.operations.keys.filter(isIncluded).compactMap { settle($0, at: now, in: &state) }
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
            return ids.compactMap { id in settle(id, at: now, in: &state).map { relocatable($0, at: now, in: state) } }
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
                commit(.remove, to: moved.id, in: &state)
                commit(.put(moved.record(at: now)), to: moved.id, scene: moved.policy.scene, in: &state)
            }
        }
    }

    public func relinquish(_ ids: [OperationID]) async throws(StoreError) {
        state.withLock { state in
            for id in ids { commit(.remove, to: id, in: &state) }
        }
    }

    public func highestEpoch() async throws(StoreError) -> Epoch { state.withLock { $0.lastEpoch } }
}
