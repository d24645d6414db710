import Semel

extension StoreLaw {
    static let fencing = [
        completeIsFenced, releaseIsFenced, suspendIsFenced, streamIsFenced, renewIsFenced, proceedIsFenced, statesAreGuarded,
        zombieChangesNothing, finishRacesTakeover,
    ]

    public static let completeIsFenced = fenced("complete", hazards: ["H5", "H6", "R13", "R17"], .complete(.sample("a zombie's")))
    public static let releaseIsFenced = fenced("release", hazards: ["H7", "R13", "R17"], .release)
    public static let suspendIsFenced = fenced("suspend", hazards: ["H6", "R13", "R17"], .suspend(reason: "a zombie's"))
    public static let streamIsFenced = fenced("stream", hazards: ["H6", "R13"], .stream)
    public static let renewIsFenced = fenced("renew", hazards: ["H5", "R13"], .renew(.seconds(1_000_000)))
    public static let proceedIsFenced = fenced("proceed", hazards: ["H5", "R13"], .proceed(lease: .seconds(1_000_000)))

    private static func fenced(_ verb: String, hazards: [String], _ change: Transition.Change) -> StoreLaw {
        StoreLaw("to \(verb) takes the record's epoch and nonce, in every state", hazards: hazards) { trial in
            for situation in Situation.allCases {
                let id = OperationID.sample("\(situation)")
                let token = try await trial.place(id, in: situation)
                let before = try await trial.record(of: id)
                let wrong = [
                    ("an older epoch", FencingToken(epoch: Epoch(rawValue: token.epoch.rawValue - 1), owner: token.owner)),
                    ("a newer epoch", FencingToken(epoch: Epoch(rawValue: token.epoch.rawValue + 1), owner: token.owner)),
                    ("no epoch", FencingToken(epoch: .zero, owner: token.owner)),
                    ("another's nonce", FencingToken(epoch: token.epoch, owner: .ben)),
                    ("half a nonce", FencingToken(epoch: token.epoch, owner: Owner(high: token.owner.high, low: 0))),
                    ("the other half of a nonce", FencingToken(epoch: token.epoch, owner: Owner(high: 0, low: token.owner.low))),
                ]
                for (what, token) in wrong {
                    let result = try await trial.apply(change, to: id, with: token)
                    try trial.expect(result == .superseded, "\(what) is superseded when \(situation)", actual: "\(result)")
                    try await trial.expectUnchanged(id, since: before, "\(what)")
                }
            }
            let absent = OperationID.sample("absent")
            let result = try await trial.apply(change, to: absent, with: FencingToken(epoch: .zero, owner: .ada))
            try trial.expect(result == .superseded, "an absent key is nobody's", actual: "\(result)")
            try await trial.expectUnchanged(absent, since: nil, "a transition of an absent key")
        }
    }

    public static let statesAreGuarded = StoreLaw(
        "the holder's transitions take effect in the states that allow them, and in no other", hazards: ["H36", "R17"]
    ) { trial in
        let other = Transition.Change.complete(.sample("another outcome"))
        let complete = Transition.Change.complete(.sample())
        let suspend = Transition.Change.suspend(reason: "unknown")
        let renew = Transition.Change.renew(trial.moments(2000))
        let proceed = Transition.Change.proceed(lease: trial.moments(1000))

        let allowed: [(Situation, Transition.Change, RecordState?)] = [
            (.claimed, complete, .completed), (.claimed, .release, nil), (.claimed, suspend, .uncertain), (.claimed, .stream, .streaming),
            (.claimed, renew, .claimed),
            (.verifying, complete, .completed), (.verifying, .release, nil), (.verifying, suspend, .uncertain),
            (.verifying, renew, .verifying), (.verifying, proceed, .claimed),
            (.streaming, complete, .completed), (.streaming, suspend, .uncertain), (.streaming, .stream, .streaming),
            (.streaming, renew, .streaming),
            (.uncertain, complete, .completed), (.uncertain, .release, nil), (.uncertain, suspend, .uncertain),
        ]
        for (number, (situation, change, state)) in allowed.enumerated() {
            let id = OperationID.sample("\(situation) \(number)")
            let token = try await trial.place(id, in: situation)
            try await trial.perform(change, on: id, with: token)
            let after = try await trial.record(of: id)
            try trial.expect(
                after?.state == state, "\(situation), after \(change.summary), is \(state.map { "\($0)" } ?? "absent")",
                actual: after?.summary ?? "absent")
            try trial.expect(after.map { $0.token == token } ?? true, "the token stays the holder's", actual: after?.summary ?? "")
        }

        let forbidden: [(Situation, [Transition.Change])] = [
            (.claimed, [proceed]), (.verifying, [.stream]), (.streaming, [.release, proceed]), (.uncertain, [.stream, renew, proceed]),
            (.completed, [other, .release, suspend, .stream, renew, proceed]),
            (.tombstone, [other, .release, suspend, .stream, renew, proceed]),
        ]
        for (situation, changes) in forbidden {
            let id = OperationID.sample("never \(situation)")
            let token = try await trial.place(id, in: situation)
            let before = try await trial.record(of: id)
            for change in changes {
                let result = try await trial.apply(change, to: id, with: token)
                try trial.expect(result == .superseded, "nobody can \(change.summary) when \(situation)", actual: "\(result)")
                try await trial.expectUnchanged(id, since: before, "a transition that the state does not allow")
            }
        }
    }

    public static let zombieChangesNothing = StoreLaw(
        "after a takeover nothing the former holder does changes anything", hazards: ["H5", "H6", "H7", "R13", "R17"]
    ) { trial in
        for rule in [LapseRule.reclaim, .verify] {
            let id = OperationID.sample("\(rule)")
            let zombie = try await trial.grant(id, by: .ada) { $0.onLapse = rule }.token
            try await trial.elapse(1.5)
            let winner = try await trial.grant(id, by: .ben) { $0.lease = trial.moments(1000) }.token
            let before = try await trial.record(of: id)
            let attempts: [Transition.Change] = [
                .complete(.sample("a zombie's")), .release, .suspend(reason: "a zombie's"), .stream, .renew(trial.moments(5000)),
                .proceed(lease: trial.moments(5000)),
            ]
            for change in attempts {
                let result = try await trial.apply(change, to: id, with: zombie)
                try trial.expect(result == .superseded, "the former holder cannot \(change.summary)", actual: "\(result)")
                try await trial.expectUnchanged(id, since: before, "a zombie")
            }
            try await trial.perform(.complete(.sample("the winner's")), on: id, with: winner)
            for change in attempts { _ = try await trial.apply(change, to: id, with: zombie) }
            let replay = try await trial.claim(id, by: .cleo)
            try trial.expect(replay.replayed == .sample("the winner's"), "the winner's outcome is replayed", actual: replay.summary)
        }
    }

    public static let finishRacesTakeover = StoreLaw(
        "a late completion and a takeover that race never both succeed", hazards: ["H5", "H6"]
    ) { trial in
        let ids = (0..<64).map { OperationID.sample("race \($0)") }
        let store = trial.store
        var tokens: [FencingToken] = []
        for id in ids { tokens.append(try await trial.grant(id, by: .ada).token) }
        try await trial.elapse(1.5)
        for (id, token) in zip(ids, tokens) {
            let takeover = trial.request(id, by: .ben) { $0.lease = trial.moments(1000) }
            async let finish = store.apply(.complete(.sample("late")), to: id, token: token)
            async let claim = store.claim(takeover)
            let (finished, claimed) = (try await finish, try await claim)
            trial.note("Ada completes \(id.name) late: \(finished), while Ben claims it: \(claimed.summary)")
            if finished == .applied {
                try trial.expect(claimed.replayed == .sample("late"), "Ben meets what Ada completed", actual: claimed.summary)
            } else {
                try trial.expect(claimed.isGranted, "one of the two succeeds", actual: claimed.summary)
                try await trial.record(of: id, in: .claimed)
            }
        }
    }
}
