/// One kind of operation: a policy, and the runtime that keeps it.
// A class, because every request passes it on: a copy would count a dozen references, on all threads at once.
public final class Scene: Sendable {
    public let operations: Operations
    public let active: ActivePolicy

    /// - Parameter active: assessed on the store of these operations; on another one its level would be a guess.
    package init(operations: Operations, active: ActivePolicy) {
        self.operations = operations
        self.active = active
    }

    public var policy: Policy { active.policy }
    /// The level its operations are kept at.
    public var guarantee: Guarantee { active.assessment.level }
    public var store: any OperationStore { operations.store }
}

/// One request to run an operation.
public struct OperationCall: Sendable {
    public var id: OperationID
    public var fingerprint: Fingerprint
    public var traceID: TraceID?
    public var parent: OperationReference?

    public init(id: OperationID, fingerprint: Fingerprint, traceID: TraceID? = nil, parent: OperationReference? = nil) {
        self.id = id
        self.fingerprint = fingerprint
        self.traceID = traceID
        self.parent = parent
    }
}

/// What a call for an operation met.
public enum Beginning: Sendable {
    /// It is the caller's to run.
    case run(Attempt)
    /// An earlier holder was lost: ask the target whether its effect happened, then complete, or proceed and run.
    case verify(Attempt)
    /// It ran before; this is its record, with the outcome.
    indirect case completed(Record)
    case refused(Refusal)
}

/// Why an operation may not run now.
public enum Refusal: Hashable, Sendable {
    /// Somebody else runs it. Worth asking again after about this long.
    case inProgress(Duration)
    /// The key was used with another payload.
    case mismatch
    /// Whether it ran is unknown, and must be resolved first.
    case uncertain(reason: String?)
    /// It ran, and its outcome is no longer kept.
    case expired
    /// The scope holds as many live keys as it may.
    case tooManyKeys
    /// Its record is of a form this version does not know.
    case unreadable(String)
}

extension Refusal {
    /// Why a claim was not answered with a right to act or a result; `nil` when it was.
    init?(_ result: ClaimResult) {
        switch result {
        case .granted, .completed: return nil
        case .inProgress(let lease): self = .inProgress(lease)
        case .mismatch: self = .mismatch
        case .uncertain(let record): self = .uncertain(reason: record.reason)
        case .expired: self = .expired
        case .tooManyKeys: self = .tooManyKeys
        case .unreadable(let what): self = .unreadable(what)
        }
    }
}

extension Scene {
    /// Claims an operation, waiting for somebody else's run of it as long as the policy says.
    ///
    /// The attempt that is returned is kept alive until it is finished or let go of. Cancelling the task ends the wait;
    /// a claim that was under way is released by its lease.
    // Not public: where the effect is to share the record's transaction, only `perform` keeps that promise.
    package func begin(_ call: OperationCall) async throws(StoreError) -> Beginning {
        try await begin(prepare(call))
    }

    /// A claim that is ready to be said.
    // A reference to what is large: a suspended task keeps room for each copy that it may hold.
    package struct PreparedClaim: Sendable {
        let requests: [ClaimRequest]

        package var id: OperationID { requests[0].id }
        package var fingerprint: Fingerprint { requests[0].fingerprint }
    }

    package func prepare(_ call: OperationCall) -> PreparedClaim { PreparedClaim(requests: [claimRequest(for: call)]) }

    package func begin(_ prepared: PreparedClaim) async throws(StoreError) -> Beginning {
        operations.environment.failpoints.pass(.beforeClaim)
        var results = try await claim(prepared)
        operations.environment.failpoints.pass(.afterClaim)
        if case .inProgress = results[0], case .wait(let limit, let waiters) = policy.onConcurrent,
            operations.waiters.enter(policy.scene, limit: waiters)
        {
            defer { operations.waiters.leave(policy.scene) }
            results = try await waitAndClaim(prepared, upTo: limit)
        }
        let beginning = beginning(of: results, prepared.id)
        return mustBeReconsidered(beginning) ? try await reconsider(beginning, prepared.id) : beginning
    }

    func claimRequest(for call: OperationCall) -> ClaimRequest {
        ClaimRequest(
            id: call.id, fingerprint: call.fingerprint, owner: operations.environment.newOwner(), lease: policy.lease,
            onLapse: active.assessment.onLapse, policy: active.pinned, mode: policy.mode, retention: policy.retention,
            liveLimit: policy.liveKeys, traceID: call.traceID, parent: call.parent)
    }

    /// Repeats a claim until it is answered otherwise than *in progress*, or the time is over. The watch begins before
    /// the claim is repeated, so no wake-up is lost (H40).
    private func waitAndClaim(_ prepared: PreparedClaim, upTo limit: Duration) async throws(StoreError) -> [ClaimResult] {
        let environment = operations.environment
        let deadline = environment.uptime() + limit
        while true {
            let observation = store.observe(prepared.id)
            let results = try await claim(prepared)
            let left = deadline - environment.uptime()
            guard case .inProgress(let lease) = results[0], left > .zero, !Task.isCancelled else { return results }
            // A holder that dies signals nothing: look again when its lease can have lapsed.
            await environment.firstOf(sleeping: min(left, max(lease, .milliseconds(1)))) { await observation.signalled() }
        }
    }

    /// A claim whose answer was lost is said again with the same nonce, and recognises itself (H14).
    private func claim(_ prepared: PreparedClaim) async throws(StoreError) -> [ClaimResult] {
        do {
            return try await store.claim(prepared.requests)
        } catch where error.code == .indeterminate {
            return try await store.claim(prepared.requests)
        }
    }

    @inline(never)
    private func beginning(of results: [ClaimResult], _ id: OperationID) -> Beginning {
        switch results[0] {
        case .granted(let grant):
            let attempt = Attempt(self, id, grant)
            return grant.kind == .verify ? .verify(attempt) : .run(attempt)
        case .completed(let record): return .completed(record)
        case let other: return .refused(Refusal(other) ?? .uncertain(reason: nil))
        }
    }

    private func mustBeReconsidered(_ beginning: Beginning) -> Bool {
        switch beginning {
        case .run(let attempt), .verify(let attempt): targetMayHaveForgotten(attempt)
        case .refused(.uncertain): active.assessment.onLapse == .verify
        default: false
        }
    }

    private func reconsider(_ beginning: Beginning, _ id: OperationID) async throws(StoreError) -> Beginning {
        switch beginning {
        case .run(let attempt), .verify(let attempt):
            _ = try await attempt.suspend(reason: "target-may-have-forgotten")
            return .refused(.uncertain(reason: "target-may-have-forgotten"))
        default:
            // Where the target can be asked, the retry asks it instead of waiting for a resolver.
            guard let attempt = try await verify(id) else { return beginning }
            return .verify(attempt)
        }
    }

    /// Whether a second run comes so late that a target that deduplicates may not know the first one any more (H22).
    private func targetMayHaveForgotten(_ attempt: Attempt) -> Bool {
        guard attempt.grant.attempt > 1, case .deduplicates(let keeps) = policy.effect,
            guarantee == .deduplicatedByTarget
        else { return false }
        return attempt.grant.grantedAt - attempt.grant.createdAt >= keeps
    }

    /// Takes an uncertain or lapsed operation over for asking its target; `nil` when there is nothing to verify.
    public func verify(_ id: OperationID) async throws(StoreError) -> Attempt? {
        let owner = operations.environment.newOwner()
        guard let grant = try await store.verify(id, owner: owner, lease: policy.lease) else { return nil }
        return Attempt(self, id, grant)
    }
}
