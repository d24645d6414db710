import Semel

extension StoreLaw {
    static let batching = [
        batchesOfNoneAndOne, batchAnswersInOrder, batchHoldsDuplicates, batchItemsStandAlone, batchesMayBeLarge,
        concurrentBatchesNeverLock,
    ]

    public static let batchesOfNoneAndOne = StoreLaw("a batch of none is answered by none, and a batch of one by one") { trial in
        let nothingClaimed = try await trial.store.claim([])
        try trial.expect(nothingClaimed, is: [], "the answer to no claims")
        let nothingApplied = try await trial.store.apply([])
        try trial.expect(nothingApplied, is: [], "the answer to no transitions")
        let claimed = try await trial.store.claim([trial.request(.sample(), by: .ada)])
        guard claimed.count == 1, case .granted(let grant) = claimed[0] else {
            throw trial.violation("one claim is granted", actual: "\(claimed.map(\.summary))")
        }
        let applied = try await trial.store.apply([Transition(id: .sample(), token: grant.token, change: .complete(.sample()))])
        try trial.expect(applied, is: [.applied], "the answer to one transition")
    }

    public static let batchAnswersInOrder = StoreLaw("a batch is answered item by item, in its order", hazards: ["H45"]) { trial in
        // Neither sorted nor in the order in which the keys came to be.
        let ids = (0..<60).map { OperationID.sample("\(($0 * 37) % 60)") }
        for (number, id) in ids.enumerated() where number % 3 == 0 {
            let token = try await trial.store.claim(trial.request(id, by: .ada))
            guard case .granted(let grant) = token else { throw trial.violation("\(id.name) is granted", actual: token.summary) }
            if number % 2 == 0 { _ = try await trial.store.apply(.complete(.sample(id.key.text)), to: id, token: grant.token) }
        }
        let answers = try await trial.store.claim(ids.map { trial.request($0, by: .ben) })
        trial.note("Ben claims 60 keys in a batch: every third is held or completed by Ada")
        try trial.expect(answers.count, is: 60, "the number of answers")
        var transitions: [Transition] = []
        for (number, (id, answer)) in zip(ids, answers).enumerated() {
            switch (number % 6, answer) {
            case (0, .completed(let record)):
                try trial.expect(record.outcome, is: .sample(id.key.text), "the outcome of \(id.name)")
            case (3, .inProgress): break
            case (1, .granted(let grant)), (2, .granted(let grant)), (4, .granted(let grant)), (5, .granted(let grant)):
                // Every second of them with a token that is no good.
                let owner = transitions.count % 2 == 0 ? Owner.ben : .cleo
                transitions.append(
                    Transition(id: id, token: FencingToken(epoch: grant.token.epoch, owner: owner), change: .complete(.sample(id.key.text))))
            default: throw trial.violation("item \(number) answers for \(id.name)", actual: answer.summary)
            }
        }
        let results = try await trial.store.apply(transitions)
        trial.note("Ben completes 40 keys in a batch, every second one with another's nonce")
        try trial.expect(results, is: (0..<40).map { $0 % 2 == 0 ? .applied : .superseded }, "the results")
        for (transition, result) in zip(transitions, results) {
            let record = try await trial.store.record(of: transition.id)
            try trial.expect(
                record?.outcome == (result == .applied ? .sample(transition.id.key.text) : nil), "\(transition.id.name) was \(result)",
                actual: record?.summary ?? "absent")
        }
    }

    public static let batchHoldsDuplicates = StoreLaw(
        "an item that repeats a key of its batch meets what the earlier item left", hazards: ["H15", "H40"]
    ) { trial in
        let (id, other) = (OperationID.sample(), OperationID.sample("other"))
        let answers = try await trial.store.claim([
            trial.request(id, by: .ada), trial.request(id, by: .ben), trial.request(other, by: .ben), trial.request(id, by: .cleo),
            trial.request(id, by: .ada), trial.request(id, by: .ben) { $0.fingerprint = .sample("another payload") },
        ])
        trial.note("a batch claims \(id.name) for Ada, Ben, Cleo, Ada again and Ben with another payload: \(answers.map(\.summary))")
        guard answers.count == 6, case .granted(let first) = answers[0], case .granted(let again) = answers[4] else {
            throw trial.violation("Ada is granted the key, both times", actual: "\(answers.map(\.summary))")
        }
        try trial.expect(first.token, is: again.token, "the token given again")
        try trial.expect(answers[1].isInProgress && answers[3].isInProgress, "it is in progress for Ben and Cleo")
        try trial.expect(answers[2].isGranted, "the other key is granted")
        try trial.expect(answers[5] == .mismatch, "another payload is a mismatch")

        let transitions: [Transition.Change] = [.renew(trial.moments(5)), .complete(.sample()), .release, .complete(.sample())]
        let results = try await trial.store.apply(transitions.map { Transition(id: id, token: first.token, change: $0) })
        trial.note("a batch renews, completes, releases and completes \(id.name): \(results)")
        try trial.expect(results, is: [.applied, .applied, .superseded, .applied], "the results")
        try await trial.record(of: id, in: .completed)
    }

    public static let batchItemsStandAlone = StoreLaw("an item that is refused stops no other item of its batch", hazards: ["H45"]) { trial in
        let ids = (0..<5).map { OperationID.sample("\($0)") }
        var tokens: [FencingToken] = []
        for id in ids { tokens.append(try await trial.grant(id, by: .ada) { $0.lease = trial.moments(1000) }.token) }
        let stale = FencingToken(epoch: .zero, owner: .ada)
        let results = try await trial.store.apply([
            Transition(id: ids[0], token: tokens[0], change: .complete(.sample())),
            Transition(id: ids[1], token: stale, change: .complete(.sample())),
            Transition(id: ids[2], token: tokens[2], change: .release),
            Transition(id: .sample("absent"), token: stale, change: .release),
            Transition(id: ids[3], token: tokens[3], change: .suspend(reason: "lost")),
            Transition(id: ids[4], token: tokens[4], change: .stream),
        ])
        trial.note("a batch completes 0, fails on 1, releases 2, fails on an absent key, suspends 3 and streams 4: \(results)")
        try trial.expect(results, is: [.applied, .superseded, .applied, .superseded, .applied, .applied], "the results")
        let states: [RecordState?] = [.completed, .claimed, nil, .uncertain, .streaming]
        for (id, state) in zip(ids, states) {
            let record = try await trial.record(of: id)
            try trial.expect(record?.state, is: state, "the state of \(id.name)")
        }
    }

    public static let batchesMayBeLarge = StoreLaw("a batch of a thousand is answered whole") { trial in
        let ids = (0..<1000).map { OperationID.sample("key number \($0)") }
        let answers = try await trial.store.claim(ids.map { trial.request($0, by: .ada) { $0.lease = trial.moments(1000) } })
        trial.note("Ada claims 1,000 keys in a batch: \(answers.count(where: \.isGranted)) are granted")
        try trial.expect(answers.count(where: \.isGranted), is: 1000, "the number of granted claims")
        let transitions = zip(ids, answers).compactMap { id, answer -> Transition? in
            guard case .granted(let grant) = answer else { return nil }
            return Transition(id: id, token: grant.token, change: .complete(.sample(id.key.text)))
        }
        let results = try await trial.store.apply(transitions)
        trial.note("Ada completes them in a batch: \(results.count { $0 == .applied }) are applied")
        try trial.expect(results.count { $0 == .applied }, is: 1000, "the number of applied completions")
        let replays = try await trial.store.claim(ids.map { trial.request($0, by: .ben) })
        try trial.expect(replays.map(\.replayed), is: ids.map { .sample($0.key.text) }, "the outcomes replayed to a third batch")
    }

    public static let concurrentBatchesNeverLock = StoreLaw(
        "batches that claim the same keys in opposite orders at once all end, and grant each key once", hazards: ["H15"]
    ) { trial in
        let store = trial.store
        for round in 1...5 {
            let ids = (0..<40).map { OperationID.sample("round \(round), key \($0)") }
            let batches = (0..<8).map { number in
                let order = number % 2 == 0 ? ids : ids.reversed()
                return order.map { trial.request($0, by: .claimant(number)) { $0.lease = trial.moments(1000) } }
            }
            trial.note("8 claimants claim the same 40 keys in batches of opposite orders")
            let grants = try await trial.withinPatience("all batches end") {
                try await withThrowingTaskGroup(of: [Transition].self) { group in
                    for batch in batches {
                        group.addTask {
                            zip(batch, try await store.claim(batch)).compactMap { request, answer in
                                guard case .granted(let grant) = answer else { return nil }
                                return Transition(id: request.id, token: grant.token, change: .complete(.sample()))
                            }
                        }
                    }
                    return try await group.reduce(into: []) { $0 += $1 }
                }
            }
            try trial.expect(grants.count, is: 40, "the number of granted claims")
            try trial.expect(Set(grants.map(\.id)).count, is: 40, "the number of keys that were granted")
            let results = try await trial.withinPatience("all completions end") {
                try await withThrowingTaskGroup(of: [TransitionResult].self) { group in
                    // Each half is said by two callers at once, in opposite orders.
                    for half in [Array(grants.prefix(20)), Array(grants.suffix(20))] {
                        group.addTask { try await store.apply(half) }
                        group.addTask { try await store.apply(half.reversed()) }
                    }
                    return try await group.reduce(into: []) { $0 += $1 }
                }
            }
            try trial.expect(results.count { $0 == .applied }, is: 80, "the number of completions applied, each said twice")
        }
    }
}
