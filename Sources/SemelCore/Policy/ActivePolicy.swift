/// A policy that was found to be kept by its parts: with its level, and pinned for the records made under it.
public struct ActivePolicy: Hashable, Sendable {
    public let policy: Policy
    public let assessment: Assessment
    public let pinned: PinnedPolicy

    /// - Parameter text: the policy as people wrote it, when there is more to it than ``Policy`` says.
    /// - Throws: ``PolicyError`` when the policy claims more than its parts can keep, or contradicts itself.
    public init(_ policy: Policy, on store: StoreCapabilities, text: String? = nil) throws(PolicyError) {
        self.policy = policy
        assessment = try policy.assess(on: store)
        pinned = PinnedPolicy(scene: policy.scene, text: text ?? policy.text)
    }

    public func hash(into hasher: inout Hasher) { hasher.combine(pinned) }
}

extension Policy {
    /// Every rule of the policy as `name=value`, in a fixed order.
    var text: String {
        [
            "effect=\(effect)", "minimum=\(minimum?.name ?? "none")", "mode=\(mode)", "onError=\(onError.map { "\($0)" } ?? "default")",
            "onConcurrent=\(onConcurrent)", "onStoreFailure=\(onStoreFailure)", "lease=\(lease)",
            "progress=\(progress.map { "\($0)" } ?? "none")", "response=\(retention.response)", "key=\(retention.key)",
            "horizon=\(horizon)", "liveKeys=\(liveKeys.map(String.init) ?? "none")",
        ].joined(separator: " ")
    }
}

extension PinnedPolicy {
    /// The effect of a policy that was pinned by ``Policy/text``, where it can be asked; `nil` for all others.
    package var queryableEffect: Effect? {
        let beginning = "effect=queryable(inFlight: "
        guard text.hasPrefix(beginning), let end = text.firstIndex(of: ")") else { return nil }
        let parts = String(text[..<end].dropFirst(beginning.count)).split(separator: " seconds, isFenced: ")
        guard parts.count == 2, let seconds = Double(parts[0]), let isFenced = Bool(String(parts[1])) else { return nil }
        return .queryable(inFlight: .seconds(seconds), isFenced: isFenced)
    }
}
