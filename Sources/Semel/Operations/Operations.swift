/// Runs operations once: the runtime around a store, shared by every surface (functions, HTTP, messages).
///
/// ```swift
/// let operations = Operations(store: try await SQLiteStore(path: "semel.db"))
/// let charges = try operations.scene(Policy(scene: "charge", effect: .deduplicates(keeps: .seconds(86_400))))
/// let receipt = try await charges.perform("order-42", payload: order) { attempt in
///     try await provider.charge(order, idempotencyKey: attempt.reference.description)
/// }
/// ```
public struct Operations: Sendable {
    public let store: any OperationStore
    public let environment: Environment
    let keeper: LeaseKeeper
    let waiters = WaiterCount()

    public init(store: any OperationStore, environment: Environment = .live) {
        self.store = store
        self.environment = environment
        keeper = LeaseKeeper(store: store, environment: environment)
    }

    /// One kind of operation, under a policy.
    /// - Throws: ``PolicyError`` when the policy claims more than its parts can keep.
    public func scene(_ policy: Policy, text: String? = nil) throws(PolicyError) -> Scene {
        Scene(operations: self, active: try ActivePolicy(policy, on: store.capabilities, text: text))
    }
}

/// How many callers wait for somebody else's operation, by scene.
final class WaiterCount: Sendable {
    private let counts = Locked([String: Int]())

    func enter(_ scene: String, limit: Int) -> Bool {
        counts.withLock { counts in
            guard counts[scene, default: 0] < limit else { return false }
            counts[scene, default: 0] += 1
            return true
        }
    }

    func leave(_ scene: String) {
        counts.withLock { $0[scene, default: 1] -= 1 }
    }
}
