/// What Semel promises about one operation's effect, strongest last. The level of an operation is that of its weakest
/// part; it is computed from what the parts can do (``Policy/assess(on:)``), never chosen.
///
/// A lock or a lease is never a level.
public enum Guarantee: UInt8, Sendable, CaseIterable, Comparable {
    /// The store itself may forget. May lose work, may double it.
    case bestEffort = 0
    /// May double work, never loses it.
    case atLeastOnce = 1
    /// May lose work, never doubles it: an operation whose holder was lost becomes *uncertain* and never reruns by itself.
    case atMostOnce = 2
    /// The target is asked after a bounded time in flight. Fails on a zombie past the bound.
    case verified = 3
    /// The target checks the highest epoch and can be asked; the epoch is raised before it is.
    case fencedAndVerified = 4
    /// The target deduplicates by a stable key at least as long as requests are repeated.
    case deduplicatedByTarget = 5
    /// Effect and record are one durable transaction, conditional on the epoch.
    case atomic = 6

    public var name: String {
        switch self {
        case .bestEffort: "bestEffort"
        case .atLeastOnce: "atLeastOnce"
        case .atMostOnce: "atMostOnce"
        case .verified: "verified"
        case .fencedAndVerified: "fencedAndVerified"
        case .deduplicatedByTarget: "deduplicatedByTarget"
        case .atomic: "atomic"
        }
    }

    public init?(name: some StringProtocol) {
        guard let level = Self.allCases.first(where: { $0.name == name }) else { return nil }
        self = level
    }

    /// Only these three may be shown as *effectively once*, and only with their horizon.
    public var isEffectivelyOnce: Bool { self >= .fencedAndVerified }

    /// Whether an operation of this level may run again after its holder was lost.
    public var canRerun: Bool { self != .atMostOnce }

    /// Whether this level keeps what `minimum` asks for. *At most once* is no kind of *at least once*: it may lose work.
    public func satisfies(_ minimum: Guarantee) -> Bool {
        if self == .atMostOnce && minimum == .atLeastOnce { return false }
        return self >= minimum
    }

    public static func < (left: Guarantee, right: Guarantee) -> Bool { left.rawValue < right.rawValue }
}

/// A level and what it rests on.
public struct Assessment: Hashable, Sendable {
    public var level: Guarantee
    /// One sentence for each part that gave the level or lowered it.
    public var reasons: [String]
    /// How long the promise holds after completion.
    public var horizon: Duration
    public var onLapse: LapseRule
    public var onError: ErrorRule

    public init(level: Guarantee, reasons: [String], horizon: Duration, onLapse: LapseRule, onError: ErrorRule) {
        self.level = level
        self.reasons = reasons
        self.horizon = horizon
        self.onLapse = onLapse
        self.onError = onError
    }
}

/// What a store can really do, declared by its adapter and checked against the server when it is opened.
public struct StoreCapabilities: Hashable, Sendable {
    public enum Durability: Hashable, Sendable {
        /// What it acknowledged survives a crash of its process and machine.
        case durable
        /// It may lose what it acknowledged; the text says how (memory, no sync, a lagging replica).
        case forgetful(String)
    }

    /// The engine's name, as in the configuration's URL scheme.
    public var engine: String
    public var durability: Durability
    /// Whether the caller's own writes can share the record's transaction.
    public var isTransactional: Bool
    /// Whether a promise of *effectively once* about an effect outside the store may rest on its records alone. `false`
    /// where a failover may bring up a copy that never saw what was acknowledged, which no setting of the server that
    /// acknowledged it can rule out (H10).
    public var isAuthority: Bool

    public init(engine: String, durability: Durability, isTransactional: Bool, isAuthority: Bool = true) {
        self.engine = engine
        self.durability = durability
        self.isTransactional = isTransactional
        self.isAuthority = isAuthority
    }
}
