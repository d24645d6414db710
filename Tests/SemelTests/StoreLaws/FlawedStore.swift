import Semel
import SemelTesting

/// A store with one mistake in it, or with none: then it upholds every law. It can do all that a law may need: it is
/// opened anew over the same data, has further connections, and may be corrupted.
final class FlawedStore: OperationStore {
    struct Entry {
        var scene: String
        var record: Record
        /// Of a state that no version knows.
        var isUnknown = false
    }

    struct Data {
        var operations: [OperationID: Entry] = [:]
        var policies: [PolicyHash: PinnedPolicy] = [:]
        var audit: [AuditEntry] = []
        var lastEpoch = Epoch.zero
        var latest = Timestamp.distantPast
        var lockedKeys: Set<OperationID> = []
        var waiters: [OperationID: [AsyncStream<Void>.Continuation]] = [:]
    }

    /// What all connections share.
    final class Medium: Sendable {
        let data: Locked<Data>
        let observations = ObservationRegistry()
        init(_ data: Data = Data()) { self.data = Locked(data) }
    }

    let flaw: Flaw?
    let clock: ManualStoreClock
    let medium: Medium
    let observations: ObservationRegistry
    let capabilities = StoreCapabilities(engine: "flawed", durability: .durable, isTransactional: false)

    init(_ flaw: Flaw?, clock: ManualStoreClock, medium: Medium = Medium()) {
        self.flaw = flaw
        self.clock = clock
        self.medium = medium
        observations = flaw == .connectionsSignalThemselves ? ObservationRegistry() : medium.observations
    }

    static func subject(_ flaw: Flaw?, patience: Duration) -> StoreSubject {
        let clock = ManualStoreClock()
        let store = FlawedStore(flaw, clock: clock)
        var subject = StoreSubject(store, clock: clock, patience: patience)
        subject.reopen = { store.reopened() }
        subject.leasesEndOnReopening = true
        subject.connect = {
            let shared = flaw == .connectionsShareNothing ? Medium(store.medium.data.withLock { $0 }) : store.medium
            return FlawedStore(flaw, clock: clock, medium: shared)
        }
        subject.corrupt = { id, _ in store.medium.data.withLock { $0.operations[id]?.isUnknown = true } }
        return subject
    }

    private func reopened() -> FlawedStore {
        let now = clock.now()
        medium.data.withLock { data in
            for (id, entry) in data.operations where entry.record.isLive {
                if flaw == .losesLiveRecords { data.operations[id] = nil }
                if flaw != .leasesOutliveTheProcess {
                    data.operations[id]?.record.leaseUntil = min(entry.record.leaseUntil, now.lease)
                }
            }
            if flaw == .restartsEpochsOnReopening { data.lastEpoch = .zero }
            if flaw == .restartsTheAuditOnReopening { data.audit = [] }
        }
        return FlawedStore(flaw, clock: clock, medium: medium)
    }

    // MARK: Claims

    func claim(_ requests: [ClaimRequest]) async throws(StoreError) -> [ClaimResult] {
        let requests = requests.map { request in
            var request = request
            request.id = identity(of: request.id)
            if flaw == .roundsLeasesUpToSeconds { request.lease = .seconds(request.lease.components.seconds + 1) }
            if flaw == .takesSecondsForMilliseconds { request.lease /= 1000 }
            return request
        }
        switch flaw {
        case .answersNoneWithOne where requests.isEmpty: return [.expired]
        case .answersInKeyOrder:
            let sorted = requests.sorted { $0.id.key.text < $1.id.key.text }
            return withData { data, now in sorted.map { claim($0, at: now, in: &data) } }
        case .checksThenInserts:
            var results: [ClaimResult] = []
            for request in requests {
                let before = medium.data.withLock { $0.operations[request.id] }
                await Task.yield()
                results.append(
                    withData { data, now in
                        let current = data.operations[request.id]
                        data.operations[request.id] = before
                        let result = claim(request, at: now, in: &data)
                        if !result.isGranted { data.operations[request.id] = current }
                        return result
                    })
            }
            return results
        case .looksOnceBeforeTheBatch:
            return withData { data, now in
                let before = data
                return requests.map { request in
                    data.operations[request.id] = before.operations[request.id]
                    return claim(request, at: now, in: &data)
                }
            }
        case .locksInTheCallersOrder:
            for request in requests {
                while !medium.data.withLock({ $0.lockedKeys.insert(request.id).inserted }) {
                    if Task.isCancelled { throw StoreError(.unavailable, "gave up waiting for a lock") }
                    await Task.yield()
                }
                await Task.yield()
            }
            defer { medium.data.withLock { $0.lockedKeys.subtract(requests.map(\.id)) } }
            return withData { data, now in requests.map { claim($0, at: now, in: &data) } }
        case .dropsBeyond512:
            return withData { data, now in
                requests.enumerated().map { $0 < 512 ? claim($1, at: now, in: &data) : .inProgress(leaseRemaining: $1.lease) }
            }
        default:
            return withData { data, now in requests.map { claim($0, at: now, in: &data) } }
        }
    }

    private func claim(_ original: ClaimRequest, at time: StoreTime, in data: inout Data) -> ClaimResult {
        var (request, now) = (original, time)
        var stored = data.operations[request.id]
        if let entry = stored, entry.isUnknown {
            guard flaw == .runsUnknownStates else { return .unreadable("an unknown state") }
            stored = nil
        }
        if let record = stored?.record {
            if flaw == .neverLapses { now.lease = .distantPast }
            let isLapsed = record.isLive && record.state != .uncertain && record.leaseUntil <= now.lease
            if flaw == .forgetsLapsedClaims, isLapsed { stored = nil }
            if flaw == .rerunsWithoutAsking, isLapsed { stored?.record.onLapse = .reclaim }
            if flaw == .verifiesOnce, isLapsed, record.state == .verifying { return .inProgress(leaseRemaining: .zero) }
            if flaw == .reclaimsStreams, isLapsed, record.state == .streaming { stored?.record.state = .claimed }
            if flaw == .comparesPayloadsWhileClaimedOnly, record.state != .claimed { request.fingerprint = record.fingerprint }
            if flaw == .forgetsToVerifyTheThirdTime, isLapsed, record.attempt > 2, record.state == .verifying { stored?.record.onLapse = .reclaim }
        }
        let live = data.operations.filter { id, entry in
            entry.record.isLive && (flaw == .limitsAllScopesTogether || id.scope == request.id.scope)
                && !(flaw == .countsNoUncertain && entry.record.state == .uncertain)
        }
        var (result, change) = RecordMachine.claim(
            request, on: stored?.record, at: now, liveRecords: { live.count },
            nextEpoch: { flaw == .keepsTheEpochOnTakeover && $0 > .zero ? $0 : nextEpoch(after: $0, at: now, in: &data) })

        switch (flaw, result) {
        case (.forgetsNonces, .granted(let grant)) where change == .keep: result = .inProgress(leaseRemaining: grant.leaseRemaining)
        case (.handsOutTokens, .inProgress(let remaining)):
            let record = stored!.record
            result = .granted(
                Grant(kind: .again, token: record.token, leaseRemaining: remaining, attempt: record.attempt, createdAt: record.createdAt, grantedAt: now.retention, policy: record.policy, traceID: record.traceID))
        case (.inProgressBeforeMismatch, .mismatch) where stored!.record.isLive: result = .inProgress(leaseRemaining: .zero)
        case (.duplicatesRenew, .inProgress): data.operations[request.id]?.record.leaseUntil = now.lease + request.lease
        case (.evictsAtTheLimit, .tooManyKeys):
            data.operations[live.min { $0.value.record.changedAt < $1.value.record.changedAt }!.key] = nil
            return claim(original, at: time, in: &data)
        default: break
        }
        if case .put(var record) = change {
            if flaw == .dropsTraceIDs { record.traceID = nil }
            if flaw == .pinsTheNewPolicy, result.isGranted { record.policy = request.policy.hash }
            change = .put(record)
        }
        if result.isGranted, flaw != .keepsNoPolicyText { data.policies[request.policy.hash] = request.policy }
        commit(change, to: request.id, scene: stored == nil || stored!.record.state == .completed ? request.policy.scene : nil, in: &data)
        return result
    }

    // MARK: Transitions

    func apply(_ transitions: [Transition]) async throws(StoreError) -> [TransitionResult] {
        let transitions = transitions.map { Transition(id: identity(of: $0.id), token: $0.token, change: $0.change) }
        switch flaw {
        case .answersNoneWithOne where transitions.isEmpty: return [.superseded]
        case .readsThenWrites:
            var results: [TransitionResult] = []
            for transition in transitions {
                let before = medium.data.withLock { $0.operations[transition.id] }
                for _ in 0..<3 { await Task.yield() }
                results.append(
                    withData { data, now in
                        let current = data.operations[transition.id]
                        data.operations[transition.id] = before
                        let result = apply(transition, at: now, in: &data)
                        if result == .superseded { data.operations[transition.id] = current }
                        return result
                    })
            }
            return results
        case .stopsAtTheFirstRefusal:
            return withData { data, now in
                var isStopped = false
                return transitions.map { transition in
                    if isStopped { return .superseded }
                    let result = apply(transition, at: now, in: &data)
                    isStopped = result == .superseded
                    return result
                }
            }
        default:
            return withData { data, now in transitions.map { apply($0, at: now, in: &data) } }
        }
    }

    private func apply(_ transition: Transition, at now: StoreTime, in data: inout Data) -> TransitionResult {
        var transition = transition
        let stored = data.operations[transition.id]
        guard stored?.isUnknown != true || flaw == .completesUnknownStates else { return .superseded }
        let verb = Flaw.Verb(transition.change)
        if let record = stored?.record {
            let (epoch, owner) = (transition.token.epoch, transition.token.owner)
            if flaw == .ignoresEpoch(verb) { transition.token = FencingToken(epoch: record.epoch, owner: owner) }
            if flaw == .ignoresNonce(verb) { transition.token = FencingToken(epoch: epoch, owner: record.owner) }
            if flaw == .lastWriterWins, verb == .complete { transition.token = record.token }
        }
        if case .complete(let outcome, let retention) = transition.change {
            transition.change = .complete(kept(outcome), retention: flaw == .ignoresTheCompletionsRetention ? nil : retention)
        }
        var (result, change) = RecordMachine.apply(transition, to: stored?.record, at: now)

        if let record = stored?.record, record.token == transition.token {
            switch (flaw, transition.change, record.state) {
            case (.releasesStreams, .release, .streaming): (result, change) = (.applied, .remove)
            case (.refusesLateCompletions, .complete, _) where record.leaseUntil <= now.lease: (result, change) = (.superseded, .keep)
            case (.refusesRepeatedCompletions, .complete, .completed): result = .superseded
            case (.lastOutcomeWins, .complete(let outcome, _), .completed):
                result = .applied
                data.operations[transition.id]?.record.outcome = outcome
            case (.forgetsRenewals, .renew, _): change = .keep
            case (.suspensionReleases, .suspend, _): change = .remove
            case (.releaseLeavesATombstone, .release, _) where result == .applied:
                var tombstone = record
                tombstone.state = .completed
                change = .put(tombstone)
            default: break
            }
        }
        if case .put(var record) = change {
            switch (flaw, verb) {
            case (.shortensLeases, .renew): if case .renew(let lease) = transition.change { record.leaseUntil = now.lease + lease }
            case (.dropsReasons, .suspend): record.reason = nil
            case (.countsRetentionFromTheClaim, .complete): record.changedAt = record.createdAt
            case (.replaysForEver, .complete): record.retention.response = record.retention.key
            case (.forgetsKeysWithOutcomes, .complete): record.retention.key = record.retention.response
            case (.neverForgetsKeys, .complete): record.retention.key = .seconds(1 << 40)
            default: break
            }
            change = .put(record)
        }
        commit(change, to: transition.id, isSilent: flaw == .releasesInSilence && verb == .release, in: &data)
        return result
    }

    private func kept(_ original: Outcome) -> Outcome {
        var outcome = original
        switch (flaw, outcome.body) {
        case (.takesEmptyForNothing, .kept([])): outcome = .unknownButApplied
        case (.cutsLargeBodies, .kept(let bytes)): outcome.body = .kept(Array(bytes.prefix(1 << 16)))
        case (.emptiesOmittedBodies, .omitted): outcome.body = .kept([])
        case (.dropsTrailers, _): outcome.trailers = []
        case (.keepsFieldsInADictionary, _):
            let fields = Dictionary(outcome.fields.map { ($0.name.lowercased(), $0.value) }, uniquingKeysWith: { $1 })
            outcome.fields = fields.sorted { $0.key < $1.key }.map { Outcome.Field($0.key, $0.value) }
        default: break
        }
        return outcome
    }

    // MARK: Reading

    func record(of id: OperationID) async throws(StoreError) -> Record? {
        let id = identity(of: id)
        return withData { data, now in settle(id, at: now, in: &data)?.record }
    }

    func leaseRemaining(of record: Record) async throws(StoreError) -> Duration {
        withData { _, now in flaw == .guessesLeases ? .seconds(30) : record.leaseUntil - now.lease }
    }

    func observe(_ id: OperationID) -> Observation {
        let id = identity(of: id)
        let observations = observations
        switch flaw {
        case .observesWhenAwaited:
            return Observation(
                stream: AsyncStream {
                    await observations.observe(id).signalled()
                    return ()
                }, onEnd: {})
        case .wakesOneWaiter:
            let (stream, continuation) = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
            medium.data.withLock { $0.waiters[id, default: []].append(continuation) }
            return Observation(stream: stream, onEnd: {})
        default:
            return observations.observe(id)
        }
    }

    func operations(_ query: OperationQuery) async throws(StoreError) -> OperationPage {
        var query = query
        if flaw == .listsEveryScene { query.scene = nil }
        if flaw == .listsEveryAge { query.unchangedFor = nil }
        let selection = query
        return withData { data, now in
            var found = data.operations.keys.compactMap { id -> (position: String, operation: StoredOperation)? in
                let listed = flaw == .listsWhatIsStored ? data.operations[id].map { StoredOperation(id: id, scene: $0.scene, record: $0.record) } : settle(id, at: now, in: &data)
                guard let listed, selection.matches(listed, at: now.retention) else { return nil }
                let time = String(1_000_000_000_000_000_000 + listed.record.changedAt.microseconds)
                return (flaw == .pagesByTimeAlone ? time : time + listed.reference.description, listed)
            }
            found.sort { $0.position < $1.position }
            if let cursor = selection.cursor { found.removeAll { $0.position <= cursor } }
            let page = found.prefix(selection.limit)
            return OperationPage(
                operations: page.map(\.operation), cursor: found.count > page.count ? page.last?.position : nil, now: now.retention)
        }
    }

    func operation(_ reference: OperationReference) async throws(StoreError) -> StoredOperation? {
        withData { data, now in
            guard let id = data.operations.keys.first(where: { OperationReference($0) == reference }) else { return nil }
            if flaw == .findsWhatIsStored { return data.operations[id].map { StoredOperation(id: id, scene: $0.scene, record: $0.record) } }
            return settle(id, at: now, in: &data)
        }
    }

    // MARK: Operating

    func verify(_ id: OperationID, owner: Owner, lease: Duration) async throws(StoreError) -> Grant? {
        let id = identity(of: id)
        return withData { data, now in
            var stored = data.operations[id]?.record
            if flaw == .verifiesWhatIsHeld, stored?.isLive == true { stored?.leaseUntil = .distantPast }
            let (grant, change) = RecordMachine.verify(
                stored, owner: owner, lease: lease, at: now,
                nextEpoch: { flaw == .asksBeforeRaising ? $0 : nextEpoch(after: $0, at: now, in: &data) })
            commit(change, to: id, in: &data)
            return grant
        }
    }

    func resolve(
        _ id: OperationID, as resolution: Resolution, by act: OperatorAct, expecting epoch: Epoch?
    ) async throws(StoreError) -> TransitionResult {
        guard await stillExpected(epoch, of: id) else { return .superseded }
        let epoch = flaw == .comparesEpochsFirst || flaw == .ignoresExpectedEpochs ? nil : epoch
        let id = identity(of: id)
        return withData { data, now in
            var stored = data.operations[id]?.record
            if flaw == .resolvesWhatIsHeld, stored?.isLive == true { stored?.state = .uncertain }
            var resolution = resolution
            if flaw == .resolvingDropsTheOutcome, case .applied = resolution { resolution = .applied(nil) }
            var (result, change) = RecordMachine.resolve(
                resolution, on: stored, expecting: epoch, at: now,
                nextEpoch: { flaw == .resolvingKeepsTheEpoch ? $0 : nextEpoch(after: $0, at: now, in: &data) })
            if flaw == .notAppliedChangesNothing, resolution == .notApplied { change = .keep }
            return record(act, resolution.action, on: id, stored, result: &result, change, at: now, in: &data)
        }
    }

    func forget(_ id: OperationID, by act: OperatorAct, expecting epoch: Epoch?) async throws(StoreError) -> TransitionResult {
        guard await stillExpected(epoch, of: id) else { return .superseded }
        let epoch = flaw == .comparesEpochsFirst || flaw == .ignoresExpectedEpochs ? nil : epoch
        let id = identity(of: id)
        return withData { data, now in
            let stored = data.operations[id]?.record
            var (result, change) = RecordMachine.forget(stored, expecting: epoch, at: now)
            if flaw == .forgetsTheLiving, stored != nil { (result, change) = (.applied, .remove) }
            if flaw == .forgettingRestartsEpochs { data.lastEpoch = .zero }
            return record(act, "forget", on: id, stored, result: &result, change, at: now, in: &data)
        }
    }

    /// Compares the epoch in a step of its own, as the flaw has it.
    private func stillExpected(_ epoch: Epoch?, of id: OperationID) async -> Bool {
        guard flaw == .comparesEpochsFirst, let epoch else { return true }
        let isExpected = medium.data.withLock { $0.operations[identity(of: id)]?.record.epoch == epoch }
        for _ in 0..<3 { await Task.yield() }
        return isExpected
    }

    private func record(
        _ act: OperatorAct, _ action: String, on id: OperationID, _ before: Record?, result: inout TransitionResult,
        _ change: RecordMachine.Change, at now: StoreTime, in data: inout Data
    ) -> TransitionResult {
        if flaw != .auditsNothing, result == .applied || flaw == .auditsRefusals {
            let last = flaw == .chainsNothing ? nil : data.audit.last
            data.audit.append(
                AuditEntry(
                    sequence: Int64(data.audit.count) + 1, time: now.retention, act: act, action: action, operation: OperationReference(id),
                    scene: data.operations[id]?.scene ?? "", detail: before.map { change.auditDetail(before: $0) } ?? "absent",
                    following: last?.hash ?? AuditEntry.genesisHash))
        }
        commit(change, to: id, in: &data)
        return result
    }

    func audit(after sequence: Int64, limit: Int) async throws(StoreError) -> [AuditEntry] {
        medium.data.withLock { Array($0.audit.dropFirst(Int(sequence)).prefix(limit)) }
    }

    func policy(_ hash: PolicyHash) async throws(StoreError) -> PinnedPolicy? {
        medium.data.withLock { $0.policies[hash] }
    }

    func purge(limit: Int) async throws(StoreError) -> PurgeReport {
        if flaw == .purgeReadsThenDeletes {
            let expired = withData { data, now in data.operations.filter { RecordMachine.settled($0.value.record, at: now) == nil }.map(\.key) }
            for _ in 0..<3 { await Task.yield() }
            medium.data.withLock { data in for id in expired { data.operations[id] = nil } }
            return PurgeReport(outcomes: 0, keys: expired.count)
        }
        return withData { data, now in
            var report = PurgeReport(outcomes: 0, keys: 0)
            guard flaw != .purgesNothing else { return report }
            for (id, entry) in data.operations where report.outcomes + report.keys < limit && !entry.isUnknown {
                let settled = RecordMachine.settled(entry.record, at: now)
                let isOld = flaw == .purgesTheLiving && entry.record.keyUntil <= now.retention
                let isTombstone = flaw == .purgesTombstones && settled?.state == .completed && settled?.outcome == nil
                if settled == nil || isOld || isTombstone {
                    data.operations[id] = nil
                    report.keys += 1
                } else if settled?.state == .completed, settled?.outcome == nil, entry.record.outcome != nil {
                    data.operations[id]?.record.outcome = nil
                    report.outcomes += 1
                }
            }
            return report
        }
    }

    func health() async -> StoreHealth { StoreHealth(isReady: true, detail: "a store for tests") }

    // MARK: Data

    private func withData<Result: Sendable>(_ body: (inout Data, StoreTime) -> Result) -> Result {
        medium.data.withLock { data in
            var now = clock.now()
            if flaw != .trustsTheWallClock {
                data.latest = max(data.latest, now.retention)
                now.retention = data.latest
            }
            return body(&data, now)
        }
    }

    private func settle(_ id: OperationID, at now: StoreTime, in data: inout Data) -> StoredOperation? {
        guard let entry = data.operations[id], let record = RecordMachine.settled(entry.record, at: now) else { return nil }
        if record.state != entry.record.state, flaw != .lapsesAnewAtEachRead { commit(.put(record), to: id, in: &data) }
        return StoredOperation(id: id, scene: entry.scene, record: record)
    }

    private func nextEpoch(after previous: Epoch, at now: StoreTime, in data: inout Data) -> Epoch {
        switch flaw {
        case .countsEpochsPerRecord: return Epoch(rawValue: previous.rawValue + 1)
        case .trustsTheWallClock: return Epoch.zero.next(at: now.retention, in: Incarnation(rawValue: 0))
        case .forgettingRestartsEpochs, .restartsEpochsOnReopening:
            data.lastEpoch = Epoch(rawValue: max(data.lastEpoch, previous).rawValue + 1)
        default:
            data.lastEpoch = max(data.lastEpoch, previous).next(at: now.retention, in: Incarnation(rawValue: 0))
        }
        return data.lastEpoch
    }

    private func commit(
        _ change: RecordMachine.Change, to id: OperationID, scene: String? = nil, isSilent: Bool = false, in data: inout Data
    ) {
        switch change {
        case .keep: return
        case .put(let record): data.operations[id] = Entry(scene: scene ?? data.operations[id]?.scene ?? "", record: record)
        case .remove: data.operations[id] = nil
        }
        if isSilent { return }
        if flaw == .wakesOneWaiter {
            if data.waiters[id]?.isEmpty == false { data.waiters[id]?.removeFirst().yield() }
        } else {
            observations.signal(id)
        }
    }

    /// What the store takes an operation's name for.
    private func identity(of id: OperationID) -> OperationID {
        switch flaw {
        case .ignoresScopes: .sample(bytes: id.key.bytes)
        case .joinsParts: .sample("joined", in: Scope(id.scope.parts.joined() + id.key.text))
        case .foldsCase: .sample(bytes: id.key.bytes.map { $0 >= 0x41 && $0 <= 0x5a ? $0 + 0x20 : $0 }, in: id.scope)
        case .cutsKeys: .sample(bytes: Array(id.key.bytes.prefix(254)), in: id.scope)
        case .endsKeysAtZero: .sample(bytes: [0x3e] + id.key.bytes.prefix { $0 != 0 }, in: id.scope)
        case .keepsTextOfKeys: .sample(id.key.text, in: id.scope)
        default: id
        }
    }
}
