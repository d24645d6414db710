public import Semel

// The people, keys and payloads of the laws, and how a history names them.

extension Owner {
    public static let ada = Owner(high: 0xada, low: 1)
    public static let ben = Owner(high: 0xbe9, low: 2)
    public static let cleo = Owner(high: 0xc1e0, low: 3)

    /// One of many.
    public static func claimant(_ number: Int) -> Owner { Owner(high: 0xface, low: UInt64(number)) }

    var name: String {
        switch self {
        case .ada: "Ada"
        case .ben: "Ben"
        case .cleo: "Cleo"
        default: high == 0xface ? "claimant \(low)" : "a stranger"
        }
    }
}

extension OperationID {
    /// A key in the laws' usual scope.
    public static func sample(_ key: String = "key", in scope: Scope = Scope("tenant", "subject")) -> OperationID {
        guard let key = try? OperationKey(key) else { preconditionFailure("a sample key has 1 to 255 bytes") }
        return OperationID(scope: scope, key: key)
    }

    public static func sample(bytes: [UInt8], in scope: Scope = Scope("tenant", "subject")) -> OperationID {
        guard let key = try? OperationKey(bytes: bytes) else { preconditionFailure("a sample key has 1 to 255 bytes") }
        return OperationID(scope: scope, key: key)
    }

    var name: String { key.bytes.count > 40 ? "\(key.text.prefix(40))… (\(key.bytes.count) bytes)" : "\"\(key.text)\"" }
}

extension Fingerprint {
    public static func sample(_ payload: String) -> Fingerprint { Fingerprint(of: Array(payload.utf8)) }
}

extension PinnedPolicy {
    public static let sample = PinnedPolicy(scene: "payments", text: "the first rules")
}

extension OperatorAct {
    public static let sample = OperatorAct(actor: "olga", reason: "the provider's ledger was read")
}

extension Outcome {
    public static func sample(_ text: String = "done") -> Outcome {
        Outcome(status: 201, fields: [Field("content-type", "text/plain")], body: .kept(Array(text.utf8)))
    }

    /// An outcome too large to keep.
    public static let omitted = Outcome(
        status: 200, fields: [Field("content-type", "application/octet-stream")],
        body: .omitted(length: 5_000_000_000, digest: Array(repeating: 0xd1, count: 32)))

    var summary: String {
        switch body {
        case .kept(let bytes): "\(status) with \(bytes.count) bytes"
        case .omitted(let length, _): "\(status) without its body\(length.map { " of \($0) bytes" } ?? "")"
        }
    }
}

extension Record {
    /// One line for a history.
    public var summary: String {
        let parts = [
            "\(state)", "epoch \(epoch)", "of \(owner.name)", "attempt \(attempt)", reason.map { "because \($0)" },
            outcome.map { "outcome \($0.summary)" },
        ]
        return parts.compactMap { $0 }.joined(separator: ", ")
    }
}

extension Grant {
    var summary: String { "granted (\(kind), epoch \(token.epoch), attempt \(attempt))" }
}

extension ClaimRequest {
    var summary: String { "lease \(lease), on lapse \(onLapse)" }
}

extension ClaimResult {
    public var summary: String {
        switch self {
        case .granted(let grant): grant.summary
        case .inProgress: "in progress"
        case .completed(let record): "completed (\(record.summary))"
        case .expired: "expired"
        case .mismatch: "mismatch"
        case .uncertain(let record): "uncertain (\(record.summary))"
        case .tooManyKeys: "too many keys"
        case .unreadable(let why): "unreadable (\(why))"
        }
    }

    public var isGranted: Bool { if case .granted = self { true } else { false } }
    public var isInProgress: Bool { if case .inProgress = self { true } else { false } }

    /// What is replayed; `nil` when nothing is.
    public var replayed: Outcome? { if case .completed(let record) = self { record.outcome } else { nil } }
}

extension Transition.Change {
    var summary: String {
        switch self {
        case .complete(let outcome, let retention): "complete with \(outcome.summary)\(retention == nil ? "" : " and a retention of its own")"
        case .release: "release"
        case .suspend(let reason): "suspend (\(reason))"
        case .stream: "stream"
        case .renew(let lease): "renew by \(lease)"
        case .proceed(let lease): "proceed for \(lease)"
        }
    }
}

extension Resolution {
    var summary: String {
        switch self {
        case .applied(let outcome): "applied\(outcome.map { " with \($0.summary)" } ?? "")"
        case .notApplied: "not applied"
        }
    }
}
