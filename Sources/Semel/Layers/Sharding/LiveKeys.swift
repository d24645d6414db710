internal import SemelCore

/// The live keys of each scope over all shards, as this process knows them: the limit of a scope is for all shards
/// together, and no shard sees more than its own.
struct LiveKeys {
    private var keys: [Scope: Set<OperationKey>] = [:]
    /// Claims on their way that may add one.
    private var expected: [Scope: Int] = [:]
    /// Scopes whose count may be too high: an answer was lost.
    private(set) var doubtful: Set<Scope> = []

    mutating func insert(_ id: OperationID) { keys[id.scope, default: []].insert(id.key) }

    mutating func remove(_ id: OperationID) {
        keys[id.scope]?.remove(id.key)
        if keys[id.scope]?.isEmpty == true { keys[id.scope] = nil }
    }

    func count(_ scope: Scope) -> Int { (keys[scope]?.count ?? 0) + (expected[scope] ?? 0) }

    /// Takes room for a batch's claims, all or none. Those without a limit take room from those with one.
    mutating func expect(_ requests: [ClaimRequest]) -> Bool {
        var wanted: [Scope: Int] = [:]
        for request in requests {
            wanted[request.id.scope, default: 0] += 1
            if let limit = request.liveLimit, count(request.id.scope) + wanted[request.id.scope]! > limit { return false }
        }
        for (scope, number) in wanted { expected[scope, default: 0] += number }
        return true
    }

    mutating func expectNoMore(_ requests: [ClaimRequest]) {
        for request in requests {
            let rest = (expected[request.id.scope] ?? 1) - 1
            expected[request.id.scope] = rest == 0 ? nil : rest
        }
    }

    mutating func learn(_ result: ClaimResult, of id: OperationID) {
        switch result {
        case .granted: insert(id)
        case .completed, .expired: remove(id)
        case .inProgress, .mismatch, .uncertain, .tooManyKeys, .unreadable: break
        }
    }

    mutating func learn(_ result: TransitionResult, of transition: Transition) {
        guard result == .applied else { return }
        switch transition.change {
        case .complete, .release: remove(transition.id)
        case .suspend, .stream, .renew, .proceed: break
        }
    }

    /// After a lost answer the key may be live.
    mutating func doubt(_ id: OperationID) {
        insert(id)
        doubtful.insert(id.scope)
    }

    mutating func settle(_ scope: Scope, as found: Set<OperationKey>) {
        keys[scope] = found.isEmpty ? nil : found
        doubtful.remove(scope)
    }
}
