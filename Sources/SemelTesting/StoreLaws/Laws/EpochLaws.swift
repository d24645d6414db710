import Semel

extension StoreLaw {
    static let epochs = [epochsRise, epochsSurviveForgetting, epochsSurviveABackwardClock]

    public static let epochsRise = StoreLaw(
        "the epochs of a key rise with every holder, through release, lapse, verification and resolution", hazards: ["H5", "H7", "H61"]
    ) { trial in
        let id = OperationID.sample()
        var tokens: [FencingToken] = []
        func take(_ grant: Grant) throws -> FencingToken {
            if let last = tokens.last {
                try trial.expect(grant.token.epoch > last.epoch, "the epoch rises from \(last.epoch)", actual: "\(grant.token.epoch)")
            }
            tokens.append(grant.token)
            return grant.token
        }
        for round in 0..<8 {
            let released = try take(try await trial.grant(id, by: .claimant(round)))
            try await trial.perform(.release, on: id, with: released)
            let suspended = try take(try await trial.grant(id, by: .ada))
            try await trial.perform(.suspend(reason: "lost"), on: id, with: suspended)
            _ = try take(try await trial.verification(of: id, by: .ben))
            try await trial.elapse(1.1)
            let verifier = try take(try await trial.grant(id, by: .cleo))
            try await trial.perform(.suspend(reason: "no answer"), on: id, with: verifier)
            let resolved = try await trial.resolve(id, as: .notApplied)
            try trial.expect(resolved == .applied, "the resolution is applied", actual: "\(resolved)")
        }
        let before = try await trial.record(of: id)
        for token in tokens {
            let late = try await trial.apply(.complete(.sample("late")), to: id, with: token)
            try trial.expect(late == .superseded, "no token of before is good", actual: "\(late)")
        }
        try await trial.expectUnchanged(id, since: before, "every token of before")
    }

    public static let epochsSurviveForgetting = StoreLaw(
        "the epochs of a key rise after it was forgotten: by an operator, by its retention, by a purge", hazards: ["H21", "H23"]
    ) { trial in
        let id = OperationID.sample()
        var last = Epoch.zero
        for round in 0..<3 {
            let grant = try await trial.grant(id, by: .claimant(round))
            try trial.expect(grant.kind, is: .first, "the kind of the grant")
            try trial.expect(grant.token.epoch > last, "the epoch rises from \(last)", actual: "\(grant.token.epoch)")
            last = grant.token.epoch
            try await trial.perform(
                .complete(.sample(), retention: Retention(response: trial.moments(1), key: trial.moments(1))), on: id, with: grant.token)
            switch round {
            case 0:
                let forgotten = try await trial.forget(id)
                try trial.expect(forgotten == .applied, "a finished key is forgotten", actual: "\(forgotten)")
            case 1:
                try await trial.elapse(1.5)
            default:
                try await trial.elapse(1.5)
                try await trial.purge()
            }
        }
        let grant = try await trial.grant(id, by: .ben)
        try trial.expect(grant.token.epoch > last, "the epoch rises from \(last)", actual: "\(grant.token.epoch)")
    }

    public static let epochsSurviveABackwardClock = StoreLaw(
        "a wall clock that is set back lowers no epoch, lapses no lease and revives nothing", hazards: ["H9", "H34"], requires: [.wallClock]
    ) { trial in
        let (id, held, expired) = (OperationID.sample(), OperationID.sample("held"), OperationID.sample("expired"))
        let old = try await trial.grant(expired, by: .ada).token
        try await trial.perform(
            .complete(.sample(), retention: Retention(response: trial.moments(1), key: trial.moments(500))), on: expired, with: old)
        let first = try await trial.grant(id, by: .ada)
        try await trial.grant(held, by: .ada) { $0.lease = trial.moments(3) }
        try await trial.elapse(1.5)
        let before = try await trial.claim(expired, by: .ben)
        try trial.expect(before == .expired, "the outcome has expired", actual: before.summary)
        try await trial.perform(.release, on: id, with: first.token)

        try await trial.setWallClockBack(100)
        let second = try await trial.grant(id, by: .ben)
        try trial.expect(second.token.epoch > first.token.epoch, "the epoch rises from \(first.token.epoch)", actual: "\(second.token.epoch)")
        try trial.expect(second.grantedAt >= first.grantedAt, "the store's time never goes back", actual: "\(second.grantedAt)")
        let after = try await trial.claim(expired, by: .ben)
        try trial.expect(after == .expired, "what has expired stays expired", actual: after.summary)
        let running = try await trial.claim(held, by: .ben)
        try trial.expect(running.isInProgress, "the lease runs on", actual: running.summary)
        try await trial.elapse(2)
        try await trial.grant(held, by: .ben)
    }
}
