import Semel

extension StoreLaw {
    static let retaining = [
        outcomeIsKept, keyIsKept, completionChoosesItsRetention, purgeSparesTheLiving, purgeChangesNoAnswer, purgeComesToAnEnd,
        purgeRacesDuplicates,
    ]

    public static let outcomeIsKept = StoreLaw(
        "an outcome is replayed until the response retention ends, counted from completion, and never after", hazards: ["H22"]
    ) { trial in
        let id = OperationID.sample()
        let token = try await trial.grant(id, by: .ada) { $0.lease = trial.moments(100) }.token
        try await trial.elapse(3)
        try await trial.perform(.complete(.sample()), on: id, with: token)
        try await trial.elapse(3)
        let replay = try await trial.claim(id, by: .ben)
        try trial.expect(replay.replayed == .sample(), "the outcome is replayed after 3 of 4 moments", actual: replay.summary)
        try await trial.elapse(1.5)
        let expired = try await trial.claim(id, by: .ben)
        try trial.expect(expired == .expired, "the outcome has expired after 4 moments, without any purge", actual: expired.summary)
        let record = try await trial.record(of: id, in: .completed)
        try trial.expect(record.outcome == nil, "the record shows no outcome any more", actual: record.summary)
    }

    public static let keyIsKept = StoreLaw(
        "a key cannot run again until the key retention ends, and then it can, without any purge", hazards: ["H22", "H23"]
    ) { trial in
        let id = OperationID.sample()
        let token = try await trial.grant(id, by: .ada).token
        try await trial.perform(.complete(.sample()), on: id, with: token)
        try await trial.elapse(7)
        let expired = try await trial.claim(id, by: .ben)
        try trial.expect(expired == .expired, "the key is known after 7 of 8 moments", actual: expired.summary)
        try await trial.elapse(1.5)
        let none = try await trial.record(of: id)
        try trial.expect(none == nil, "the key is absent after 8 moments", actual: none?.summary ?? "")
        let listed = try await trial.store.operation(OperationReference(id))
        try trial.expect(listed == nil, "no operation is found after 8 moments", actual: listed?.record.summary ?? "")
        let grant = try await trial.grant(id, by: .ben) { $0.fingerprint = .sample("another payload") }
        try trial.expect(grant.kind, is: .first, "the kind of the grant")
        try trial.expect(grant.attempt, is: 1, "the attempt")
    }

    public static let completionChoosesItsRetention = StoreLaw("a completion may bring retentions of its own") { trial in
        let (short, long) = (OperationID.sample("short"), OperationID.sample("long"))
        let shortToken = try await trial.grant(short, by: .ada).token
        let longToken = try await trial.grant(long, by: .ada).token
        try await trial.perform(
            .complete(.sample(), retention: Retention(response: trial.moments(1), key: trial.moments(3))), on: short, with: shortToken)
        try await trial.perform(
            .complete(.sample(), retention: Retention(response: trial.moments(100), key: trial.moments(200))), on: long, with: longToken)
        try await trial.elapse(2)
        let expired = try await trial.claim(short, by: .ben)
        try trial.expect(expired == .expired, "the shorter response retention has ended", actual: expired.summary)
        try await trial.elapse(1.5)
        try await trial.grant(short, by: .ben)
        try await trial.elapse(10)
        let kept = try await trial.claim(long, by: .ben)
        try trial.expect(kept.replayed == .sample(), "the longer retention holds", actual: kept.summary)
    }

    public static let purgeSparesTheLiving = StoreLaw(
        "no age makes a purge remove an operation that is claimed, verified, streaming or uncertain", hazards: ["H22"]
    ) { trial in
        let brief: (inout ClaimRequest) -> Void = {
            $0.retention = Retention(response: .milliseconds(1), key: .milliseconds(1))
            $0.onLapse = .verify
        }
        let ids = ["claimed", "streaming", "uncertain", "verifying"].map { OperationID.sample($0) }
        let tokens = [
            try await trial.grant(ids[0], by: .ada, brief).token, try await trial.grant(ids[1], by: .ada, brief).token,
            try await trial.grant(ids[2], by: .ada, brief).token, try await trial.grant(ids[3], by: .ada, brief).token,
        ]
        try await trial.perform(.stream, on: ids[1], with: tokens[1])
        try await trial.perform(.suspend(reason: "lost"), on: ids[2], with: tokens[2])
        try await trial.perform(.suspend(reason: "lost"), on: ids[3], with: tokens[3])
        let verifier = try await trial.verification(of: ids[3], by: .ben).token
        try await trial.elapse(20)
        try await trial.purge()
        for (id, token) in zip(ids, [tokens[0], tokens[1], tokens[2], verifier]) {
            let record = try await trial.record(of: id)
            try trial.expect(record?.token == token, "\(id.name) is spared", actual: record?.summary ?? "absent")
        }
    }

    public static let purgeChangesNoAnswer = StoreLaw(
        "a purge changes no answer: it neither forgets early nor revives", hazards: ["H22", "H23"]
    ) { trial in
        let ids = (0..<12).map { OperationID.sample("\($0)") }
        for (number, id) in ids.enumerated() {
            let token = try await trial.grant(id, by: .ada).token
            let (response, key) = (Double(number % 4) + 0.5, Double(number) + 0.5)
            try await trial.perform(
                .complete(.sample(), retention: Retention(response: trial.moments(response), key: trial.moments(key))), on: id, with: token)
        }
        for _ in 0..<4 {
            try await trial.elapse(3)
            var before: [Record?] = []
            for id in ids { before.append(try await trial.record(of: id)) }
            try await trial.purge()
            for (id, record) in zip(ids, before) { try await trial.expectUnchanged(id, since: record, "a purge") }
        }
        let remaining = try await trial.store.operations(OperationQuery())
        try trial.expect(remaining.operations.count, is: 0, "the number of operations after every retention")
    }

    public static let purgeComesToAnEnd = StoreLaw(
        "purges of a few records at a time remove everything that has outlived its retention, and say what they removed"
    ) { trial in
        let retention = Retention(response: trial.moments(1), key: trial.moments(3))
        for number in 0..<40 {
            let id = OperationID.sample("\(number)")
            let token = try await trial.store.claim(trial.request(id, by: .ada))
            guard case .granted(let grant) = token else { throw trial.violation("\(id.name) is granted", actual: token.summary) }
            _ = try await trial.store.apply(.complete(.sample(), retention: retention), to: id, token: grant.token)
        }
        trial.note("Ada completes 40 keys")
        func purgeAll() async throws -> PurgeReport {
            var sum = PurgeReport(outcomes: 0, keys: 0)
            for _ in 0..<100 {
                let report = try await trial.purge(limit: 7)
                if report.outcomes + report.keys == 0 { return sum }
                sum.outcomes += report.outcomes
                sum.keys += report.keys
            }
            throw trial.violation("a purge that finds nothing says so", actual: "a hundred purges removed \(sum)")
        }
        let early = try await purgeAll()
        try trial.expect(early, is: PurgeReport(outcomes: 0, keys: 0), "what is purged before any retention ended")
        try await trial.elapse(2)
        let outcomes = try await purgeAll()
        try trial.expect(outcomes.keys, is: 0, "the number of keys purged before their retention ended")
        try await trial.elapse(2)
        let keys = try await purgeAll()
        try trial.expect(keys.keys, is: 40, "the number of keys purged")
    }

    public static let purgeRacesDuplicates = StoreLaw(
        "purges that race the duplicates of an expired key let exactly one of them run, and take nothing from it", hazards: ["H23"]
    ) { trial in
        let store = trial.store
        for round in 0..<20 {
            let id = OperationID.sample("race \(round)")
            let token = try await trial.grant(id, by: .ada).token
            try await trial.perform(
                .complete(.sample(), retention: Retention(response: .milliseconds(1), key: .milliseconds(1))), on: id, with: token)
            try await trial.elapse(.milliseconds(5))
            let requests = (0..<8).map { trial.request(id, by: .claimant($0)) { $0.lease = trial.moments(1000) } }
            let results = try await withThrowingTaskGroup(of: ClaimResult?.self) { group in
                for request in requests {
                    group.addTask {
                        try await store.purge(limit: 1000)
                        return nil
                    }
                    group.addTask { try await store.claim(request) }
                }
                return try await group.reduce(into: []) { $0.append($1) }.compactMap(\.self)
            }
            let granted = results.filter(\.isGranted).count
            trial.note("8 claims of \(id.name) race 8 purges: \(granted) are granted")
            try trial.expect(granted, is: 1, "the number of granted claims")
            try await trial.record(of: id, in: .claimed)
        }
    }
}
