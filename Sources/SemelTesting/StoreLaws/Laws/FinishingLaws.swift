import Semel

extension StoreLaw {
    static let finishing = [completionIsRepeatable, releaseFreesTheKey, suspensionHoldsTheKey, streamCompletesWithoutBody]

    public static let completionIsRepeatable = StoreLaw(
        "a completion said again is applied, one with another outcome is not, and the first outcome stays", hazards: ["H14", "R11"]
    ) { trial in
        let id = OperationID.sample()
        let token = try await trial.grant(id, by: .ada).token
        try await trial.perform(.complete(.sample("first")), on: id, with: token)
        let before = try await trial.record(of: id, in: .completed)
        try await trial.elapse(0.5)
        try await trial.perform(.complete(.sample("first")), on: id, with: token)
        try await trial.expectUnchanged(id, since: before, "a repeated completion")
        let other = try await trial.apply(.complete(.sample("second")), to: id, with: token)
        try trial.expect(other == .superseded, "another outcome is superseded", actual: "\(other)")
        for owner in [Owner.ada, .ben] {
            let replay = try await trial.claim(id, by: owner)
            try trial.expect(replay.replayed == .sample("first"), "the first outcome is replayed", actual: replay.summary)
        }
    }

    public static let releaseFreesTheKey = StoreLaw(
        "a released key is absent, and the next claim is a first one", hazards: ["H38", "R8"]
    ) { trial in
        let id = OperationID.sample()
        let first = try await trial.grant(id, by: .ada)
        try await trial.perform(.release, on: id, with: first.token)
        let none = try await trial.record(of: id)
        try trial.expect(none == nil, "the key is absent", actual: none?.summary ?? "")
        let second = try await trial.grant(id, by: .ben) { $0.fingerprint = .sample("a corrected payload") }
        try trial.expect(second.kind, is: .first, "the kind of the grant")
        try trial.expect(second.attempt, is: 1, "the attempt")
        try trial.expect(second.token.epoch > first.token.epoch, "the epoch rises from \(first.token.epoch)", actual: "\(second.token.epoch)")
        let repeated = try await trial.apply(.release, to: id, with: first.token)
        try trial.expect(repeated == .superseded, "a repeated release frees nothing of the successor's", actual: "\(repeated)")
        try await trial.record(of: id, in: .claimed)
    }

    public static let suspensionHoldsTheKey = StoreLaw(
        "a suspended operation is uncertain with its reason, and runs no more until it is decided", hazards: ["H2", "H38"]
    ) { trial in
        let id = OperationID.sample()
        let token = try await trial.grant(id, by: .ada).token
        try await trial.perform(.suspend(reason: "upstream-timeout"), on: id, with: token)
        try await trial.perform(.suspend(reason: "said again"), on: id, with: token)
        try await trial.elapse(20)
        for owner in [Owner.ada, .ben] {
            let result = try await trial.claim(id, by: owner)
            guard case .uncertain(let record) = result else { throw trial.violation("the key is uncertain", actual: result.summary) }
            try trial.expect(record.reason, is: "upstream-timeout", "the reason")
            try trial.expect(record.token, is: token, "the token")
        }
    }

    public static let streamCompletesWithoutBody = StoreLaw(
        "a streamed response is recorded by its status, length and digest, and never shown as an empty one", hazards: ["H35", "R19"]
    ) { trial in
        let id = OperationID.sample()
        let token = try await trial.place(id, in: .streaming)
        let during = try await trial.record(of: id, in: .streaming)
        try trial.expect(during.outcome == nil, "nothing is recorded before the end", actual: during.summary)
        try await trial.perform(.complete(.omitted), on: id, with: token)
        let replay = try await trial.claim(id, by: .ben)
        try trial.expect(replay.replayed == .omitted, "what is known of the response is kept", actual: replay.summary)

        let applied = OperationID.sample("applied")
        let second = try await trial.place(applied, in: .streaming)
        try await trial.perform(.complete(.unknownButApplied), on: applied, with: second)
        let bare = try await trial.claim(applied, by: .ben)
        try trial.expect(bare.replayed == .unknownButApplied, "that it was applied is kept", actual: bare.summary)
    }
}
