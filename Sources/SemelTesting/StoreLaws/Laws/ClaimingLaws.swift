import Semel

extension StoreLaw {
    static let claiming = [
        atomicClaim, firstClaimIsRecorded, ownClaimIsRecognised, foreignClaimIsRefused, mismatchComesFirst,
        duplicateRenewsNothing, liveKeysAreLimited, policyIsPinned, unknownStatesFailClosed,
    ]

    public static let atomicClaim = StoreLaw(
        "of 64 concurrent claims of one key exactly one is granted", hazards: ["H15", "H40", "R7"]
    ) { trial in
        for round in 1...16 {
            let id = OperationID.sample("race \(round)")
            let store = trial.store
            let requests = (0..<64).map { trial.request(id, by: .claimant($0)) { $0.lease = trial.moments(1000) } }
            let results = try await withThrowingTaskGroup(of: ClaimResult.self) { group in
                for request in requests { group.addTask { try await store.claim(request) } }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            let granted = results.filter(\.isGranted).count
            trial.note("64 claimants claim \(id.name) at once: \(granted) are granted")
            try trial.expect(granted, is: 1, "the number of granted claims")
            try trial.expect(results.filter(\.isInProgress).count, is: 63, "the number of claims in progress")
        }
    }

    public static let firstClaimIsRecorded = StoreLaw("a claim is recorded as it was asked") { trial in
        let id = OperationID.sample()
        let parent = OperationReference(.sample("saga"))
        let grant = try await trial.grant(id, by: .ada) {
            $0.onLapse = .verify
            $0.mode = .observe
            $0.traceID = TraceID(high: 0x0123_4567_89ab_cdef, low: .max)
            $0.parent = parent
        }
        try trial.expect(grant.kind, is: .first, "the kind of the grant")
        try trial.expect(grant.attempt, is: 1, "the attempt")
        try trial.expect(grant.token.owner, is: .ada, "the owner in the token")
        try trial.expect(grant.traceID, is: TraceID(high: 0x0123_4567_89ab_cdef, low: .max), "the trace id in the grant")
        try trial.expect(
            grant.leaseRemaining > .zero && grant.leaseRemaining <= trial.moments(1), "the remaining lease is at most what was asked",
            actual: "\(grant.leaseRemaining)")

        let record = try await trial.record(of: id, in: .claimed)
        try trial.expect(record.token, is: grant.token, "the token in the record")
        try trial.expect(record.fingerprint, is: .sample("payload"), "the fingerprint")
        try trial.expect(record.policy, is: PinnedPolicy.sample.hash, "the policy")
        try trial.expect(record.mode, is: .observe, "the mode")
        try trial.expect(record.onLapse, is: .verify, "the lapse rule")
        try trial.expect(record.retention, is: Retention(response: trial.moments(4), key: trial.moments(8)), "the retention")
        try trial.expect(record.traceID, is: TraceID(high: 0x0123_4567_89ab_cdef, low: .max), "the trace id")
        try trial.expect(record.parent, is: parent, "the parent")
        try trial.expect(record.createdAt, is: grant.grantedAt, "the time of creation")
        try trial.expect(record.outcome, is: nil, "the outcome")
    }

    public static let ownClaimIsRecognised = StoreLaw(
        "a claimant whose answer was lost is given its own token again", hazards: ["H14", "R11"]
    ) { trial in
        let id = OperationID.sample()
        let first = try await trial.grant(id, by: .ada)
        let again = try await trial.grant(id, by: .ada)
        try trial.expect(again.kind, is: .again, "the kind of the second grant")
        try trial.expect(again.token, is: first.token, "the second token")
        try trial.expect(again.attempt, is: 1, "the attempt")

        let verified = OperationID.sample("verifying")
        let token = try await trial.place(verified, in: .verifying)
        let verification = try await trial.grant(verified, by: .ada)
        try trial.expect(verification.kind, is: .verify, "the kind of the grant while verifying")
        try trial.expect(verification.token, is: token, "the token while verifying")
    }

    public static let foreignClaimIsRefused = StoreLaw(
        "nobody else is given a claim whose lease runs", hazards: ["H15", "R13"]
    ) { trial in
        let strangers = [Owner.ben, Owner(high: Owner.ada.high, low: 2), Owner(high: 1, low: Owner.ada.low)]
        for situation in [Situation.claimed, .verifying, .streaming] {
            let id = OperationID.sample("\(situation)")
            _ = try await trial.place(id, in: situation)
            let before = try await trial.record(of: id)
            for stranger in strangers {
                let result = try await trial.claim(id, by: stranger)
                guard case .inProgress(let remaining) = result else {
                    throw trial.violation("\(id.name) is in progress", actual: result.summary)
                }
                try trial.expect(remaining > trial.moments(900), "the remaining lease is the holder's", actual: "\(remaining)")
            }
            try await trial.expectUnchanged(id, since: before, "a refused claim")
        }
    }

    public static let mismatchComesFirst = StoreLaw(
        "another fingerprint is a mismatch in every state, before anything else, and the same one never is", hazards: ["H25", "R18"]
    ) { trial in
        for situation in Situation.allCases {
            let id = OperationID.sample("\(situation)")
            _ = try await trial.place(id, in: situation)
            let before = try await trial.record(of: id)
            for owner in [Owner.ada, .ben] {
                let result = try await trial.claim(id, by: owner) { $0.fingerprint = .sample("another payload") }
                try trial.expect(result == .mismatch, "another payload is a mismatch when \(situation)", actual: result.summary)
            }
            try await trial.expectUnchanged(id, since: before, "a mismatch")
            let same = try await trial.claim(id, by: .ben)
            try trial.expect(same != .mismatch, "the same payload is no mismatch when \(situation)", actual: same.summary)
        }
        for rule in LapseRule.allCases {
            let id = OperationID.sample("lapsed, \(rule)")
            try await trial.grant(id, by: .ada) { $0.onLapse = rule }
        }
        try await trial.elapse(1.5)
        for rule in LapseRule.allCases {
            let id = OperationID.sample("lapsed, \(rule)")
            let result = try await trial.claim(id, by: .ben) { $0.fingerprint = .sample("another payload") }
            try trial.expect(result == .mismatch, "another payload is a mismatch after a lapse (\(rule))", actual: result.summary)
        }
    }

    public static let duplicateRenewsNothing = StoreLaw(
        "a duplicate never keeps the lease of a dead owner alive", hazards: ["R9", "H1"]
    ) { trial in
        let id = OperationID.sample()
        try await trial.grant(id, by: .ada) { $0.lease = trial.moments(2) }
        try await trial.elapse(1)
        let duplicate = try await trial.claim(id, by: .ben) { $0.lease = trial.moments(100) }
        guard case .inProgress(let remaining) = duplicate else {
            throw trial.violation("the key is in progress", actual: duplicate.summary)
        }
        try trial.expect(remaining <= trial.moments(1), "at most one moment of the lease is left", actual: "\(remaining)")
        try await trial.elapse(1.5)
        let grant = try await trial.grant(id, by: .ben)
        try trial.expect(grant.kind, is: .reclaimed, "the kind of the grant")
    }

    public static let liveKeysAreLimited = StoreLaw(
        "a scope holds no more live keys than it may, and none is evicted for another", hazards: ["H12"]
    ) { trial in
        let limited: (inout ClaimRequest) -> Void = {
            $0.liveLimit = 3
            $0.onLapse = .uncertain
        }
        let first = try await trial.grant(.sample("1"), by: .ada, limited)
        let second = try await trial.grant(.sample("2"), by: .ada, limited)
        try await trial.grant(.sample("3"), by: .ada, limited)

        let refused = try await trial.claim(.sample("4"), by: .ada, limited)
        try trial.expect(refused == .tooManyKeys, "a fourth live key is refused", actual: refused.summary)
        let none = try await trial.record(of: .sample("4"))
        try trial.expect(none == nil, "a refused key leaves no record", actual: none?.summary ?? "")
        let known = try await trial.claim(.sample("1"), by: .ben, limited)
        try trial.expect(known.isInProgress, "a key that is there is answered as ever", actual: known.summary)
        try await trial.grant(.sample("4", in: Scope("another")), by: .ada, limited)
        let batch = [trial.request(.sample("4"), by: .ada, limited), trial.request(.sample("5"), by: .ada, limited)]
        let answers = try await trial.store.claim(batch)
        try trial.expect(answers, is: [.tooManyKeys, .tooManyKeys], "the answer to a batch of new keys")
        // In the order of the batch; what is claimed without a limit takes room too.
        let mixed = try await trial.store.claim(
            (0..<12).map { number in
                trial.request(.sample("mixed \(number)", in: Scope("mixed")), by: .ada) { $0.liveLimit = number % 2 == 0 ? 5 : nil }
            })
        trial.note("a batch claims 12 keys, every second one with a limit of 5: \(mixed.map(\.summary))")
        try trial.expect(mixed.map(\.isGranted), is: (0..<12).map { $0 <= 5 || $0 % 2 == 1 }, "what is granted")

        try await trial.perform(.suspend(reason: "lost"), on: .sample("1"), with: first.token)
        let uncertain = try await trial.claim(.sample("4"), by: .ada, limited)
        try trial.expect(uncertain == .tooManyKeys, "an uncertain key counts", actual: uncertain.summary)

        try await trial.perform(.complete(.sample()), on: .sample("2"), with: second.token)
        try await trial.grant(.sample("4"), by: .ada, limited)
        let full = try await trial.claim(.sample("5"), by: .ada, limited)
        try trial.expect(full == .tooManyKeys, "the place of the finished key is taken", actual: full.summary)

        try await trial.elapse(1.5)
        let lapsed = try await trial.claim(.sample("5"), by: .ada, limited)
        try trial.expect(lapsed == .tooManyKeys, "a lapsed key counts until it is resolved", actual: lapsed.summary)
        _ = try await trial.resolve(.sample("1"), as: .notApplied)
        try await trial.grant(.sample("5"), by: .ada, limited)
        try await trial.record(of: .sample("3"), in: .uncertain)
    }

    public static let policyIsPinned = StoreLaw(
        "an operation keeps the policy it was first claimed under, and its text", hazards: ["H57"]
    ) { trial in
        let id = OperationID.sample()
        let changed = PinnedPolicy(scene: "payments", text: "the second rules")
        let first = try await trial.grant(id, by: .ada)
        try trial.expect(first.policy, is: PinnedPolicy.sample.hash, "the policy of the first grant")
        try await trial.elapse(1.5)
        let second = try await trial.grant(id, by: .ben) {
            $0.policy = changed
            $0.onLapse = .uncertain
            $0.retention = Retention(response: .seconds(1), key: .seconds(1))
        }
        try trial.expect(second.policy, is: PinnedPolicy.sample.hash, "the policy of the takeover")
        let record = try await trial.record(of: id, in: .claimed)
        try trial.expect(record.policy, is: PinnedPolicy.sample.hash, "the policy in the record")
        try trial.expect(record.onLapse, is: .reclaim, "the lapse rule in the record")
        try trial.expect(record.retention, is: Retention(response: trial.moments(4), key: trial.moments(8)), "the retention")
        try await trial.perform(.complete(.sample()), on: id, with: second.token)
        let completed = try await trial.record(of: id, in: .completed)
        try trial.expect(completed.policy, is: PinnedPolicy.sample.hash, "the policy of the completed record")

        try await trial.grant(.sample("another"), by: .ada) { $0.policy = changed }
        for policy in [PinnedPolicy.sample, changed] {
            let kept = try await trial.store.policy(policy.hash)
            try trial.expect(kept?.text, is: policy.text, "the kept text of the policy")
            try trial.expect(kept?.scene, is: policy.scene, "the kept scene of the policy")
        }
        let unknown = try await trial.store.policy(PolicyHash(high: 1, low: 2))
        try trial.expect(unknown == nil, "a policy that never was is not found")
    }

    public static let unknownStatesFailClosed = StoreLaw(
        "a record of an unknown state lets nothing run and is left as it is", hazards: ["H58"], requires: [.corruption]
    ) { trial in
        let id = OperationID.sample("from a newer version")
        let sound = OperationID.sample("sound")
        let token = try await trial.grant(id, by: .ada).token
        try await trial.corrupt(id)
        for owner in [Owner.ada, .ben] {
            let result = try await trial.claim(id, by: owner)
            guard case .unreadable = result else { throw trial.violation("the record is unreadable", actual: result.summary) }
        }
        for change in [Transition.Change.complete(.sample()), .release, .suspend(reason: "lost"), .stream, .renew(trial.moments(9))] {
            let result = try? await trial.apply(change, to: id, with: token)
            try trial.expect(result != .applied, "nobody can \(change.summary) an unreadable record", actual: "applied")
        }
        try await trial.elapse(20)
        try await trial.purge()
        let batch = [trial.request(sound, by: .ben), trial.request(id, by: .ben), trial.request(.sample("third"), by: .ben)]
        let answers = try await trial.store.claim(batch)
        guard answers.count == 3, answers[0].isGranted, case .unreadable = answers[1], answers[2].isGranted else {
            throw trial.violation("one unreadable record in a batch stops only itself", actual: "\(answers.map(\.summary))")
        }
    }
}
