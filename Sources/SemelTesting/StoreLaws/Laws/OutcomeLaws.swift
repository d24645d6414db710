import Semel

extension StoreLaw {
    static let outcomes = [falsyOutcomesAreResults, outcomesMayBeLarge, outcomesAreKeptToTheLetter]

    public static let falsyOutcomesAreResults = StoreLaw(
        "nothing, nought, no and an empty list are results like any other", hazards: ["R16"]
    ) { trial in
        let bodies = ["", "0", "\"\"", "[]", "{}", "false", "null", "\0", " "]
        var outcomes = bodies.map { Outcome(body: .kept(Array($0.utf8))) }
        outcomes += [
            Outcome(status: 204), Outcome(status: 0), Outcome(status: .max), Outcome(fields: [.init("", "")]),
            Outcome(fields: [.init("x-empty", "")], trailers: [.init("", "")]), Outcome(body: .omitted(length: nil, digest: nil)),
            Outcome(body: .omitted(length: 0, digest: [])), Outcome(body: .omitted(length: .max, digest: nil)),
        ]
        for (number, outcome) in outcomes.enumerated() {
            let id = OperationID.sample("\(number)")
            let token = try await trial.grant(id, by: .ada).token
            try await trial.perform(.complete(outcome), on: id, with: token)
            let replay = try await trial.claim(id, by: .ben)
            try trial.expect(replay.replayed, is: outcome, "the outcome that is replayed")
            let record = try await trial.record(of: id, in: .completed)
            try trial.expect(record.outcome, is: outcome, "the outcome in the record")
        }
    }

    public static let outcomesMayBeLarge = StoreLaw("an outcome of a mebibyte is replayed to the byte", hazards: ["H19"]) { trial in
        let body = (0..<1 << 20).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
        let outcome = Outcome(
            status: 200, fields: (0..<200).map { .init("x-\($0)", String(repeating: "v", count: $0)) }, body: .kept(body))
        let ids = [OperationID.sample("1"), .sample("2")]
        for id in ids {
            let token = try await trial.grant(id, by: .ada).token
            try await trial.perform(.complete(outcome), on: id, with: token)
        }
        for id in ids {
            let replay = try await trial.claim(id, by: .ben)
            try trial.expect(replay.replayed == outcome, "the outcome is replayed to the byte", actual: replay.summary)
        }
    }

    public static let outcomesAreKeptToTheLetter = StoreLaw(
        "an outcome's fields keep their order, their repeats and their letters, and its trailers and digest are kept", hazards: ["H37"]
    ) { trial in
        let id = OperationID.sample()
        let outcome = Outcome(
            status: 207,
            fields: [
                .init("Set-Cookie", "b=2"), .init("set-cookie", "a=1"), .init("Vary", "Accept"), .init("Set-Cookie", "b=2"),
                .init("x-text", " ünïcode, \u{1F600}, e\u{301} and a \u{0} "),
            ],
            body: .kept(Array(0...255)),
            trailers: [.init("server-timing", "db;dur=2"), .init("Server-Timing", "db;dur=1"), .init("server-timing", "db;dur=2")])
        let token = try await trial.grant(id, by: .ada).token
        try await trial.perform(.complete(outcome), on: id, with: token)
        let replay = try await trial.claim(id, by: .ben)
        // Compared by bytes: strings that look alike are not the same field.
        func letters(_ fields: [Outcome.Field]?) -> [[UInt8]] { (fields ?? []).flatMap { [Array($0.name.utf8), Array($0.value.utf8)] } }
        try trial.expect(letters(replay.replayed?.fields), is: letters(outcome.fields), "the fields")
        try trial.expect(letters(replay.replayed?.trailers), is: letters(outcome.trailers), "the trailers")
        try trial.expect(replay.replayed?.body, is: outcome.body, "the body")
        try trial.expect(replay.replayed?.status, is: 207, "the status")

        let large = OperationID.sample("large")
        let largeToken = try await trial.grant(large, by: .ada).token
        try await trial.perform(.complete(.omitted), on: large, with: largeToken)
        let omitted = try await trial.claim(large, by: .ben)
        try trial.expect(omitted.replayed, is: .omitted, "what is kept of a large outcome")
    }
}
