import Semel

extension StoreLaw {
    static let random = [rulesHoldByChance]

    public static let rulesHoldByChance = StoreLaw(
        "whatever is done in whatever order, the store answers as the rules say", hazards: ["H1", "H5", "H15", "H22", "H23", "H45"]
    ) { trial in
        let runs = trial.subject.waitsForReal ? 2 : 40
        for run in 0..<UInt64(runs) {
            let seed = trial.subject.seed &+ run
            trial.startAfresh("run \(run + 1) of \(runs); a subject with the seed \(seed) repeats it as its first")
            var comparison = ModelComparison(trial, scope: Scope("run \(run)"), seed: seed)
            for _ in 0..<(trial.subject.waitsForReal ? 80 : 250) { try await comparison.step() }
        }
    }
}

/// A store beside its model: the record's rules applied to a dictionary. Every step does the same to both.
///
/// The model's time moves in whole moments, and every lease and retention ends half-way between two of them, so a store
/// in real time has half a moment to be late in.
private struct ModelComparison {
    private let trial: StoreTrial
    private let ids: [OperationID]
    private let owners: [Owner] = [.ada, .ben, .cleo]
    private let policies = [PinnedPolicy.sample, PinnedPolicy(scene: "refunds", text: "other rules")]
    private var random: SeededGenerator

    private var records: [OperationID: Record] = [:]
    private var now = StoreTime(Timestamp(microseconds: 1_000_000_000_000))
    private var lastEpoch = Epoch.zero
    /// What was granted for each key, in the model's and the store's epochs, which are different numbers.
    private var tokens: [OperationID: [(model: FencingToken, store: FencingToken)]] = [:]

    init(_ trial: StoreTrial, scope: Scope, seed: UInt64) {
        self.trial = trial
        random = SeededGenerator(seed: seed)
        ids = (0..<4).map { .sample("\($0)", in: scope) }
    }

    mutating func step() async throws {
        switch Int.random(in: 0..<100, using: &random) {
        case 0..<30: try await claim()
        case 30..<62: try await transition()
        case 62..<77: try await elapse()
        case 77..<82: try await verify()
        case 82..<87: try await resolve()
        case 87..<90: try await forget()
        case 90..<94: try await trial.purge()
        case 94..<97: try await list()
        default: try await reopen()
        }
        for id in ids { try await compareRecord(of: id) }
    }

    // MARK: Steps

    private mutating func claim() async throws {
        let requests = (0..<batchSize()).map { _ in
            let limit: Int? = chance(20) ? 2 : nil
            let policy = pick(policies)
            let payload = chance(10) ? "another payload" : "payload"
            let (lease, rule) = (halves(0...2), pick(LapseRule.allCases))
            let retention = Retention(response: halves(0...3), key: halves(1...5))
            return trial.request(pick(ids), by: pick(owners)) {
                $0.fingerprint = .sample(payload)
                $0.lease = lease
                $0.onLapse = rule
                $0.policy = policy
                $0.retention = retention
                $0.liveLimit = limit
            }
        }
        let answers = try await trial.store.claim(requests)
        for (number, request) in requests.enumerated() {
            let (expected, change) = RecordMachine.claim(
                request, on: records[request.id], at: now, liveRecords: { records.values.count(where: \.isLive) },
                nextEpoch: { nextEpoch(after: $0) })
            commit(change, to: request.id)
            let what = "\(request.owner.name)'s claim of \(request.id.name) (\(request.onLapse), lease \(request.lease))"
            try trial.expect(answers.count, is: requests.count, "the number of answers")
            let actual = answers[number]
            trial.note("\(what): \(actual.summary)")
            try trial.expect(Self.essence(of: actual), is: Self.essence(of: expected), "the answer to \(what)")
            switch (expected, actual) {
            case (.granted(let model), .granted(let store)):
                try remember(model, store, for: request.id)
            case (.inProgress(let model), .inProgress(let store)):
                try trial.expect(isNear(store, model), "about \(model) of the lease are left", actual: "\(store)")
            default: break
            }
        }
    }

    private mutating func transition() async throws {
        var transitions: [(model: Transition, store: Transition)] = []
        for _ in 0..<batchSize() {
            let id = pick(ids)
            guard let known = tokens[id], var pair = chance(75) ? known.last : known.randomElement(using: &random) else { continue }
            if chance(8) {
                let stranger = pick(owners)
                pair.model = FencingToken(epoch: pair.model.epoch, owner: stranger)
                pair.store = FencingToken(epoch: pair.store.epoch, owner: stranger)
            }
            let change: Transition.Change =
                switch Int.random(in: 0..<10, using: &random) {
                case 0..<3: .complete(.sample(pick(["one", "two"])), retention: chance(30) ? Retention(response: halves(0...2), key: halves(0...4)) : nil)
                case 3: .release
                case 4: .suspend(reason: pick(["lost", "timeout"]))
                case 5: .stream
                case 6, 7: .renew(halves(0...3))
                default: .proceed(lease: halves(0...2))
                }
            transitions.append((Transition(id: id, token: pair.model, change: change), Transition(id: id, token: pair.store, change: change)))
        }
        let answers = try await trial.store.apply(transitions.map(\.store))
        try trial.expect(answers.count, is: transitions.count, "the number of answers")
        for ((model, store), actual) in zip(transitions, answers) {
            let (expected, change) = RecordMachine.apply(model, to: records[model.id], at: now)
            commit(change, to: model.id)
            let what = "\(store.token.owner.name)'s \(store.change.summary) of \(store.id.name) at epoch \(store.token.epoch)"
            trial.note("\(what): \(actual)")
            try trial.expect(actual, is: expected, "the answer to \(what)")
        }
    }

    private mutating func elapse() async throws {
        let moments = Int.random(in: 1...3, using: &random)
        try await trial.elapse(Double(moments))
        now = StoreTime(now.lease + trial.moments(Double(moments)))
    }

    private mutating func verify() async throws {
        let (id, owner) = (pick(ids), pick(owners))
        let lease = halves(0...2)
        let (expected, change) = RecordMachine.verify(records[id], owner: owner, lease: lease, at: now, nextEpoch: { nextEpoch(after: $0) })
        commit(change, to: id)
        let actual = try await trial.store.verify(id, owner: owner, lease: lease)
        trial.note("\(owner.name) asks to verify \(id.name): \(actual?.summary ?? "nothing to verify")")
        try trial.expect(actual.map(Self.essence), is: expected.map(Self.essence), "the answer to a verification of \(id.name)")
        if let expected, let actual { try remember(expected, actual, for: id) }
    }

    private mutating func resolve() async throws {
        let id = pick(ids)
        let resolution = pick([Resolution.applied(.sample("found")), .applied(nil), .notApplied])
        let (expected, change) = RecordMachine.resolve(resolution, on: records[id], at: now, nextEpoch: { nextEpoch(after: $0) })
        commit(change, to: id)
        let actual = try await trial.resolve(id, as: resolution)
        try trial.expect(actual, is: expected, "the answer to a resolution of \(id.name)")
    }

    private mutating func forget() async throws {
        let id = pick(ids)
        let (expected, change) = RecordMachine.forget(records[id], at: now)
        commit(change, to: id)
        let actual = try await trial.forget(id)
        try trial.expect(actual, is: expected, "the answer to a forgetting of \(id.name)")
    }

    private mutating func list() async throws {
        let states: Set<RecordState> = [pick(RecordState.allCases), pick(RecordState.allCases)]
        let page = try await trial.store.operations(OperationQuery(states: states, scope: ids[0].scope))
        let expected = ids.filter { id in settled(id).map { states.contains($0.state) } ?? false }
        trial.note("listing \(states.map { "\($0)" }.sorted()): \(page.operations.map(\.id.name))")
        try trial.expect(Set(page.operations.map(\.id)), is: Set(expected), "what is listed")
    }

    private mutating func reopen() async throws {
        guard trial.subject.reopen != nil else { return }
        try await trial.reopen()
        guard trial.subject.leasesEndOnReopening else { return }
        for (id, record) in records where record.isLive { records[id]?.leaseUntil = min(record.leaseUntil, now.lease) }
    }

    // MARK: Comparing

    private mutating func remember(_ model: Grant, _ store: Grant, for id: OperationID) throws {
        try trial.expect(isNear(store.leaseRemaining, model.leaseRemaining), "the lease is about \(model.leaseRemaining)", actual: "\(store.leaseRemaining)")
        let last = tokens[id]?.last
        if last?.model == model.token {
            try trial.expect(store.token, is: last!.store, "the token given again for \(id.name)")
        } else {
            let epoch = last?.store.epoch ?? .zero
            try trial.expect(store.token.epoch > epoch, "the epoch of \(id.name) rises from \(epoch)", actual: "\(store.token.epoch)")
            tokens[id, default: []].append((model.token, store.token))
        }
    }

    private func compareRecord(of id: OperationID) async throws {
        let actual = try await trial.store.record(of: id)
        let expected = settled(id)
        try trial.expect(actual.map(Self.essence), is: expected.map(Self.essence), "the record of \(id.name)")
    }

    /// All of a record that does not depend on the exact time or on the numbers of epochs.
    private static func essence(of record: Record) -> String {
        "\(record.state) of \(record.owner.name), attempt \(record.attempt), \(record.onLapse), \(record.mode), policy \(record.policy.low), "
            + "\(record.fingerprint), \(record.retention), reason \(record.reason ?? "none"), outcome \(record.outcome.map { "\($0)" } ?? "none")"
    }

    private static func essence(of grant: Grant) -> String {
        "\(grant.kind) of \(grant.token.owner.name), attempt \(grant.attempt), policy \(grant.policy.low), "
            + "former holder: \(grant.previousChange != nil)"
    }

    private static func essence(of result: ClaimResult) -> String {
        switch result {
        case .granted(let grant): essence(of: grant)
        case .completed(let record): "completed: \(essence(of: record))"
        case .uncertain(let record): "uncertain: \(essence(of: record))"
        case .inProgress, .expired, .mismatch, .tooManyKeys, .unreadable: result.summary
        }
    }

    private func isNear(_ actual: Duration, _ expected: Duration) -> Bool {
        actual <= expected + trial.moments(0.5) && actual >= expected - trial.moments(0.5)
    }

    // MARK: The model

    private func settled(_ id: OperationID) -> Record? { RecordMachine.settled(records[id], at: now) }

    private mutating func nextEpoch(after previous: Epoch) -> Epoch {
        lastEpoch = Epoch(rawValue: max(lastEpoch, previous).rawValue + 1)
        return lastEpoch
    }

    private mutating func commit(_ change: RecordMachine.Change, to id: OperationID) {
        switch change {
        case .keep: break
        case .put(let record): records[id] = record
        case .remove: records[id] = nil
        }
    }

    // MARK: Chance

    private mutating func pick<Value>(_ values: [Value]) -> Value { values.randomElement(using: &random)! }
    private mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }
    private mutating func batchSize() -> Int { chance(70) ? 1 : Int.random(in: 2...6, using: &random) }

    /// A duration that ends half-way between two moments.
    private mutating func halves(_ moments: ClosedRange<Int>) -> Duration {
        trial.moments(Double(Int.random(in: moments, using: &random)) + 0.5)
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers from the same seed, on every platform.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}
