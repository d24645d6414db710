import Semel

extension StoreLaw {
    static let operating = [
        resolvedAsApplied, resolvedAsNotApplied, resolutionOverridesNobody, onlyFinishedKeysAreForgotten, staleDecisionsChangeNothing,
        decisionsRaceTakeovers, actsAreAudited, auditIsChained,
    ]

    public static let resolvedAsApplied = StoreLaw(
        "an uncertain operation resolved as applied is completed, with the outcome or without, and its holder is shut out", hazards: ["H61"]
    ) { trial in
        for outcome in [Outcome.sample("from the ledger"), .omitted, nil] {
            let id = OperationID.sample(outcome?.summary ?? "unknown")
            let token = try await trial.place(id, in: .uncertain)
            let result = try await trial.resolve(id, as: .applied(outcome))
            try trial.expect(result == .applied, "the resolution is applied", actual: "\(result)")
            let record = try await trial.record(of: id, in: .completed)
            try trial.expect(record.epoch > token.epoch, "the epoch rises from \(token.epoch)", actual: "\(record.epoch)")
            try trial.expect(record.outcome, is: outcome ?? .unknownButApplied, "the outcome")
            let late = try await trial.apply(.complete(.sample("late")), to: id, with: token)
            try trial.expect(late == .superseded, "the former holder is shut out", actual: "\(late)")
            let replay = try await trial.claim(id, by: .ben)
            try trial.expect(replay.replayed, is: outcome ?? .unknownButApplied, "the outcome that is replayed")
            let again = try await trial.resolve(id, as: .notApplied)
            try trial.expect(again == .superseded, "what is resolved is not resolved again", actual: "\(again)")
        }
        let lapsed = OperationID.sample("lapsed")
        try await trial.grant(lapsed, by: .ada) { $0.onLapse = .uncertain }
        try await trial.elapse(1.5)
        let result = try await trial.resolve(lapsed, as: .applied(.sample()))
        try trial.expect(result == .applied, "a lapsed claim can be resolved before anybody looked at it", actual: "\(result)")
    }

    public static let resolvedAsNotApplied = StoreLaw(
        "an uncertain operation resolved as not applied runs once more, under a higher epoch", hazards: ["H61"]
    ) { trial in
        let id = OperationID.sample()
        let token = try await trial.place(id, in: .uncertain)
        let result = try await trial.resolve(id, as: .notApplied)
        try trial.expect(result == .applied, "the resolution is applied", actual: "\(result)")
        let late = try await trial.apply(.complete(.sample("late")), to: id, with: token)
        try trial.expect(late == .superseded, "the former holder is shut out", actual: "\(late)")
        let first = try await trial.grant(id, by: .ben)
        try trial.expect(first.kind, is: .first, "the kind of the grant")
        try trial.expect(first.token.epoch > token.epoch, "the epoch rises from \(token.epoch)", actual: "\(first.token.epoch)")
        let second = try await trial.claim(id, by: .cleo)
        try trial.expect(second.isInProgress, "it runs once, not twice", actual: second.summary)
    }

    public static let resolutionOverridesNobody = StoreLaw(
        "nobody can resolve an operation that is absent, finished, or held under a lease that runs", hazards: ["H61"]
    ) { trial in
        for situation in [Situation.claimed, .verifying, .streaming, .completed, .tombstone] {
            let id = OperationID.sample("\(situation)")
            _ = try await trial.place(id, in: situation)
            let before = try await trial.record(of: id)
            for resolution in [Resolution.applied(.sample("forced")), .applied(nil), .notApplied] {
                let result = try await trial.resolve(id, as: resolution)
                try trial.expect(result == .superseded, "a resolution when \(situation) is superseded", actual: "\(result)")
                try await trial.expectUnchanged(id, since: before, "a superseded resolution")
            }
        }
        let absent = try await trial.resolve(.sample("absent"), as: .applied(.sample("forced")))
        try trial.expect(absent == .superseded, "a resolution of an absent key is superseded", actual: "\(absent)")
        try await trial.expectUnchanged(.sample("absent"), since: nil, "a superseded resolution")
    }

    public static let onlyFinishedKeysAreForgotten = StoreLaw(
        "only a finished operation can be forgotten; then its key runs again", hazards: ["H61"]
    ) { trial in
        for situation in [Situation.claimed, .verifying, .streaming, .uncertain] {
            let id = OperationID.sample("\(situation)")
            _ = try await trial.place(id, in: situation)
            let before = try await trial.record(of: id)
            let result = try await trial.forget(id)
            try trial.expect(result == .superseded, "nobody can forget what is \(situation)", actual: "\(result)")
            try await trial.expectUnchanged(id, since: before, "a superseded forgetting")
        }
        let absent = try await trial.forget(.sample("absent"))
        try trial.expect(absent == .superseded, "nobody can forget what is absent", actual: "\(absent)")
        for situation in [Situation.completed, .tombstone] {
            let id = OperationID.sample("\(situation)")
            let token = try await trial.place(id, in: situation)
            let result = try await trial.forget(id)
            try trial.expect(result == .applied, "what is \(situation) can be forgotten", actual: "\(result)")
            let none = try await trial.record(of: id)
            try trial.expect(none == nil, "the key is absent", actual: none?.summary ?? "")
            let again = try await trial.apply(.complete(.sample()), to: id, with: token)
            try trial.expect(again == .superseded, "its former holder cannot bring it back", actual: "\(again)")
            let grant = try await trial.grant(id, by: .ben)
            try trial.expect(grant.kind, is: .first, "the kind of the grant")
        }
    }

    public static let staleDecisionsChangeNothing = StoreLaw(
        "a decision about one epoch changes nothing, and is not audited, once the record is at another", hazards: ["H61"]
    ) { trial in
        let id = OperationID.sample("decided")
        let first = try await trial.place(id, in: .uncertain)
        let second = try await trial.verification(of: id, by: .ben)
        try await trial.perform(.suspend(reason: "no answer"), on: id, with: second.token)
        let seen = try await trial.record(of: id)
        let strangers = [first.epoch, Epoch(rawValue: second.token.epoch.rawValue + 1), .zero]
        for epoch in strangers {
            for resolution in [Resolution.applied(.sample("stale")), .applied(nil), .notApplied] {
                let stale = try await trial.resolve(id, as: resolution, expecting: epoch)
                try trial.expect(stale == .superseded, "a decision about epoch \(epoch) is superseded", actual: "\(stale)")
                try await trial.expectUnchanged(id, since: seen, "a stale decision")
            }
        }
        let decided = try await trial.resolve(id, as: .notApplied, expecting: second.token.epoch)
        try trial.expect(decided == .applied, "a decision about the epoch that is there is applied", actual: "\(decided)")
        let gone = try await trial.resolve(id, as: .notApplied, expecting: second.token.epoch)
        try trial.expect(gone == .superseded, "what is gone is not decided again", actual: "\(gone)")

        let finished = OperationID.sample("finished")
        let token = try await trial.place(finished, in: .completed)
        let kept = try await trial.record(of: finished)
        for epoch in [first.epoch, .zero] {
            let stale = try await trial.forget(finished, expecting: epoch)
            try trial.expect(stale == .superseded, "a forgetting of epoch \(epoch) is superseded", actual: "\(stale)")
            try await trial.expectUnchanged(finished, since: kept, "a stale forgetting")
        }
        let forgotten = try await trial.forget(finished, expecting: token.epoch)
        try trial.expect(forgotten == .applied, "a forgetting of the epoch that is there is applied", actual: "\(forgotten)")
        _ = try await trial.place(finished, in: .completed)
        let late = try await trial.forget(finished, expecting: token.epoch)
        try trial.expect(late == .superseded, "a forgetting of the run before is superseded", actual: "\(late)")

        let entries = try await trial.store.audit(after: 0, limit: 100)
        try trial.expect(entries.map(\.action), is: ["resolve-not-applied", "forget"], "what was audited")
    }

    public static let decisionsRaceTakeovers = StoreLaw(
        "of a decision about an epoch and a takeover of it, at one time, exactly one takes effect", hazards: ["H61"]
    ) { trial in
        let store = trial.store
        for round in 0..<20 {
            let id = OperationID.sample("race \(round)")
            let epoch = try await trial.place(id, in: .uncertain).epoch
            let lease = trial.moments(1000)
            let effects = try await withThrowingTaskGroup(of: Int.self) { group in
                for operation in 0..<9 {
                    group.addTask {
                        guard operation == 4 else {
                            let result = try await store.resolve(id, as: .applied(nil), by: .sample, expecting: epoch)
                            return result == .applied ? 1 : 0
                        }
                        guard let grant = try await store.verify(id, owner: .ben, lease: lease) else { return 0 }
                        _ = try await store.apply(.suspend(reason: "no answer"), to: id, token: grant.token)
                        return 1
                    }
                }
                return try await group.reduce(0, +)
            }
            trial.note("8 decisions about \(id.name) at epoch \(epoch) race a takeover: \(effects) take effect")
            try trial.expect(effects, is: 1, "the number of decisions and takeovers that took effect")
        }
    }

    public static let actsAreAudited = StoreLaw(
        "the audit log holds who did what to which operation, when and why, for each act that took effect, and nothing else", hazards: ["H61"]
    ) { trial in
        let (applied, denied, finished) = (OperationID.sample("applied"), OperationID.sample("denied"), OperationID.sample("finished"))
        _ = try await trial.place(applied, in: .uncertain)
        _ = try await trial.place(denied, in: .uncertain)
        _ = try await trial.place(finished, in: .completed)
        let none = try await trial.store.audit(after: 0, limit: 100)
        try trial.expect(none.isEmpty, "nobody has acted yet", actual: "\(none.count) entries")
        let start = try await trial.store.operations(OperationQuery(limit: 1)).now

        let acts = ["olga", "pavel", "quinn"].map { OperatorAct(actor: $0, reason: "\($0) looked, \"twice\"\n") }
        _ = try await trial.forget(applied, by: acts[2])
        _ = try await trial.resolve(applied, as: .applied(.sample("secret body")), by: acts[0])
        _ = try await trial.resolve(applied, as: .applied(.sample()), by: acts[2])
        _ = try await trial.resolve(denied, as: .notApplied, by: acts[1])
        _ = try await trial.forget(.sample("absent"), by: acts[2])
        _ = try await trial.forget(finished, by: acts[2])

        let entries = try await trial.store.audit(after: 0, limit: 100)
        trial.note("the audit log: " + entries.map { "\($0.sequence) \($0.actor) \($0.action) \($0.detail)" }.joined(separator: "; "))
        try trial.expect(entries.map(\.sequence), is: [1, 2, 3], "the sequence numbers")
        try trial.expect(entries.map(\.actor), is: acts.map(\.actor), "the actors")
        try trial.expect(entries.map(\.reason), is: acts.map(\.reason), "the reasons")
        try trial.expect(entries.map(\.action), is: ["resolve-applied", "resolve-not-applied", "forget"], "the actions")
        try trial.expect(entries.map(\.operation), is: [applied, denied, finished].map { OperationReference($0) }, "the operations")
        try trial.expect(entries.map(\.scene), is: ["payments", "payments", "payments"], "the scenes")
        for entry in entries {
            try trial.expect(entry.time >= start, "the time is the store's", actual: "\(entry.time)")
            try trial.expect(!entry.detail.isEmpty, "the entry says what became of the record")
            try trial.expect(!entry.detail.contains("secret"), "the entry shows no outcome", actual: entry.detail)
        }
        let rest = try await trial.store.audit(after: 1, limit: 1)
        try trial.expect(rest, is: [entries[1]], "one entry after the first")
        let end = try await trial.store.audit(after: 3, limit: 100)
        try trial.expect(end, is: [], "what follows the last entry")
    }

    public static let auditIsChained = StoreLaw(
        "each audit entry carries the hash of the one before, so a changed, removed or inserted one shows", hazards: ["H61"]
    ) { trial in
        let ids = (0..<5).map { OperationID.sample("\($0)") }
        for id in ids {
            _ = try await trial.place(id, in: .uncertain)
            _ = try await trial.resolve(id, as: .applied(nil))
        }
        let entries = try await trial.store.audit(after: 0, limit: 100)
        let genesis = (sequence: Int64(0), hash: AuditEntry.genesisHash)
        try trial.expect(entries.count, is: 5, "the number of entries")
        let broken = AuditEntry.firstBreak(in: entries, following: genesis)
        try trial.expect(broken == nil, "the chain is whole", actual: "entry \(broken?.sequence ?? 0) does not follow")
        let tail = AuditEntry.firstBreak(in: Array(entries[2...]), following: (entries[1].sequence, entries[1].hash))
        try trial.expect(tail == nil, "the chain is whole from any entry on")

        let forgeries: [(String, (inout [AuditEntry]) -> Void)] = [
            ("actor", { $0[2].actor = "mallory" }), ("reason", { $0[2].reason += "!" }), ("action", { $0[2].action = "forget" }),
            ("time", { $0[2].time = $0[2].time + .seconds(1) }), ("operation", { $0[2].operation = OperationReference(ids[0]) }),
            ("scene", { $0[2].scene = "refunds" }), ("detail", { $0[2].detail = "" }), ("sequence", { $0[2].sequence = 9 }),
            ("hash", { $0[2].hash[0] ^= 1 }), ("previous hash", { $0[2].previousHash[0] ^= 1 }),
            ("order", { $0.swapAt(1, 2) }), ("removal", { $0.remove(at: 2) }), ("repetition", { $0.insert($0[2], at: 2) }),
            ("beginning", { $0.removeFirst() }),
        ]
        for (what, forge) in forgeries {
            var forged = entries
            forge(&forged)
            try trial.expect(AuditEntry.firstBreak(in: forged, following: genesis) != nil, "a forged \(what) shows")
        }
    }
}
