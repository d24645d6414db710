import Semel
import SemelTesting
import Testing

// A store as somebody else would write it, in a package of their own: this file uses public API only.

/// Keeps records in a dictionary, scopes and audit entries as a database would give them back.
private final class ForeignStore: OperationStore {
    private struct State {
        var records: [OperationID: (scene: String, record: Record)] = [:]
        var policies: [PolicyHash: PinnedPolicy] = [:]
        var audit: [(entry: AuditEntry, previous: [UInt8], hash: [UInt8])] = []
        var lastEpoch = Epoch.zero
        var watchers: [OperationID: [Int: AsyncStream<Void>.Continuation]] = [:]
        var watcherCount = 0
        var latest = Timestamp.distantPast
    }

    private let state = Locked(State())
    private let clock: any StoreClock
    let capabilities = StoreCapabilities(engine: "foreign", durability: .forgetful("it is a test"), isTransactional: false)

    init(clock: any StoreClock) { self.clock = clock }

    private func work<Result: Sendable>(_ body: (inout State, StoreTime) -> Result) -> Result {
        state.withLock { state in
            var now = clock.now()
            state.latest = max(state.latest, now.retention)
            now.retention = state.latest
            return body(&state, now)
        }
    }

    private func nextEpoch(_ state: inout State, _ previous: Epoch, _ now: StoreTime) -> Epoch {
        state.lastEpoch = max(state.lastEpoch, previous).next(at: now.retention, in: Incarnation(rawValue: 0))
        return state.lastEpoch
    }

    private func commit(_ change: RecordMachine.Change, _ id: OperationID, scene: String? = nil, _ state: inout State) {
        // As a row would hold it.
        let id = OperationID(scope: Scope(bytes: id.scope.bytes), key: id.key)
        switch change {
        case .keep: return
        case .put(let record): state.records[id] = (scene ?? state.records[id]?.scene ?? "", record)
        case .remove: state.records[id] = nil
        }
        for watcher in (state.watchers[id] ?? [:]).values { watcher.yield() }
    }

    private func settled(_ id: OperationID, _ state: inout State, _ now: StoreTime) -> StoredOperation? {
        guard let stored = state.records[id], let record = RecordMachine.settled(stored.record, at: now) else { return nil }
        if record.state != stored.record.state { commit(.put(record), id, &state) }
        return StoredOperation(id: id, scene: stored.scene, record: record)
    }

    func claim(_ requests: [ClaimRequest]) async throws(StoreError) -> [ClaimResult] {
        work { state, now in
            requests.map { request in
                let (result, change) = RecordMachine.claim(
                    request, on: state.records[request.id]?.record, at: now,
                    liveRecords: { state.records.count { $0.key.scope == request.id.scope && $0.value.record.isLive } },
                    nextEpoch: { nextEpoch(&state, $0, now) })
                if case .granted = result { state.policies[request.policy.hash] = request.policy }
                let isNew = state.records[request.id].flatMap { RecordMachine.settled($0.record, at: now) } == nil
                commit(change, request.id, scene: isNew ? request.policy.scene : nil, &state)
                return result
            }
        }
    }

    func apply(_ transitions: [Transition]) async throws(StoreError) -> [TransitionResult] {
        work { state, now in
            transitions.map { transition in
                let (result, change) = RecordMachine.apply(transition, to: state.records[transition.id]?.record, at: now)
                commit(change, transition.id, &state)
                return result
            }
        }
    }

    func record(of id: OperationID) async throws(StoreError) -> Record? { work { settled(id, &$0, $1)?.record } }
    func leaseRemaining(of record: Record) async throws(StoreError) -> Duration { record.leaseUntil - clock.now().lease }

    func observe(_ id: OperationID) -> Observation {
        let (stream, continuation) = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
        let number = state.withLock { state in
            state.watcherCount += 1
            state.watchers[id, default: [:]][state.watcherCount] = continuation
            return state.watcherCount
        }
        return Observation(stream: stream) { [weak self] in self?.state.withLock { $0.watchers[id]?[number] = nil } }
    }

    func verify(_ id: OperationID, owner: Owner, lease: Duration) async throws(StoreError) -> Grant? {
        work { state, now in
            let (grant, change) = RecordMachine.verify(
                state.records[id]?.record, owner: owner, lease: lease, at: now, nextEpoch: { nextEpoch(&state, $0, now) })
            commit(change, id, &state)
            return grant
        }
    }

    func operations(_ query: OperationQuery) async throws(StoreError) -> OperationPage {
        work { state, now in
            func position(_ operation: StoredOperation) -> String {
                String(1_000_000_000_000_000_000 + operation.record.changedAt.microseconds) + operation.reference.description
            }
            var found = state.records.keys.compactMap { settled($0, &state, now) }
                .filter { query.matches($0, at: now.retention) }
                .sorted { position($0) < position($1) }
            if let cursor = query.cursor { found.removeAll { position($0) <= cursor } }
            let page = Array(found.prefix(query.limit))
            return OperationPage(
                operations: page, cursor: found.count > page.count ? page.last.map(position) : nil, now: now.retention)
        }
    }

    func operation(_ reference: OperationReference) async throws(StoreError) -> StoredOperation? {
        work { state, now in
            state.records.keys.first { OperationReference($0) == reference }.flatMap { settled($0, &state, now) }
        }
    }

    func resolve(
        _ id: OperationID, as resolution: Resolution, by act: OperatorAct, expecting epoch: Epoch?
    ) async throws(StoreError) -> TransitionResult {
        work { state, now in
            let answer = RecordMachine.resolve(
                resolution, on: state.records[id]?.record, expecting: epoch, at: now, nextEpoch: { nextEpoch(&state, $0, now) })
            return finish(id, answer, act, resolution.action, &state, now)
        }
    }

    func forget(_ id: OperationID, by act: OperatorAct, expecting epoch: Epoch?) async throws(StoreError) -> TransitionResult {
        work { state, now in
            let answer = RecordMachine.forget(state.records[id]?.record, expecting: epoch, at: now)
            return finish(id, answer, act, "forget", &state, now)
        }
    }

    private func finish(
        _ id: OperationID, _ answer: (result: TransitionResult, change: RecordMachine.Change), _ act: OperatorAct, _ action: String,
        _ state: inout State, _ now: StoreTime
    ) -> TransitionResult {
        guard answer.result == .applied, let before = state.records[id] else { return answer.result }
        let previous = state.audit.last?.hash ?? AuditEntry.genesisHash
        let entry = AuditEntry(
            sequence: Int64(state.audit.count) + 1, time: now.retention, act: act, action: action, operation: OperationReference(id),
            scene: before.scene, detail: answer.change.auditDetail(before: before.record), following: previous)
        state.audit.append((entry, previous, entry.hash))
        commit(answer.change, id, &state)
        return .applied
    }

    func audit(after sequence: Int64, limit: Int) async throws(StoreError) -> [AuditEntry] {
        state.withLock { state in
            state.audit.dropFirst(Int(sequence)).prefix(limit).map { row in
                AuditEntry(
                    sequence: row.entry.sequence, time: row.entry.time, act: OperatorAct(actor: row.entry.actor, reason: row.entry.reason),
                    action: row.entry.action, operation: row.entry.operation, scene: row.entry.scene, detail: row.entry.detail,
                    previousHash: row.previous, storedHash: row.hash)
            }
        }
    }

    func policy(_ hash: PolicyHash) async throws(StoreError) -> PinnedPolicy? { state.withLock { $0.policies[hash] } }

    func purge(limit: Int) async throws(StoreError) -> PurgeReport {
        work { state, now in
            var report = PurgeReport(outcomes: 0, keys: 0)
            for (id, stored) in state.records where report.outcomes + report.keys < limit {
                guard let record = RecordMachine.settled(stored.record, at: now) else {
                    commit(.remove, id, &state)
                    report.keys += 1
                    continue
                }
                if record.state == .completed, record.outcome == nil, stored.record.outcome != nil {
                    state.records[id]?.record.outcome = nil
                    report.outcomes += 1
                }
            }
            return report
        }
    }

    func health() async -> StoreHealth { StoreHealth(isReady: true, detail: "a store for tests") }
}

@Suite("A store written with public API only")
struct ForeignStoreTests {
    @Test("upholds", arguments: StoreLaw.all)
    func upholds(_ law: StoreLaw) async throws {
        let clock = ManualStoreClock()
        if case .notApplicable(let missing) = try await law.check(StoreSubject(ForeignStore(clock: clock), clock: clock)) {
            try Test.cancel("not applicable: this store has no \(missing.map(\.rawValue).sorted().joined(separator: ", "))")
        }
    }

    @Test("keeps what the runtime performs on it")
    func performs() async throws {
        let store = ForeignStore(clock: SystemStoreClock())
        let scene = try Operations(store: store).scene(Policy(scene: "charge", effect: .unknown))
        let runs = Locked(0)
        for _ in 0..<3 {
            let performance = try await scene.perform("order-1", payload: ["amount": 5]) { _ in
                runs.withLock { $0 += 1 }
                return "done"
            }
            #expect(performance.value == "done")
        }
        #expect(runs.withLock { $0 } == 1)
    }
}
