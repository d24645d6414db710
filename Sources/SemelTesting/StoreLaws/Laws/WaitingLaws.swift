import Semel

extension StoreLaw {
    static let waiting = [everyChangeIsSignalled, waitersLoseNoWakeUp, signalsCrossConnections, claimsCrossConnections]

    public static let everyChangeIsSignalled = StoreLaw(
        "whoever observed a key is signalled when its record changes, whatever the change", hazards: ["H40"]
    ) { trial in
        typealias Change = @Sendable (OperationID, FencingToken) async throws -> Void
        let changes: [(what: String, situation: Situation, change: Change)] = [
            ("completion", .claimed, { try await trial.perform(.complete(.sample()), on: $0, with: $1) }),
            ("release", .claimed, { try await trial.perform(.release, on: $0, with: $1) }),
            ("suspension", .claimed, { try await trial.perform(.suspend(reason: "lost"), on: $0, with: $1) }),
            ("stream", .claimed, { try await trial.perform(.stream, on: $0, with: $1) }),
            ("completion of a stream", .streaming, { try await trial.perform(.complete(.omitted), on: $0, with: $1) }),
            ("completion of an uncertain operation", .uncertain, { try await trial.perform(.complete(.sample()), on: $0, with: $1) }),
            ("verification", .uncertain, { id, _ in _ = try await trial.verification(of: id, by: .ben) }),
            ("proceeding", .verifying, { try await trial.perform(.proceed(lease: trial.moments(9)), on: $0, with: $1) }),
            ("resolution as applied", .uncertain, { id, _ in _ = try await trial.resolve(id, as: .applied(.sample())) }),
            ("resolution as not applied", .uncertain, { id, _ in _ = try await trial.resolve(id, as: .notApplied) }),
            ("forgetting", .completed, { id, _ in _ = try await trial.forget(id) }),
        ]
        for (what, situation, change) in changes {
            let id = OperationID.sample(what)
            let token = try await trial.place(id, in: situation)
            // One watcher waits already, the other looks only afterwards: neither may miss it.
            let (waiting, looking) = (trial.store.observe(id), trial.store.observe(id))
            try await trial.withinPatience("a \(what) wakes everybody who observed its key before") {
                async let woken: Void = waiting.signalled()
                try await change(id, token)
                await looking.signalled()
                await woken
            }
        }

        let lapsed = OperationID.sample("takeover")
        try await trial.grant(lapsed, by: .ada)
        try await trial.elapse(1.5)
        let observation = trial.store.observe(lapsed)
        try await trial.grant(lapsed, by: .ben)
        try await trial.withinPatience("a takeover wakes whoever observed its key before") { await observation.signalled() }
    }

    public static let waitersLoseNoWakeUp = StoreLaw(
        "of many who observe first and read then, each one meets the outcome", hazards: ["H40"]
    ) { trial in
        let store = trial.store
        for round in 1...20 {
            let ids = (0..<8).map { OperationID.sample("round \(round), key \($0)") }
            var transitions: [Transition] = []
            for id in ids {
                let result = try await store.claim(trial.request(id, by: .ada) { $0.lease = trial.moments(1000) })
                guard case .granted(let grant) = result else { throw trial.violation("\(id.name) is granted", actual: result.summary) }
                transitions.append(Transition(id: id, token: grant.token, change: .complete(.sample(id.key.text))))
            }
            trial.note("8 keys are claimed; 64 wait for them while they are completed")
            let completions = transitions
            try await trial.withinPatience("every waiter meets its outcome") {
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for waiter in 0..<64 {
                        let id = ids[waiter % 8]
                        group.addTask {
                            let observation = store.observe(id)
                            while try await store.record(of: id)?.state != .completed {
                                await observation.signalled()
                                try Task.checkCancellation()
                            }
                        }
                        if waiter % 8 == 7 {
                            let completion = completions[waiter / 8]
                            group.addTask { _ = try await store.apply([completion]) }
                        }
                    }
                    try await group.waitForAll()
                }
            }
        }
    }

    public static let signalsCrossConnections = StoreLaw(
        "a change made through one connection signals those who observed through another", hazards: ["H40"], requires: [.secondConnection]
    ) { trial in
        let other = try await trial.connect()
        for situation in [Situation.claimed, .streaming] {
            let id = OperationID.sample("\(situation)")
            let token = try await trial.place(id, in: situation)
            let observation = other.observe(id)
            // An observation of another connection may take a round trip to begin; what it promises begins with its first read.
            _ = try await other.record(of: id)
            try await trial.perform(.complete(.sample()), on: id, with: token)
            try await trial.withinPatience("the other connection's watcher wakes") { await observation.signalled() }
            let seen = try await other.record(of: id)
            try trial.expect(seen?.state == .completed, "it then reads what was done", actual: seen?.summary ?? "absent")
        }
    }

    public static let claimsCrossConnections = StoreLaw(
        "claims through two connections at once are claims of one store", hazards: ["H15", "H59"], requires: [.secondConnection]
    ) { trial in
        let stores = [trial.store, try await trial.connect()]
        for round in 1...16 {
            let id = OperationID.sample("race \(round)")
            let requests = (0..<32).map { trial.request(id, by: .claimant($0)) { $0.lease = trial.moments(1000) } }
            let results = try await withThrowingTaskGroup(of: ClaimResult.self) { group in
                for (number, request) in requests.enumerated() { group.addTask { try await stores[number % 2].claim(request) } }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            let grants = results.compactMap { if case .granted(let grant) = $0 { grant } else { nil } }
            trial.note("32 claimants claim \(id.name) through two connections: \(grants.count) are granted")
            try trial.expect(grants.count, is: 1, "the number of granted claims")
            let finished = try await stores[round % 2].apply(.complete(.sample()), to: id, token: grants[0].token)
            try trial.expect(finished, is: .applied, "the completion through either connection")
            for store in stores {
                let replay = try await store.claim(trial.request(id, by: .ben))
                try trial.expect(replay.replayed == .sample(), "both connections replay", actual: replay.summary)
            }
        }
    }
}
