import Semel
@testable import SemelRedis
import Testing

/// The scripts beside the rules they transcribe: random events at times that both know to the microsecond, so that leases
/// and retentions end before, at and after the moment of a question.
@Suite("The scripts answer as RecordMachine does")
struct DifferentialTests {
    @Test("to the microsecond, the epoch and the byte", arguments: 0..<8)
    func equals(_ seed: UInt64) async throws {
        let seed = seed &+ 0x5e3e1
        let time = SeenTime(isShared: true)
        let location = try await SharedRedis.location(cluster: seed % 4 == 3)
        let store = try await RedisStore(location, configuration: RedisStore.Configuration(purgesByItself: false), time: time)
        time.pass(.seconds(seed % 2 == 0 ? 3600 : 100 * 365 * 24 * 3600), from: SystemStoreClock().now().retention)
        var comparison = Comparison(store, time, seed: seed)
        for step in 0..<600 {
            do {
                try await comparison.step()
            } catch {
                Issue.record("seed \(seed), step \(step): \(error)\n\(comparison.history.suffix(12).joined(separator: "\n"))")
                break
            }
        }
        #expect(comparison.kinds.count >= 12, "the events reached \(comparison.kinds)")
        try await store.erase()
    }
}

private struct Difference: Error, CustomStringConvertible { let description: String }

private struct Comparison {
    private let store: RedisStore
    private let time: SeenTime
    private let ids: [OperationID]
    private let owners: [Owner] = [Owner(high: 1, low: 2), Owner(high: 1, low: 3), Owner(high: 7, low: 2)]
    private let policies = [PinnedPolicy(scene: "payments", text: "one"), PinnedPolicy(scene: "refunds", text: "two")]
    private var random: Seeded
    private var records: [OperationID: Record] = [:]
    private var tokens: [OperationID: [FencingToken]] = [:]
    private var incarnation = Incarnation(rawValue: 0)
    var history: [String] = []
    var kinds: Set<String> = []

    init(_ store: RedisStore, _ time: SeenTime, seed: UInt64) {
        self.store = store
        self.time = time
        random = Seeded(seed)
        ids = [
            key("a"), key("b", scope: ""), key(String(repeating: "k", count: 255)), key("018f3b1e-7c00-7000-8000-0123456789ab"),
            key("018F3B1E-7C00-7000-8000-0123456789AB", scope: String(repeating: "s", count: 300)), key("\u{0}\r\n{}"),
        ]
    }

    /// The time that the next call will be answered at.
    private var now: StoreTime { StoreTime(Timestamp(microseconds: Int64(time.least(0)))) }

    mutating func step() async throws {
        let id = pick(ids)
        switch Int.random(in: 0..<100, using: &random) {
        case 0..<35: try await claim(id)
        case 35..<75: try await transition(id)
        case 75..<82: try await verify(id)
        case 82..<88: try await resolve(id)
        case 88..<92: try await forget(id)
        case 92..<96: time.pass(pick([.microseconds(1), .microseconds(3), .seconds(2), .seconds(3600)]), from: now.lease)
        case 96..<98: try await store.purge(limit: 100)
        default:
            incarnation = try await store.raiseIncarnation()
            history.append("incarnation \(incarnation.rawValue)")
        }
        let at = now
        let record = try await store.record(of: id)
        try expect(record, RecordMachine.settled(records[id], at: at), "the record of \(id.key.text.prefix(8)) at \(at.lease.microseconds)")
    }

    private mutating func claim(_ id: OperationID) async throws {
        var request = ClaimRequest(
            id: id, fingerprint: Fingerprint(of: Array((chance(8) ? "other" : "payload").utf8)), owner: pick(owners), lease: brief(),
            onLapse: pick(LapseRule.allCases), policy: pick(policies), mode: pick([.observe, .enforce]),
            retention: Retention(response: brief(), key: brief()))
        if chance(50) { request.traceID = TraceID(high: random.next(), low: random.next()) }
        if chance(50) { request.parent = OperationReference(high: random.next(), low: random.next()) }
        let at = now
        let answer = try await store.claim(request)
        let (expected, change) = RecordMachine.claim(
            request, on: records[id], at: at, liveRecords: { 0 }, nextEpoch: { $0.next(at: at.retention, in: incarnation) })
        commit(change, id)
        note("claim \(request.owner) \(request.onLapse) lease \(request.lease): \(expected)")
        if case .granted(let grant) = answer { tokens[id, default: []].append(grant.token) }
        try expect(answer, expected, "the answer to the claim")
    }

    private mutating func transition(_ id: OperationID) async throws {
        guard var token = chance(70) ? tokens[id]?.last : tokens[id]?.randomElement(using: &random) else { return }
        if chance(5) { token = FencingToken(epoch: Epoch(rawValue: token.epoch.rawValue &+ 1), owner: token.owner) }
        if chance(5) { token = FencingToken(epoch: token.epoch, owner: pick(owners)) }
        let change: Transition.Change =
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<3: .complete(pick(outcomes), retention: chance(40) ? Retention(response: brief(), key: brief()) : nil)
            case 3: .release
            case 4: .suspend(reason: pick(["", "lost", "a longer reason, in ünicode"]))
            case 5: .stream
            case 6, 7: .renew(brief())
            default: .proceed(lease: brief())
            }
        let transition = Transition(id: id, token: token, change: change)
        let at = now
        let answer = try await store.apply([transition])[0]
        let (expected, result) = RecordMachine.apply(transition, to: records[id], at: at)
        commit(result, id)
        note("apply \(change) by \(token.owner) at epoch \(token.epoch): \(expected)")
        try expect(answer, expected, "the answer to the transition")
    }

    private mutating func verify(_ id: OperationID) async throws {
        let (owner, lease, at) = (pick(owners), brief(), now)
        let answer = try await store.verify(id, owner: owner, lease: lease)
        let (expected, change) = RecordMachine.verify(
            records[id], owner: owner, lease: lease, at: at, nextEpoch: { $0.next(at: at.retention, in: incarnation) })
        commit(change, id)
        note("verify \(owner): \(expected.map { "\($0.kind)" } ?? "nothing")")
        if let answer { tokens[id, default: []].append(answer.token) }
        try expect(answer, expected, "the answer to the verification")
    }

    private mutating func resolve(_ id: OperationID) async throws {
        let resolution = pick([Resolution.applied(pick(outcomes)), .applied(nil), .notApplied])
        let at = now
        let answer = try await store.resolve(id, as: resolution, by: OperatorAct(actor: "olga", reason: "looked"), expecting: nil)
        let (expected, change) = RecordMachine.resolve(
            resolution, on: records[id], at: at, nextEpoch: { $0.next(at: at.retention, in: incarnation) })
        commit(change, id)
        note("resolve \(resolution.action): \(expected)")
        try expect(answer, expected, "the answer to the resolution")
    }

    private mutating func forget(_ id: OperationID) async throws {
        let at = now
        let answer = try await store.forget(id, by: OperatorAct(actor: "olga", reason: "asked"), expecting: nil)
        let (expected, change) = RecordMachine.forget(records[id], at: at)
        commit(change, id)
        note("forget: \(expected)")
        try expect(answer, expected, "the answer to the forgetting")
    }

    private let outcomes: [Outcome] = [
        Outcome(),
        Outcome(status: 201, fields: [.init("a", "b"), .init("a", "")], body: .kept(Array(0...255)), trailers: [.init("t", "u")]),
        .unknownButApplied, Outcome(status: 200, body: .omitted(length: .max, digest: Array(repeating: 7, count: 32))),
        Outcome(status: 1, body: .omitted(length: nil, digest: [])),
    ]

    private mutating func commit(_ change: RecordMachine.Change, _ id: OperationID) {
        switch change {
        case .keep: break
        case .put(let record): records[id] = record
        case .remove: records[id] = nil
        }
    }

    private mutating func note(_ what: String) {
        history.append("\(time.least(0)): \(what)")
        // The first words of an event and how it ended say which path it took.
        kinds.insert(String(what.split(separator: " ").first ?? "") + " " + String(what.split(separator: ":").last?.prefix(14) ?? ""))
    }

    private func expect<Value: Equatable>(_ actual: Value, _ expected: Value, _ what: String) throws {
        if actual != expected { throw Difference(description: "\(what)\n  is  \(actual)\n  not \(expected)") }
    }

    private mutating func pick<Value>(_ values: [Value]) -> Value { values.randomElement(using: &random)! }
    private mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }

    /// Durations that end about now, whole seconds that are kept in short, and long ones.
    private mutating func brief() -> Duration {
        pick([
            .zero, .microseconds(1), .microseconds(2), .microseconds(3), .microseconds(5), .microseconds(8), .seconds(1), .seconds(2),
            .seconds(3600), .seconds(7200), .microseconds(3_600_000_001), .seconds(50 * 365 * 24 * 3600),
        ])
    }
}
