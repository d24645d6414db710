import Semel

extension StoreLaw {
    static let lapsing = [
        lapsedClaimIsReclaimed, lapsedClaimBecomesUncertain, lapsedClaimIsVerified, lapsedVerificationIsVerifiedAgain,
        verificationRaisesTheEpochFirst, verificationTakesNothingFromAHolder, lateCompletionIsAccepted, leasesAreExact,
        renewalKeepsAClaim, interruptedStreamIsUncertain,
    ]

    public static let lapsedClaimIsReclaimed = StoreLaw(
        "where the target bears a second run, a lapsed claim is granted again under a higher epoch", hazards: ["H1"]
    ) { trial in
        let id = OperationID.sample()
        var former = try await trial.grant(id, by: .ada)
        for attempt in 2...4 as ClosedRange<UInt32> {
            try await trial.elapse(1.5)
            let owner = Owner.claimant(Int(attempt))
            let grant = try await trial.grant(id, by: owner)
            try trial.expect(grant.kind, is: .reclaimed, "the kind of the grant")
            try trial.expect(grant.token.epoch > former.token.epoch, "the epoch rises from \(former.token.epoch)", actual: "\(grant.token.epoch)")
            try trial.expect(grant.token.owner, is: owner, "the owner in the token")
            try trial.expect(grant.attempt, is: attempt, "the attempt")
            try trial.expect(grant.leaseRemaining <= trial.moments(1), "the lease is the new one", actual: "\(grant.leaseRemaining)")
            let since = grant.previousChange ?? .distantPast
            try trial.expect(
                since > former.grantedAt && since <= grant.grantedAt, "the grant tells when the former lease ended", actual: "\(since)")
            let record = try await trial.record(of: id, in: .claimed)
            try trial.expect(record.token, is: grant.token, "the token in the record")
            let another = try await trial.claim(id, by: .cleo)
            try trial.expect(another.isInProgress, "the key is in progress again", actual: another.summary)
            former = grant
        }
        // Its own lapsed claim is no exception: it does not know what it sent.
        try await trial.elapse(1.5)
        let own = try await trial.grant(id, by: former.token.owner)
        try trial.expect(own.kind, is: .reclaimed, "the kind of a grant to the former holder itself")
        try trial.expect(own.token.epoch > former.token.epoch, "the epoch rises", actual: "\(own.token.epoch)")
    }

    public static let lapsedClaimBecomesUncertain = StoreLaw(
        "where nothing is known about the target, a lapsed claim is uncertain, and nobody runs it again", hazards: ["H1", "H2"]
    ) { trial in
        let id = OperationID.sample()
        let grant = try await trial.grant(id, by: .ada) { $0.onLapse = .uncertain }
        try await trial.elapse(1.5)
        for owner in [Owner.ben, .ada] {
            let result = try await trial.claim(id, by: owner) { $0.onLapse = .reclaim }
            guard case .uncertain(let record) = result else { throw trial.violation("the key is uncertain", actual: result.summary) }
            try trial.expect(record.token, is: grant.token, "the token of the uncertain record")
            try trial.expect(record.reason != nil, "the record says why it is uncertain")
            try trial.expect(
                record.changedAt > grant.grantedAt, "the record says since when it is uncertain", actual: "\(record.changedAt)")
        }
        try await trial.elapse(20)
        let later = try await trial.claim(id, by: .ben)
        guard case .uncertain = later else { throw trial.violation("it stays uncertain beyond every retention", actual: later.summary) }
        try await trial.record(of: id, in: .uncertain)
    }

    public static let lapsedClaimIsVerified = StoreLaw(
        "where the target can be asked, a lapsed claim is granted for verifying, and runs only when told to proceed", hazards: ["H1", "H2"]
    ) { trial in
        let id = OperationID.sample()
        let first = try await trial.grant(id, by: .ada) { $0.onLapse = .verify }
        try await trial.elapse(1.5)
        let verification = try await trial.grant(id, by: .ben)
        try trial.expect(verification.kind, is: .verify, "the kind of the grant")
        try trial.expect(verification.token.epoch > first.token.epoch, "the epoch rises before the target is asked")
        try trial.expect(verification.previousChange != nil, "the grant tells when the former lease ended")
        try await trial.record(of: id, in: .verifying)
        let waiting = try await trial.claim(id, by: .cleo)
        try trial.expect(waiting.isInProgress, "a verification is in progress", actual: waiting.summary)

        try await trial.perform(.proceed(lease: trial.moments(3)), on: id, with: verification.token)
        let record = try await trial.record(of: id, in: .claimed)
        try trial.expect(record.token, is: verification.token, "the token after proceeding")
        try await trial.elapse(2)
        let running = try await trial.claim(id, by: .cleo)
        try trial.expect(running.isInProgress, "the lease is that of the proceeding", actual: running.summary)
        try await trial.perform(.complete(.sample()), on: id, with: verification.token)
    }

    public static let lapsedVerificationIsVerifiedAgain = StoreLaw(
        "a verification whose asker is gone is granted for verifying again", hazards: ["H1"]
    ) { trial in
        let id = OperationID.sample()
        try await trial.grant(id, by: .ada) { $0.onLapse = .verify }
        try await trial.elapse(1.5)
        let second = try await trial.grant(id, by: .ben)
        try await trial.elapse(1.5)
        let third = try await trial.grant(id, by: .cleo)
        try trial.expect(third.kind, is: .verify, "the kind of the grant")
        try trial.expect(third.token.epoch > second.token.epoch, "the epoch rises from \(second.token.epoch)", actual: "\(third.token.epoch)")
        let late = try await trial.apply(.proceed(lease: trial.moments(3)), to: id, with: second.token)
        try trial.expect(late == .superseded, "the former asker cannot proceed", actual: "\(late)")
    }

    public static let verificationRaisesTheEpochFirst = StoreLaw(
        "to verify an uncertain operation raises its epoch before the target is asked, and shuts its former holder out", hazards: ["H5", "H6"]
    ) { trial in
        let uncertain = OperationID.sample("suspended")
        let lapsed = OperationID.sample("lapsed")
        let former = [uncertain: try await trial.place(uncertain, in: .uncertain), lapsed: try await trial.grant(lapsed, by: .ada).token]
        try await trial.elapse(1.5)
        for (id, token) in former {
            let grant = try await trial.verification(of: id, by: .ben)
            try trial.expect(grant.kind, is: .verify, "the kind of the grant")
            try trial.expect(grant.token.epoch > token.epoch, "the epoch rises from \(token.epoch)", actual: "\(grant.token.epoch)")
            try trial.expect(grant.token.owner, is: .ben, "the owner in the token")
            try trial.expect(grant.previousChange != nil, "the grant tells since when nobody had a right to send")
            let record = try await trial.record(of: id, in: .verifying)
            try trial.expect(record.token, is: grant.token, "the token in the record")
            let late = try await trial.apply(.complete(.sample("late")), to: id, with: token)
            try trial.expect(late == .superseded, "the former holder is shut out", actual: "\(late)")
            try await trial.perform(.complete(.sample("found at the target")), on: id, with: grant.token)
            let replay = try await trial.claim(id, by: .cleo)
            try trial.expect(replay.replayed == .sample("found at the target"), "what was found is replayed", actual: replay.summary)
        }
    }

    public static let verificationTakesNothingFromAHolder = StoreLaw(
        "there is nothing to verify about an operation that is absent, finished, or held under a lease that runs", hazards: ["H61"]
    ) { trial in
        for situation in [Situation.claimed, .verifying, .streaming, .completed, .tombstone] {
            let id = OperationID.sample("\(situation)")
            _ = try await trial.place(id, in: situation)
            let before = try await trial.record(of: id)
            let grant = try await trial.verify(id, by: .ben)
            try trial.expect(grant == nil, "there is nothing to verify when \(situation)", actual: grant?.summary ?? "")
            try await trial.expectUnchanged(id, since: before, "a verification that was not granted")
        }
        let grant = try await trial.verify(.sample("absent"), by: .ben)
        try trial.expect(grant == nil, "there is nothing to verify about an absent key", actual: grant?.summary ?? "")
        try await trial.expectUnchanged(.sample("absent"), since: nil, "a verification")
    }

    public static let lateCompletionIsAccepted = StoreLaw(
        "a late completion by the last holder is accepted while nobody has taken over", hazards: ["H2", "H5"]
    ) { trial in
        for rule in LapseRule.allCases {
            let id = OperationID.sample("\(rule)")
            try await trial.grant(id, by: .ada) { $0.onLapse = rule }
        }
        try await trial.elapse(1.5)
        for rule in LapseRule.allCases {
            let id = OperationID.sample("\(rule)")
            if rule == .uncertain {
                // Others have looked, and were told that it is uncertain.
                _ = try await trial.claim(id, by: .ben)
            }
            guard let token = try await trial.record(of: id)?.token else { throw trial.violation("a lapsed record stays", actual: "absent") }
            try await trial.perform(.complete(.sample("late")), on: id, with: token)
            let replay = try await trial.claim(id, by: .ben)
            try trial.expect(replay.replayed == .sample("late"), "the late outcome is replayed", actual: replay.summary)
        }
        let suspended = OperationID.sample("suspended")
        let token = try await trial.place(suspended, in: .uncertain)
        try await trial.perform(.complete(.sample("late")), on: suspended, with: token)
        let record = try await trial.record(of: suspended, in: .completed)
        try trial.expect(record.reason == nil, "a completed record has no reason to be uncertain", actual: record.summary)
    }

    public static let leasesAreExact = StoreLaw(
        "a lease lasts as long as was asked: 50 ms, a moment, a year", hazards: ["H9", "R3"]
    ) { trial in
        let (short, middle, long) = (OperationID.sample("short"), OperationID.sample("middle"), OperationID.sample("long"))
        let year = Duration.seconds(365 * 24 * 3600)
        try await trial.grant(long, by: .ada) { $0.lease = year }
        try await trial.grant(short, by: .ada) { $0.lease = .milliseconds(50) }
        try await trial.elapse(.milliseconds(75))
        let reclaimed = try await trial.grant(short, by: .ben)
        try trial.expect(reclaimed.kind, is: .reclaimed, "the kind of the grant after 50 ms")

        try await trial.grant(middle, by: .ada) { $0.lease = trial.moments(2) }
        let record = try await trial.record(of: middle, in: .claimed)
        try await trial.elapse(1)
        let half = try await trial.store.leaseRemaining(of: record)
        try trial.expect(half > .zero && half <= trial.moments(1), "half of the lease is left of the record read", actual: "\(half)")
        let early = try await trial.claim(middle, by: .ben)
        try trial.expect(early.isInProgress, "half of the lease runs still", actual: early.summary)
        try await trial.elapse(1.5)
        let lapsed = try await trial.store.leaseRemaining(of: record)
        try trial.expect(lapsed <= .zero, "nothing of the lease is left", actual: "\(lapsed)")
        try await trial.grant(middle, by: .ben)
        let held = try await trial.claim(long, by: .ben)
        guard case .inProgress(let remaining) = held else { throw trial.violation("the year has hardly begun", actual: held.summary) }
        try trial.expect(remaining > year - trial.moments(60) && remaining <= year, "nearly a year is left", actual: "\(remaining)")
    }

    public static let renewalKeepsAClaim = StoreLaw(
        "its holder's renewals, and nothing else, keep a claim alive; they never shorten it", hazards: ["H1", "R9"]
    ) { trial in
        let (kept, long, lapsed) = (OperationID.sample("kept"), OperationID.sample("long"), OperationID.sample("lapsed"))
        let token = try await trial.grant(kept, by: .ada).token
        for _ in 1...4 {
            try await trial.elapse(0.6)
            try await trial.perform(.renew(trial.moments(1)), on: kept, with: token)
            let result = try await trial.claim(kept, by: .ben)
            guard case .inProgress(let remaining) = result else { throw trial.violation("the claim is alive", actual: result.summary) }
            try trial.expect(remaining <= trial.moments(1), "the lease counts from the renewal", actual: "\(remaining)")
        }
        try await trial.elapse(1.5)
        try await trial.grant(kept, by: .ben)

        let longToken = try await trial.grant(long, by: .ada) { $0.lease = trial.moments(100) }.token
        try await trial.perform(.renew(.milliseconds(50)), on: long, with: longToken)
        try await trial.elapse(1.5)
        let held = try await trial.claim(long, by: .ben)
        try trial.expect(held.isInProgress, "a short renewal shortens nothing", actual: held.summary)

        // Late, but before anybody took over: the epoch is the proof.
        let lapsedToken = try await trial.grant(lapsed, by: .ada).token
        try await trial.elapse(1.5)
        try await trial.perform(.renew(trial.moments(50)), on: lapsed, with: lapsedToken)
        let alive = try await trial.claim(lapsed, by: .ben)
        try trial.expect(alive.isInProgress, "a late renewal holds when nobody took over", actual: alive.summary)
    }

    public static let interruptedStreamIsUncertain = StoreLaw(
        "a stream that breaks off is uncertain, whatever the lapse rule, and nothing of it is replayed", hazards: ["H36", "R19"]
    ) { trial in
        for rule in LapseRule.allCases {
            let id = OperationID.sample("\(rule)")
            let token = try await trial.grant(id, by: .ada) { $0.onLapse = rule }.token
            try await trial.perform(.stream, on: id, with: token)
        }
        for rule in LapseRule.allCases {
            for owner in [Owner.ada, .ben] {
                let result = try await trial.claim(.sample("\(rule)"), by: owner)
                try trial.expect(result.isInProgress, "a stream is in progress, for its sender too", actual: result.summary)
            }
        }
        try await trial.elapse(1.5)
        for rule in LapseRule.allCases {
            let id = OperationID.sample("\(rule)")
            let result = try await trial.claim(id, by: .ben)
            guard case .uncertain(let record) = result else { throw trial.violation("a broken stream is uncertain", actual: result.summary) }
            try await trial.perform(.complete(.omitted), on: id, with: record.token)
        }
    }
}
