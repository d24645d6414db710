import Semel

extension StoreLaw {
    static let listing = [listingSelects, listingShowsTheTruth, pagesAreComplete, referencesFind]

    public static let listingSelects = StoreLaw("operations are listed by state, scene, scope, key and age, oldest change first") { trial in
        let refunds = PinnedPolicy(scene: "refunds", text: "")
        var ids: [Situation: OperationID] = [:]
        for situation in Situation.allCases {
            ids[situation] = .sample("\(situation)")
            _ = try await trial.place(.sample("\(situation)"), in: situation)
        }
        try await trial.elapse(2)
        let (young, foreign) = (OperationID.sample("young"), OperationID.sample("young", in: Scope("another")))
        try await trial.grant(young, by: .ada) { $0.policy = refunds }
        try await trial.elapse(0.25)
        try await trial.grant(foreign, by: .ada) { $0.policy = refunds }

        func list(_ what: String, _ query: OperationQuery) async throws -> [OperationID] {
            let page = try await trial.store.operations(query)
            trial.note("listing \(what): \(page.operations.map(\.id.name).joined(separator: ", "))")
            try trial.expect(page.cursor == nil, "one page holds them all")
            return page.operations.map(\.id)
        }
        let old = Set(ids.values)
        let all = try await list("all", OperationQuery())
        try trial.expect(Set(all), is: old.union([young, foreign]), "what is listed")
        try trial.expect(Array(all.suffix(2)), is: [young, foreign], "what changed last")

        let states: [RecordState: Set<OperationID>] = [
            .claimed: [ids[.claimed]!, young, foreign], .verifying: [ids[.verifying]!], .streaming: [ids[.streaming]!],
            .uncertain: [ids[.uncertain]!], .completed: [ids[.completed]!, ids[.tombstone]!],
        ]
        for (state, expected) in states {
            let found = try await list("\(state)", OperationQuery(states: [state]))
            try trial.expect(Set(found), is: expected, "what is listed as \(state)")
            try trial.expect(found.count, is: expected.count, "the number listed as \(state)")
        }
        let two = try await list("verifying or streaming", OperationQuery(states: [.verifying, .streaming]))
        try trial.expect(Set(two), is: [ids[.verifying]!, ids[.streaming]!], "what is listed for two states")
        let none = try await list("no state", OperationQuery(states: []))
        try trial.expect(none, is: [], "what is listed for no state")

        let scene = try await list("refunds", OperationQuery(scene: "refunds"))
        try trial.expect(scene, is: [young, foreign], "what is listed for a scene")
        let noScene = try await list("a scene that is not", OperationQuery(scene: "refund"))
        try trial.expect(noScene, is: [], "what is listed for a scene that is not")
        let scope = try await list("another scope", OperationQuery(scope: Scope("another")))
        try trial.expect(scope, is: [foreign], "what is listed for a scope")
        let key = try await list("a key", OperationQuery(key: young.key))
        try trial.expect(Set(key), is: [young, foreign], "what is listed for a key")
        let aged = try await list("unchanged for a moment", OperationQuery(unchangedFor: trial.moments(1)))
        try trial.expect(Set(aged), is: old, "what is listed for an age")
        let together = try await list("all of it", OperationQuery(states: [.claimed], scene: "refunds", scope: foreign.scope, key: foreign.key))
        try trial.expect(together, is: [foreign], "what is listed for everything at once")
    }

    public static let listingShowsTheTruth = StoreLaw(
        "operations are listed as they stand now: lapsed ones as uncertain, expired ones without outcome or not at all", hazards: ["H1", "H22"]
    ) { trial in
        let (lapsed, tombstone, gone) = (OperationID.sample("lapsed"), OperationID.sample("tombstone"), OperationID.sample("gone"))
        try await trial.grant(lapsed, by: .ada) { $0.onLapse = .uncertain }
        for (id, key) in [(tombstone, 100.0), (gone, 1)] {
            let token = try await trial.grant(id, by: .ada).token
            try await trial.perform(
                .complete(.sample(), retention: Retention(response: trial.moments(1), key: trial.moments(key))), on: id, with: token)
        }
        let early = try await trial.store.operations(OperationQuery(states: [.uncertain]))
        try trial.expect(early.operations.isEmpty, "nothing is uncertain yet")
        try await trial.elapse(2)

        let uncertain = try await trial.store.operations(OperationQuery(states: [.uncertain]))
        try trial.expect(uncertain.operations.map(\.id), is: [lapsed], "what is listed as uncertain")
        try trial.expect(uncertain.operations.allSatisfy { $0.record.reason != nil }, "it is listed with its reason")
        let claimed = try await trial.store.operations(OperationQuery(states: [.claimed]))
        try trial.expect(claimed.operations.map(\.id), is: [], "what is listed as claimed")
        let completed = try await trial.store.operations(OperationQuery(states: [.completed]))
        try trial.expect(completed.operations.map(\.id), is: [tombstone], "what is listed as completed")
        try trial.expect(completed.operations.allSatisfy { $0.record.outcome == nil }, "it is listed without the expired outcome")
    }

    public static let pagesAreComplete = StoreLaw(
        "a listing of many pages holds each operation once, also when some lapse and all changed in the same instant"
    ) { trial in
        let ids = (0..<53).map { OperationID.sample("\($0)") }
        let requests = ids.enumerated().map { number, id in
            trial.request(id, by: .ada) {
                $0.onLapse = number % 3 == 0 ? .uncertain : .reclaim
                $0.lease = trial.moments(number % 2 == 0 ? 1 : 1000)
            }
        }
        let granted = try await trial.store.claim(requests).count(where: \.isGranted)
        try trial.expect(granted, is: 53, "the number of granted claims")
        try await trial.elapse(1.5)
        // The wall clock stands while the reader reads: what has lapsed must be said to have lapsed at one and the same time.
        if trial.subject.capabilities.contains(.wallClock) {
            _ = try await trial.record(of: .sample("absent"))
            try await trial.setWallClockBack(0.1)
        }

        for limit in [1, 7, 52, 53, 54] {
            var found: [OperationID] = []
            var ages: [Timestamp] = []
            var cursor: String?
            var pages = 0
            repeat {
                let page = try await trial.store.operations(OperationQuery(limit: limit, cursor: cursor))
                found += page.operations.map(\.id)
                ages += page.operations.map(\.record.changedAt)
                cursor = page.cursor
                pages += 1
                try trial.expect(page.operations.count <= limit, "a page holds at most \(limit)", actual: "\(page.operations.count)")
                try trial.expect(pages <= 60, "the pages come to an end", actual: "\(pages) pages")
                // Time goes on between two pages, as it does for a reader.
                try await trial.elapse(.milliseconds(2))
            } while cursor != nil
            trial.note("a listing by \(limit) has \(pages) pages with \(found.count) operations")
            try trial.expect(found.count, is: 53, "the number of operations in pages of \(limit)")
            try trial.expect(Set(found), is: Set(ids), "the operations in pages of \(limit)")
            try trial.expect(ages == ages.sorted(), "the oldest change comes first")
        }
        let filtered = try await trial.store.operations(OperationQuery(states: [.uncertain], limit: 5))
        try trial.expect(filtered.operations.count, is: 5, "the number of operations in a full page of a filtered listing")
        let rest = try await trial.store.operations(OperationQuery(states: [.uncertain], limit: 50, cursor: filtered.cursor))
        try trial.expect(rest.operations.count, is: 4, "the number of operations in the rest of a filtered listing")
    }

    public static let referencesFind = StoreLaw("an operation is found by its reference, as it stands now, in every state") { trial in
        for situation in Situation.allCases {
            let id = OperationID.sample("\(situation)")
            _ = try await trial.place(id, in: situation)
            let record = try await trial.record(of: id)
            let found = try await trial.store.operation(OperationReference(id))
            try trial.expect(found?.id, is: id, "the operation found")
            try trial.expect(found?.record, is: record, "its record")
            try trial.expect(found?.scene, is: "payments", "its scene")
        }
        let lapsed = OperationID.sample("lapsed")
        try await trial.grant(lapsed, by: .ada) { $0.onLapse = .uncertain }
        try await trial.elapse(1.5)
        let found = try await trial.store.operation(OperationReference(lapsed))
        try trial.expect(found?.record.state, is: .uncertain, "the state of a lapsed operation found by its reference")
        let none = try await trial.store.operation(OperationReference(.sample("absent")))
        try trial.expect(none == nil, "nothing is found by the reference of an absent key")
    }
}
