import Semel

extension StoreLaw {
    static let reopening = [
        reopeningKeepsEverything, epochsSurviveReopening, auditSurvivesReopening, reopeningEndsLeases,
    ]

    public static let reopeningKeepsEverything = StoreLaw(
        "what was acknowledged is there after the store is opened anew", hazards: ["H3", "H11", "H18"], requires: [.reopening]
    ) { trial in
        var before: [Situation: Record] = [:]
        for situation in Situation.allCases {
            _ = try await trial.place(.sample("\(situation)"), in: situation)
            before[situation] = try await trial.record(of: .sample("\(situation)"))
        }
        let released = OperationID.sample("released")
        try await trial.perform(.release, on: released, with: try await trial.grant(released, by: .ada).token)
        try await trial.reopen()

        for situation in [Situation.uncertain, .completed, .tombstone] {
            try await trial.expectUnchanged(.sample("\(situation)"), since: before[situation], "a new start")
        }
        for situation in [Situation.claimed, .verifying, .streaming] {
            let record = try await trial.record(of: .sample("\(situation)"))
            try trial.expect(record?.token == before[situation]?.token, "the holder of \(situation) is kept", actual: record?.summary ?? "absent")
        }
        let replay = try await trial.claim(.sample("completed"), by: .ben)
        try trial.expect(replay.replayed == .sample(), "a completed operation is replayed", actual: replay.summary)
        let expired = try await trial.claim(.sample("tombstone"), by: .ben)
        try trial.expect(expired == .expired, "an expired key is still known", actual: expired.summary)
        let uncertain = try await trial.claim(.sample("uncertain"), by: .ben)
        guard case .uncertain = uncertain else { throw trial.violation("the uncertain one is still uncertain", actual: uncertain.summary) }
        let free = try await trial.claim(released, by: .ben)
        try trial.expect(free.isGranted, "a released key is free", actual: free.summary)
        let policy = try await trial.store.policy(PinnedPolicy.sample.hash)
        try trial.expect(policy?.text, is: PinnedPolicy.sample.text, "the kept text of the policy")
        let limited = try await trial.claim(.sample("one more"), by: .ben) { $0.liveLimit = 5 }
        try trial.expect(limited == .tooManyKeys, "the five live keys are counted", actual: limited.summary)
        let scenes = try await trial.store.operations(OperationQuery(scene: PinnedPolicy.sample.scene))
        try trial.expect(scenes.operations.count, is: 7, "the number of operations of the scene")
    }

    public static let epochsSurviveReopening = StoreLaw(
        "the epochs of a key rise after the store was opened anew, also for keys that were forgotten", hazards: ["H21"], requires: [.reopening]
    ) { trial in
        let (released, purged) = (OperationID.sample("released"), OperationID.sample("purged"))
        var last: [OperationID: Epoch] = [:]
        for round in 0..<3 {
            for id in [released, purged] {
                let grant = try await trial.grant(id, by: .claimant(round))
                let former = last[id] ?? .zero
                try trial.expect(grant.token.epoch > former, "the epoch of \(id.name) rises from \(former)", actual: "\(grant.token.epoch)")
                last[id] = grant.token.epoch
                let retention = Retention(response: .milliseconds(1), key: .milliseconds(1))
                try await trial.perform(id == released ? .release : .complete(.sample(), retention: retention), on: id, with: grant.token)
            }
            try await trial.elapse(.milliseconds(5))
            try await trial.purge()
            if round == 1, trial.subject.capabilities.contains(.wallClock) { try await trial.setWallClockBack(100) }
            try await trial.reopen()
        }
    }

    public static let auditSurvivesReopening = StoreLaw(
        "the audit log goes on, in one chain, after the store was opened anew", hazards: ["H61"], requires: [.reopening]
    ) { trial in
        for round in 0..<3 {
            let id = OperationID.sample("\(round)")
            _ = try await trial.place(id, in: .uncertain)
            _ = try await trial.resolve(id, as: .applied(nil))
            try await trial.reopen()
        }
        let entries = try await trial.store.audit(after: 0, limit: 100)
        try trial.expect(entries.map(\.sequence), is: [1, 2, 3], "the sequence numbers")
        let broken = AuditEntry.firstBreak(in: entries, following: (0, AuditEntry.genesisHash))
        try trial.expect(broken == nil, "the chain is whole", actual: "entry \(broken?.sequence ?? 0) does not follow")
    }

    public static let reopeningEndsLeases = StoreLaw(
        "claims of an earlier process lapse by their rule when the store is opened anew, however long their lease", hazards: ["H1", "H2", "H9"],
        requires: [.reopening, .leasesEndOnReopening]
    ) { trial in
        var tokens: [String: FencingToken] = [:]
        for rule in LapseRule.allCases {
            tokens["\(rule)"] = try await trial.grant(.sample("\(rule)"), by: .ada) {
                $0.onLapse = rule
                $0.lease = trial.moments(1000)
            }.token
        }
        tokens["streaming"] = try await trial.place(.sample("streaming"), in: .streaming)
        tokens["verifying"] = try await trial.place(.sample("verifying"), in: .verifying)
        tokens["late"] = try await trial.place(.sample("late"), in: .claimed)
        try await trial.reopen()

        try await trial.perform(.complete(.sample("late")), on: .sample("late"), with: tokens["late"]!)
        for (name, kind) in [("reclaim", Grant.Kind.reclaimed), ("verify", .verify), ("verifying", .verify)] {
            let id = OperationID.sample(name)
            let grant = try await trial.grant(id, by: .ben)
            try trial.expect(grant.kind, is: kind, "the kind of the grant")
            try trial.expect(grant.token.epoch > tokens[name]!.epoch, "the epoch rises from \(tokens[name]!.epoch)", actual: "\(grant.token.epoch)")
            try trial.expect(grant.previousChange.map { $0 <= grant.grantedAt } ?? false, "the former lease ended before the grant")
            let late = try await trial.apply(.complete(.sample("late")), to: id, with: tokens[name]!)
            try trial.expect(late == .superseded, "the earlier process is shut out", actual: "\(late)")
        }
        for name in ["uncertain", "streaming"] {
            let result = try await trial.claim(.sample(name), by: .ben)
            guard case .uncertain(let record) = result else { throw trial.violation("\(name) is uncertain", actual: result.summary) }
            try trial.expect(record.token, is: tokens[name]!, "the token of the uncertain record")
        }
        // The new process has leases of its own.
        let fresh = try await trial.claim(.sample("reclaim"), by: .cleo)
        try trial.expect(fresh.isInProgress, "a lease of this process runs", actual: fresh.summary)
    }
}
