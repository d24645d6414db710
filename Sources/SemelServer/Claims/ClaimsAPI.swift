package import Semel

/// Claims over HTTP, for workers in any language: `POST /v1/claim`, `/v1/complete`, `/v1/suspend`, `/v1/renew`,
/// `/v1/release` and `/v1/wait`, served by the ``ControlPlane``.
///
/// A worker claims a key, does its work while it renews the lease, and completes with the token it was given. Each request
/// is one item, or many as `{"items": […]}`, which is one call of the store: items are answered in their order, each by
/// itself; one that cannot be understood is answered with a problem and the others are done. A batch is not a transaction.
///
/// The guarantee is that of the fencing token: a token that is not the record's own changes nothing, and is answered
/// `"applied": false`. A worker that was told so must not let its effect out. What the worker's target does with effects
/// that are already out is not known here, so a claim with `onLapse: reclaim` is *at least once* and one with
/// `onLapse: uncertain` is *at most once*, and neither is more than *best effort* on a store that may forget.
package struct ClaimsAPI: Sendable {
    package struct Limits: Sendable {
        /// Items of one request.
        package var items = 1000
        /// Bytes of one request's body.
        package var body = 8 << 20
        /// Bytes of one outcome's body, decoded.
        package var outcome = 256 << 10
        /// Items that wait at one time, over all connections.
        package var waiters = 1000
        package var wait: ClosedRange<Duration> = .zero ... .seconds(60)
        package var lease: ClosedRange<Duration> = .milliseconds(50) ... .seconds(24 * 3600)
        package var retention: ClosedRange<Duration> = .zero ... .seconds(3650 * 24 * 3600)

        package init() {}
    }

    /// Operations claimed here are listed under this name.
    package static let scene = "claims"

    let store: any OperationStore
    let environment: Environment
    let limits: Limits
    let observer: any ClaimsObserver
    let waiters: WaiterLimit
    let reclaiming: ActivePolicy
    let uncertain: ActivePolicy

    package init(
        store: any OperationStore, environment: Environment = .live, limits: Limits = Limits(),
        observer: any ClaimsObserver = NoClaimsObserver()
    ) {
        self.store = store
        self.environment = environment
        self.limits = limits
        self.observer = observer
        waiters = WaiterLimit(limits.waiters)
        reclaiming = Self.policy(accepting: .bestEffort, .reclaim, on: store)
        uncertain = Self.policy(accepting: nil, .uncertain, on: store)
    }

    /// Nothing is known about a worker's target. The level follows from that, from the rule and from the store.
    private static func policy(accepting minimum: Guarantee?, _ rule: LapseRule, on store: any OperationStore) -> ActivePolicy {
        let policy = Policy(scene: scene, effect: .unknown, minimum: minimum)
        do {
            // The text names what the callers of the API choose by; its hash stays the same from version to version.
            let active = try ActivePolicy(policy, on: store.capabilities, text: "claims API, onLapse: \(rule)")
            precondition(active.assessment.onLapse == rule, "the policy gives the rule it is named after")
            return active
        } catch {
            preconditionFailure("a policy that asks for no level is always kept: \(error)")
        }
    }

    /// What a claim under this policy is kept at. A record of a policy that is not one of these promises nothing here.
    func guarantee(of policy: PolicyHash) -> Guarantee {
        switch policy {
        case reclaiming.pinned.hash: reclaiming.assessment.level
        case uncertain.pinned.hash: uncertain.assessment.level
        default: .bestEffort
        }
    }
}

/// Is told what the claims API did, for metrics. Called on the request's path: return at once.
package protocol ClaimsObserver: Sendable {
    /// - Parameter result: as answered, such as `claimed` or `in_progress`.
    func claimAnswered(_ result: String)
    /// - Parameter change: `complete`, `suspend`, `renew` or `release`.
    func changeAnswered(_ change: String, applied: Bool)
    /// A request, or one of its items, was refused.
    /// - Parameter code: the problem's, one of a fixed set.
    func refused(_ code: String)
}

/// Tells nobody.
package struct NoClaimsObserver: ClaimsObserver {
    package init() {}
    package func claimAnswered(_ result: String) {}
    package func changeAnswered(_ change: String, applied: Bool) {}
    package func refused(_ code: String) {}
}

/// How many may wait at one time.
final class WaiterLimit: Sendable {
    private let limit: Int
    private let count = Locked(0)

    init(_ limit: Int) {
        self.limit = limit
    }

    func enter() -> Bool {
        count.withLock { count in
            guard count < limit else { return false }
            count += 1
            return true
        }
    }

    func leave() {
        count.withLock { $0 -= 1 }
    }

    var current: Int { count.withLock { $0 } }
}
