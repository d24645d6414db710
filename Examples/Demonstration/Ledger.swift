import Foundation

/// What a storm must at least have been to prove anything.
enum Preconditions {
    static let requests = 5_000
    static let keys = 500
    static let inFlight = 20
}

/// What clients were told beside what the service did.
struct Ledger: Sendable {
    let plan: Plan
    let counts: Tally.Counts
    /// How many requests were in flight when the gateway was killed; nil when nobody was to be killed.
    let inFlightAtKill: Int?
    /// Effects of this storm's keys in the service's database.
    let effects: Int
    let doubled: [String]
    /// Payments without an effect, although each was retried to its end.
    let lost: [String]
    /// Payments whose clients were given another answer than that of their effect.
    let wrongAnswers: [String]

    /// Asks the service itself for the effects, past the gateway.
    init(_ plan: Plan, _ counts: Tally.Counts, inFlightAtKill: Int?, service: String, _ client: Client) async throws {
        struct Line: Decodable {
            let key: String
            let count: Int
        }
        let answer = try await client.get(service + "/ledger/keys")
        guard answer.status == 200 else { throw Failure("\(service)/ledger/keys answers \(answer.status)") }
        let lines = try answer.body.split(separator: UInt8(ascii: "\n")).map { try JSONDecoder().decode(Line.self, from: Data($0)) }
        let effects = Dictionary(uniqueKeysWithValues: lines.map { ($0.key, $0.count) })

        var wrongAnswers: [String] = []
        for (payment, told) in zip(plan.payments, counts.payments) {
            guard let body = told.body else { continue }
            let key = payment.key.replacing("/", with: "%2F")
            let made = try await client.get("\(service)/v1/payments?key=\(key)")
            if made.status != 200 || made.body != body { wrongAnswers.append(payment.key) }
        }

        let keys = plan.payments.map(\.key)
        self.plan = plan
        self.counts = counts
        self.inFlightAtKill = inFlightAtKill
        self.effects = keys.reduce(0) { $0 + (effects[$1] ?? 0) }
        doubled = keys.filter { (effects[$0] ?? 0) > 1 }
        lost = keys.filter { effects[$0] == nil }
        self.wrongAnswers = wrongAnswers
    }

    /// Everything that must not be; empty when each payment took effect exactly once, in a storm worth the name.
    var problems: [String] {
        var problems: [String] = []
        func check(_ isFine: Bool, _ problem: @autoclosure () -> String) {
            if !isFine { problems.append(problem()) }
        }
        func some(_ keys: [String]) -> String { keys.prefix(3).joined(separator: ", ") + (keys.count > 3 ? ", …" : "") }
        check(doubled.isEmpty, "\(doubled.count) payments took effect more than once: \(some(doubled))")
        check(lost.isEmpty, "\(lost.count) payments were lost: \(some(lost))")
        check(wrongAnswers.isEmpty, "\(wrongAnswers.count) payments were answered otherwise than they were made: \(some(wrongAnswers))")
        check(counts.differentBodies == 0, "\(counts.differentBodies) replays differ from the first answer of their key")
        let unconfirmed = counts.payments.count { !$0.isConfirmed }
        check(unconfirmed == 0, "\(unconfirmed) payments have no answer for good, even after the last retry")
        for (answer, count) in counts.unexpected.sorted(by: { $0.key < $1.key }) {
            problems.append("\(count) answers that nobody should get: \(answer)")
        }

        check(plan.requests >= Preconditions.requests, "only \(plan.requests) requests; \(Preconditions.requests) are needed")
        check(plan.payments.count >= Preconditions.keys, "only \(plan.payments.count) keys; \(Preconditions.keys) are needed")
        if let inFlightAtKill {
            check(counts.kills == 1, "the gateway was killed \(counts.kills) times instead of once")
            check(
                min(inFlightAtKill, counts.lostByKill) >= Preconditions.inFlight,
                "\(inFlightAtKill) requests were in flight at the kill and \(counts.lostByKill) lost their answer; "
                    + "\(Preconditions.inFlight) of each are needed")
            check(counts.mostUncertain > 0, "no outcome was ever uncertain, so nothing had to be resolved")
        }
        return problems
    }

    func table(seed: UInt64) -> String {
        var rows: [(name: String, count: Int, note: String)] = [
            ("requests sent", counts.sent, "over \(plan.payments.count) keys; \(plan.requests) first attempts, the others retries"),
            ("  answered", counts.firstAnswers, "by the service, through the gateway"),
            ("  replayed", counts.replays, "the recorded answer, byte for byte"),
            ("  answer not kept", counts.answersNotKept, "recorded as done, after its answer was lost"),
            ("  told to wait", counts.inProgress, "409, the first request still ran"),
            ("  outcome uncertain", counts.uncertain, "409, nothing runs until it is resolved"),
            ("  errors", counts.errors, "5xx or 429, retried"),
            ("  hung up", counts.hungUp, "by the client, retried"),
            ("  connection lost", counts.lost, "retried"),
        ]
        if let inFlightAtKill {
            rows.append(("    by the kill -9", counts.lostByKill, "with \(inFlightAtKill) requests in flight"))
            rows.append(("uncertain at the peak", counts.mostUncertain, "resolved by asking the service"))
        }
        rows += [
            ("found nobody", counts.notConnected, "attempts to connect while the gateway was down"),
            ("clients that gave up", counts.gaveUp, ""),
            ("effects", effects, "payments in the service's own database"),
            ("doubled", doubled.count, ""),
            ("lost", lost.count, ""),
        ]
        let guarantee = counts.guarantees.isEmpty ? "" : ", guarantee: \(counts.guarantees.sorted().joined(separator: ", "))"
        let lines = rows.map { row in
            let name = row.name.padding(toLength: 24, withPad: " ", startingAt: 0)
            let count = String(String(repeating: " ", count: 8) + String(row.count)).suffix(8)
            return "  \(name)\(count)   \(row.note)"
        }
        return (["", "Ledger (seed \(seed)\(guarantee))", ""] + lines + [""]).joined(separator: "\n")
    }
}
