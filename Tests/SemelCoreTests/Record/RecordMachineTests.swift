import SemelCore
import Testing

/// The machine against a table written down here by hand: every state, every request, own and foreign, before and after
/// the lease.
@Suite("The record machine")
struct RecordMachineTests {
    /// Where a record stands, time taken into account.
    enum Standing: Hashable { case absent, claimed, verifying, streaming, uncertain, completed, tombstone }

    /// A stored record, and where it stands at `RecordMachineTests.now`.
    struct Case: Sendable, CustomStringConvertible {
        var description: String
        var record: Record?
        var standing: Standing
        var isLapsed = false
    }

    static let now = StoreTime(lease: Timestamp(microseconds: 7_000_000), retention: Timestamp(microseconds: 90_000_000))
    static let holder = FencingToken(epoch: Epoch(rawValue: 40), owner: Owner(high: 1, low: 1))
    static let outcome = Outcome(status: 201, body: .kept([1]))

    static func record(_ state: RecordState, onLapse: LapseRule = .reclaim, leaseLeft: Duration = .seconds(1)) -> Record {
        Record(
            state: state, epoch: holder.epoch, owner: holder.owner, fingerprint: Fingerprint(of: [1]), policy: PolicyHash(high: 1, low: 2),
            mode: .enforce, onLapse: onLapse, retention: Retention(response: .seconds(10), key: .seconds(20)), attempt: 3,
            leaseUntil: now.lease + leaseLeft, createdAt: now.retention + .seconds(-60), changedAt: now.retention + .seconds(-5),
            traceID: TraceID(high: 3, low: 4), parent: nil, reason: state == .uncertain ? "lost" : nil,
            outcome: state == .completed ? outcome : nil)
    }

    static let cases: [Case] = {
        var cases = [Case(description: "absent", record: nil, standing: .absent)]
        for rule in LapseRule.allCases {
            for (state, standing) in [(RecordState.claimed, Standing.claimed), (.verifying, .verifying), (.streaming, .streaming)] {
                cases.append(Case(description: "\(state), \(rule)", record: record(state, onLapse: rule), standing: standing))
                for left in [Duration.zero, .seconds(-2)] {
                    let becomesUncertain = state == .streaming || (state == .claimed && rule == .uncertain)
                    cases.append(
                        Case(
                            description: "\(state), \(rule), lease ended at \(left)", record: record(state, onLapse: rule, leaseLeft: left),
                            standing: becomesUncertain ? .uncertain : standing, isLapsed: !becomesUncertain))
                }
            }
            cases.append(Case(description: "uncertain, \(rule)", record: record(.uncertain, onLapse: rule, leaseLeft: .seconds(-2)), standing: .uncertain))
        }
        for (age, standing) in [(9.999_999, Standing.completed), (10, .tombstone), (19.999_999, .tombstone), (20, .absent), (1000, .absent)] {
            var completed = record(.completed)
            completed.changedAt = now.retention + .seconds(-age)
            cases.append(Case(description: "completed \(age) s ago", record: completed, standing: standing))
        }
        return cases
    }()

    static func standing(of record: Record?) -> Standing {
        switch record?.state {
        case nil: .absent
        case .claimed: .claimed
        case .verifying: .verifying
        case .streaming: .streaming
        case .uncertain: .uncertain
        case .completed: record?.outcome == nil ? .tombstone : .completed
        }
    }

    /// What is stored after a change.
    static func after(_ change: RecordMachine.Change, _ stored: Record?) -> Record? {
        switch change {
        case .keep: stored
        case .put(let record): record
        case .remove: nil
        }
    }

    // MARK: Settling

    @Test("settles what time alone has decided, to the microsecond", arguments: cases)
    func settles(_ item: Case) {
        let settled = RecordMachine.settled(item.record, at: Self.now)
        #expect(Self.standing(of: settled) == item.standing)
        #expect(settled == nil || settled?.token == item.record?.token, "a lapse keeps the epoch and the owner")
        #expect(RecordMachine.settled(settled, at: Self.now) == settled, "settling twice is settling once")
        if item.standing == .uncertain { #expect(settled?.reason != nil) }
    }

    @Test("says of a lapsed claim that it is uncertain since its lease ended, not since somebody looked")
    func lapseTime() throws {
        let claimed = Self.record(.claimed, onLapse: .uncertain, leaseLeft: .seconds(-2))
        #expect(try #require(RecordMachine.settled(claimed, at: Self.now)).changedAt == Self.now.retention + .seconds(-2))
        #expect(RecordMachine.settled(claimed, at: Self.now)?.reason == RecordMachine.Reason.lapsed)
        let streaming = Self.record(.streaming, leaseLeft: .zero)
        #expect(RecordMachine.settled(streaming, at: Self.now)?.reason == RecordMachine.Reason.interruptedStream)
        #expect(RecordMachine.settled(streaming, at: Self.now)?.changedAt == Self.now.retention)
    }

    @Test("never lets the retention of a claimed or uncertain record end (H22)", arguments: [RecordState.claimed, .verifying, .streaming, .uncertain])
    func livingStay(_ state: RecordState) {
        let later = StoreTime(lease: Self.now.lease + .seconds(1 << 40), retention: Self.now.retention + .seconds(1 << 40))
        #expect(RecordMachine.settled(Self.record(state), at: later)?.isLive == true)
        #expect(RecordMachine.settled(Self.record(state), at: StoreTime(.distantFuture))?.isLive == true)
    }

    // MARK: Transitions

    /// Where each transition leads from each standing; what is missing is superseded.
    static let transitions: [(Transition.Change, [Standing: Standing])] = [
        (.complete(outcome), [.claimed: .completed, .verifying: .completed, .streaming: .completed, .uncertain: .completed, .completed: .completed]),
        (.complete(Outcome(status: 500)), [.claimed: .completed, .verifying: .completed, .streaming: .completed, .uncertain: .completed]),
        (
            .complete(outcome, retention: Retention(response: .zero, key: .seconds(1))),
            [.claimed: .completed, .verifying: .completed, .streaming: .completed, .uncertain: .completed, .completed: .completed]
        ),
        (.release, [.claimed: .absent, .verifying: .absent, .uncertain: .absent]),
        (.suspend(reason: "timeout"), [.claimed: .uncertain, .verifying: .uncertain, .streaming: .uncertain, .uncertain: .uncertain]),
        (.stream, [.claimed: .streaming, .streaming: .streaming]),
        (.renew(.seconds(5)), [.claimed: .claimed, .verifying: .verifying, .streaming: .streaming]),
        (.proceed(lease: .seconds(5)), [.verifying: .claimed]),
    ]

    @Test("applies the holder's transitions exactly where the table allows them", arguments: cases)
    func transitions(_ item: Case) {
        for (change, table) in Self.transitions {
            let transition = Transition(id: .test, token: Self.holder, change: change)
            let (result, stored) = RecordMachine.apply(transition, to: item.record, at: Self.now)
            let after = Self.after(stored, item.record)
            // To proceed, said again because the first answer was lost; it changes nothing (R11).
            if change == .proceed(lease: .seconds(5)), item.standing == .claimed, item.record?.onLapse == .verify {
                #expect(result == .applied && stored == .keep)
                continue
            }
            guard let expected = table[item.standing] else {
                #expect(result == .superseded && stored == .keep, "\(change) when \(item)")
                continue
            }
            #expect(result == .applied, "\(change) when \(item)")
            #expect(Self.standing(of: after) == expected, "\(change) when \(item)")
            guard let before = item.record, let after else { continue }
            #expect(after.token == Self.holder, "no transition changes the token")
            #expect(after.fingerprint == before.fingerprint && after.policy == before.policy && after.mode == before.mode)
            #expect(after.onLapse == before.onLapse && after.createdAt == before.createdAt && after.traceID == before.traceID)
            #expect(after.attempt == before.attempt)
        }
    }

    @Test("changes nothing for another nonce or epoch, in any state (R13, R17)", arguments: cases)
    func fencing(_ item: Case) {
        let strangers = [
            FencingToken(epoch: Epoch(rawValue: 39), owner: Self.holder.owner), FencingToken(epoch: Epoch(rawValue: 41), owner: Self.holder.owner),
            FencingToken(epoch: .zero, owner: Self.holder.owner), FencingToken(epoch: Self.holder.epoch, owner: Owner(high: 1, low: 2)),
            FencingToken(epoch: Self.holder.epoch, owner: Owner(high: 2, low: 1)), FencingToken(epoch: Self.holder.epoch, owner: Owner(high: 0, low: 0)),
        ]
        for token in strangers {
            for (change, _) in Self.transitions {
                let (result, stored) = RecordMachine.apply(Transition(id: .test, token: token, change: change), to: item.record, at: Self.now)
                #expect(result == .superseded && stored == .keep, "\(change) by \(token) when \(item)")
            }
        }
    }

    @Test("completes with the outcome, the time and the retention that were given")
    func completion() throws {
        let own = Retention(response: .seconds(1), key: .seconds(2))
        for retention in [nil, own] {
            let transition = Transition(id: .test, token: Self.holder, change: .complete(Self.outcome, retention: retention))
            let (_, change) = RecordMachine.apply(transition, to: Self.record(.uncertain), at: Self.now)
            let record = try #require(Self.after(change, nil))
            #expect(record.outcome == Self.outcome)
            #expect(record.changedAt == Self.now.retention)
            #expect(record.reason == nil)
            #expect(record.retention == retention ?? Self.record(.uncertain).retention)
        }
        #expect(Retention(response: .seconds(5), key: .seconds(1)).key == .seconds(5), "a key is kept at least as long as its outcome")
    }

    @Test("leaves the first outcome when a completion is said again (R11)")
    func repeatedCompletion() {
        let again = Transition(id: .test, token: Self.holder, change: .complete(Self.outcome, retention: Retention(response: .zero, key: .zero)))
        #expect(RecordMachine.apply(again, to: Self.record(.completed), at: Self.now) == (.applied, .keep))
        let other = Transition(id: .test, token: Self.holder, change: .complete(Outcome(status: 201, body: .kept([]))))
        #expect(RecordMachine.apply(other, to: Self.record(.completed), at: Self.now) == (.superseded, .keep))
    }

    @Test("lengthens leases by renewing and never shortens them")
    func renewal() throws {
        for (left, renewal, expected) in [(1.0, 5.0, 5.0), (9, 5, 9), (-3, 5, 5), (1, 0.000_001, 1)] {
            let record = Self.record(.claimed, leaseLeft: .seconds(left))
            let transition = Transition(id: .test, token: Self.holder, change: .renew(.seconds(renewal)))
            let (_, change) = RecordMachine.apply(transition, to: record, at: Self.now)
            #expect(Self.after(change, record)?.leaseUntil == Self.now.lease + .seconds(expected))
        }
    }

    // MARK: Claims

    @Test("answers each claim as the table says: own and foreign, same and other payload", arguments: cases)
    func claims(_ item: Case) throws {
        for owner in [Self.holder.owner, Owner(high: 9, low: 9)] {
            for payload in [[1], [2]] as [[UInt8]] {
                let request = Self.request(by: owner, payload: payload)
                var drawn: [Epoch] = []
                let (result, change) = RecordMachine.claim(
                    request, on: item.record, at: Self.now, liveRecords: { 0 },
                    nextEpoch: {
                        drawn.append($0)
                        return Epoch(rawValue: 99)
                    })
                let after = Self.after(change, item.record)
                let isOwn = owner == Self.holder.owner
                switch (item.standing, result) {
                case (.absent, .granted(let grant)):
                    #expect(grant.kind == .first && grant.attempt == 1 && grant.token == FencingToken(epoch: Epoch(rawValue: 99), owner: owner))
                    #expect(grant.leaseRemaining == .seconds(30) && grant.previousChange == nil && grant.policy == request.policy.hash)
                    #expect(after?.state == .claimed && after?.token == grant.token && after?.fingerprint == request.fingerprint)
                    #expect(after?.createdAt == Self.now.retention && after?.outcome == nil)
                case (.completed, .mismatch), (.tombstone, .mismatch), (.uncertain, .mismatch), (.claimed, .mismatch), (.verifying, .mismatch), (.streaming, .mismatch):
                    #expect(payload == [2], "a mismatch comes of another payload alone, and before anything else (H25, R18)")
                    #expect(after?.token == Self.holder && drawn == [])
                case (.completed, .completed(let record)):
                    #expect(payload == [1] && record.outcome == Self.outcome && change == .keep)
                case (.tombstone, .expired):
                    #expect(payload == [1] && change == .keep)
                case (.uncertain, .uncertain(let record)):
                    #expect(payload == [1] && record.token == Self.holder && after == record)
                case (.claimed, .granted(let grant)) where item.isLapsed, (.verifying, .granted(let grant)) where item.isLapsed:
                    let verifies = item.record?.onLapse == .verify
                    #expect(payload == [1] && grant.kind == (verifies ? .verify : .reclaimed))
                    #expect(drawn == [Self.holder.epoch] && grant.token == FencingToken(epoch: Epoch(rawValue: 99), owner: owner))
                    #expect(after?.state == (verifies ? .verifying : .claimed) && after?.token == grant.token && after?.attempt == 4)
                    #expect(grant.previousChange == Self.now.retention + (item.record!.leaseUntil - Self.now.lease))
                    #expect(after?.policy == item.record?.policy && after?.retention == item.record?.retention && after?.onLapse == item.record?.onLapse)
                case (.claimed, .granted(let grant)), (.verifying, .granted(let grant)):
                    #expect(payload == [1] && isOwn && grant.token == Self.holder && change == .keep && drawn == [])
                    #expect(grant.kind == (item.standing == .verifying ? .verify : .again))
                    // Said again, it still tells how long what the holder before sent may be under way.
                    #expect(grant.previousChange == item.record!.changedAt && grant.attempt == item.record!.attempt)
                case (.claimed, .inProgress(let remaining)), (.verifying, .inProgress(let remaining)):
                    #expect(payload == [1] && !isOwn && !item.isLapsed && remaining == .seconds(1) && change == .keep)
                case (.streaming, .inProgress(let remaining)):
                    #expect(payload == [1] && remaining == .seconds(1) && change == .keep)
                default:
                    Issue.record("\(item), \(isOwn ? "own" : "foreign"), payload \(payload): \(result)")
                }
            }
        }
    }

    @Test("asks for the number of live keys only where there is a limit, and only for a new key", arguments: cases)
    func limits(_ item: Case) {
        for (limit, live, isFull) in [(3, 2, false), (3, 3, true), (3, 4, true), (0, 0, true), (nil, 1_000, false)] as [(Int?, Int, Bool)] {
            var request = Self.request(by: Owner(high: 9, low: 9), payload: [1])
            request.liveLimit = limit
            var asked = 0
            let (result, change) = RecordMachine.claim(
                request, on: item.record, at: Self.now,
                liveRecords: {
                    asked += 1
                    return live
                }, nextEpoch: { Epoch(rawValue: $0.rawValue + 1) })
            #expect((result == .tooManyKeys) == (isFull && item.standing == .absent))
            if result == .tooManyKeys { #expect(change == .keep) }
            #expect(asked == (limit != nil && item.standing == .absent ? 1 : 0))
        }
    }

    // MARK: Verifying and deciding

    @Test("lets be verified what is uncertain or lapsed, and nothing else", arguments: cases)
    func verifying(_ item: Case) throws {
        let asker = Owner(high: 9, low: 9)
        let (grant, change) = RecordMachine.verify(
            item.record, owner: asker, lease: .seconds(30), at: Self.now, nextEpoch: { Epoch(rawValue: $0.rawValue + 59) })
        guard item.standing == .uncertain || item.isLapsed else {
            #expect(grant == nil && change == .keep)
            return
        }
        let given = try #require(grant)
        let after = try #require(Self.after(change, nil))
        #expect(given.kind == .verify && given.token == FencingToken(epoch: Epoch(rawValue: 99), owner: asker))
        #expect(after.state == .verifying && after.token == given.token && after.leaseUntil == Self.now.lease + .seconds(30))
        #expect(try #require(given.previousChange) <= Self.now.retention)
    }

    @Test("lets be resolved what is uncertain or lapsed, and nothing else", arguments: cases)
    func resolving(_ item: Case) {
        for resolution in [Resolution.applied(Self.outcome), .applied(nil), .notApplied] {
            let (result, change) = RecordMachine.resolve(
                resolution, on: item.record, at: Self.now, nextEpoch: { Epoch(rawValue: $0.rawValue + 59) })
            guard item.standing == .uncertain || item.isLapsed else {
                #expect(result == .superseded && change == .keep)
                continue
            }
            #expect(result == .applied)
            let after = Self.after(change, item.record)
            switch resolution {
            case .notApplied: #expect(after == nil)
            case .applied(let outcome):
                #expect(after?.state == .completed && after?.epoch == Epoch(rawValue: 99) && after?.reason == nil)
                #expect(after?.outcome == outcome ?? .unknownButApplied)
                #expect(after?.changedAt == Self.now.retention)
            }
        }
    }

    @Test("lets be forgotten what is finished, and nothing else", arguments: cases)
    func forgetting(_ item: Case) {
        let isFinished = item.standing == .completed || item.standing == .tombstone
        #expect(RecordMachine.forget(item.record, at: Self.now) == (isFinished ? (.applied, .remove) : (.superseded, .keep)))
    }

    @Test("lets nothing be decided about another epoch than the record's", arguments: cases)
    func deciding(_ item: Case) {
        guard let epoch = item.record?.epoch else { return }
        let other = Epoch(rawValue: epoch.rawValue - 1)
        let decide = { (expected: Epoch?) in
            RecordMachine.resolve(
                .notApplied, on: item.record, expecting: expected, at: Self.now, nextEpoch: { Epoch(rawValue: $0.rawValue + 59) })
        }
        #expect(decide(other) == (.superseded, .keep) && decide(epoch) == decide(nil))
        #expect(RecordMachine.forget(item.record, expecting: other, at: Self.now) == (.superseded, .keep))
        let forgetting = RecordMachine.forget(item.record, at: Self.now)
        #expect(RecordMachine.forget(item.record, expecting: epoch, at: Self.now) == forgetting)
    }

    private static func request(by owner: Owner, payload: [UInt8]) -> ClaimRequest {
        ClaimRequest(
            id: .test, fingerprint: Fingerprint(of: payload), owner: owner, lease: .seconds(30), onLapse: .uncertain,
            policy: PinnedPolicy(scene: "a new policy", text: ""))
    }
}

extension OperationID {
    fileprivate static let test: OperationID = {
        guard let key = try? OperationKey("key") else { preconditionFailure("a key") }
        return OperationID(scope: Scope("test"), key: key)
    }()
}
