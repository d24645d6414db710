/// The rules for one kind of operation. A choice about safety has no default: the effect must be named.
public struct Policy: Hashable, Sendable {
    /// The name of the kind of operation, as logs, metrics and the console show it.
    public var scene: String
    public var effect: Effect
    /// The least level accepted; ``assess(on:)`` refuses a policy whose parts give less.
    public var minimum: Guarantee?
    public var mode: Mode
    /// `nil` for the default of the effect.
    public var onError: ErrorRule?
    public var onConcurrent: ConcurrencyRule
    public var onStoreFailure: StoreFailureRule
    /// How long a claim holds without a sign of life.
    public var lease: Duration
    /// How long an operation may go without progress before its lease is given up (H8); `nil` for no limit.
    public var progress: Duration?
    public var retention: Retention
    /// For how long after completion a request may still be repeated. The key must be kept at least as long (H22).
    public var horizon: Duration
    /// The most live keys (claimed or uncertain) one scope may hold.
    public var liveKeys: Int?

    public init(
        scene: String, effect: Effect, minimum: Guarantee? = nil, mode: Mode = .enforce, onError: ErrorRule? = nil,
        onConcurrent: ConcurrencyRule = .conflict, onStoreFailure: StoreFailureRule = .closed, lease: Duration = .seconds(30),
        progress: Duration? = nil, retention: Retention = .standard, horizon: Duration? = nil, liveKeys: Int? = 1_000_000
    ) {
        self.scene = scene
        self.effect = effect
        self.minimum = minimum
        self.mode = mode
        self.onError = onError
        self.onConcurrent = onConcurrent
        self.onStoreFailure = onStoreFailure
        self.lease = lease
        self.progress = progress
        self.retention = retention
        self.horizon = horizon ?? retention.response
        self.liveKeys = liveKeys
    }
}

extension Policy {
    /// The level this policy's parts can keep on a store, and why.
    /// - Throws: ``PolicyError`` when the policy claims more than that, or contradicts itself.
    public func assess(on store: StoreCapabilities) throws(PolicyError) -> Assessment {
        try checkRetention()
        var level = levelOfEffect()
        var reasons = [reason(for: level)]

        if effect == .localTransaction && !store.isTransactional {
            throw PolicyError(
                .contradiction, in: scene, "the effect is to share the record's transaction, and the \(store.engine) store has none to share",
                remedy: "use a store with transactions, or declare what the target can do")
        }
        if case .forgetful(let why) = store.durability, level != .deduplicatedByTarget, level != .bestEffort {
            level = .bestEffort
            reasons.append("The \(store.engine) store may forget what it acknowledged: \(why).")
        }
        if !store.isAuthority, level == .fencedAndVerified {
            // Effectively once outside the store, and by its record alone. A target that deduplicates has the say itself,
            // and an effect inside the store is kept or lost with its record.
            level = .verified
            reasons.append("The \(store.engine) store is never the only authority of an effect outside it: a failover may lose the claim.")
        }
        if onStoreFailure == .open, level != .deduplicatedByTarget, level > .atLeastOnce {
            // What may lose work at any time, and double it while the store is down, promises nothing.
            level = level == .atMostOnce ? .bestEffort : .atLeastOnce
            reasons.append("onStoreFailure: open runs requests unprotected while the store is down.")
        }
        if mode != .enforce, level > .bestEffort {
            level = .bestEffort
            reasons.append("Only mode: enforce keeps a promise.")
        }
        if let minimum, !level.satisfies(minimum) {
            throw PolicyError(
                .overclaim, in: scene, "guarantee: \(minimum.name) is more than its parts can keep, which is \(level.name). " + reasons.joined(separator: " "),
                remedy: remedy(for: minimum, given: level, on: store))
        }
        let errorRule = onError ?? defaultErrorRule()
        let lapse = lapseRule()
        if errorRule == .rerun && lapse != .reclaim {
            // The key is given back, and the next request runs without asking anybody.
            throw PolicyError(
                .contradiction, in: scene, "onError: rerun runs again without asking, so it needs an effect that can bear a second run",
                remedy: lapse == .verify
                    ? "use onError: uncertain, after which the target is asked"
                    : "declare the effect, if the target really deduplicates, accept guarantee: atLeastOnce, or use onError: uncertain")
        }
        return Assessment(level: level, reasons: reasons, horizon: horizonKept(at: level), onLapse: lapse, onError: errorRule)
    }

    private func levelOfEffect() -> Guarantee {
        switch effect {
        case .localTransaction: .atomic
        case .deduplicates(let keeps): keeps >= horizon ? .deduplicatedByTarget : .atLeastOnce
        case .queryable(_, let isFenced): isFenced ? .fencedAndVerified : .verified
        case .unknown: acceptsDoubling ? .atLeastOnce : .atMostOnce
        }
    }

    /// An unknown target is run again only where the policy says in so many words that doubling is acceptable.
    private var acceptsDoubling: Bool { minimum == .atLeastOnce || minimum == .bestEffort }

    private func reason(for level: Guarantee) -> String {
        switch (effect, level) {
        case (.localTransaction, _): "Effect and record share one transaction."
        case (.deduplicates, .deduplicatedByTarget): "The target deduplicates by key for at least as long as requests are repeated."
        case (.deduplicates(let keeps), _):
            "The target keeps keys for \(DurationText.format(keeps)), requests may be repeated for \(DurationText.format(horizon))."
        case (.queryable, .fencedAndVerified): "The target refuses lower epochs and can be asked."
        case (.queryable, _): "The target can be asked once nothing of ours can still be in flight; it does not fence."
        case (.unknown, .atLeastOnce): "Nothing is known about the target, and the policy accepts a second run."
        case (.unknown, _): "Nothing is known about the target: what is lost on the way stays uncertain."
        }
    }

    private func remedy(for minimum: Guarantee, given level: Guarantee, on store: StoreCapabilities) -> String {
        switch minimum {
        case .fencedAndVerified where !store.isAuthority:
            "use a store that may decide alone (sqlite, postgres or mysql), or a target that deduplicates, or accept guarantee: \(level.name)"
        case .atomic: "write the effect in the store's own transaction (library only), or accept guarantee: \(level.name)"
        case .deduplicatedByTarget:
            "declare effect: deduplicates with keeps of at least \(DurationText.format(horizon)), if the target really does, or accept guarantee: \(level.name)"
        case .fencedAndVerified: "declare effect: queryable with a fence on a durable store, if the target really has one, or accept guarantee: \(level.name)"
        case .verified: "declare effect: queryable on a durable store, or accept guarantee: \(level.name)"
        case .atMostOnce: "use a durable store, mode: enforce and onStoreFailure: closed, or accept guarantee: \(level.name)"
        case .atLeastOnce, .bestEffort: "accept guarantee: \(level.name)"
        }
    }

    private func lapseRule() -> LapseRule {
        switch effect {
        case .localTransaction, .deduplicates: .reclaim
        case .queryable: .verify
        case .unknown: acceptsDoubling ? .reclaim : .uncertain
        }
    }

    private func defaultErrorRule() -> ErrorRule {
        switch effect {
        case .localTransaction, .deduplicates: .rerun
        case .queryable, .unknown: .uncertain
        }
    }

    private func horizonKept(at level: Guarantee) -> Duration {
        if case .deduplicates(let keeps) = effect, level == .deduplicatedByTarget { return min(keeps, retention.key) }
        return retention.key
    }

    private func checkRetention() throws(PolicyError) {
        guard lease >= .milliseconds(50) else {
            throw PolicyError(.contradiction, in: scene, "lease: \(DurationText.format(lease)) is too short to renew", remedy: "use at least 50ms")
        }
        guard retention.key >= horizon else {
            throw PolicyError(
                .retention, in: scene,
                "the key is kept for \(DurationText.format(retention.key)), requests may be repeated for \(DurationText.format(horizon)): a late repeat would run again",
                remedy: "keep the key at least as long as requests are repeated")
        }
    }
}

/// A policy that cannot be kept, and what to change.
public struct PolicyError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Code: String, Sendable { case overclaim, retention, contradiction }

    public var code: Code
    public var scene: String
    public var problem: String
    public var remedy: String

    package init(_ code: Code, in scene: String, _ problem: String, remedy: String) {
        self.code = code
        self.scene = scene
        self.problem = problem
        self.remedy = remedy
    }

    public var description: String { "\(scene): \(problem). Remedy: \(remedy)." }
}
