internal import SemelCore

/// The map as it is kept in the home shard: each epoch's is the outcome of an operation of its own, so at most one process
/// makes the map of an epoch, and none is ever overwritten.
struct ShardMapRecord {
    let home: any OperationStore
    let environment: Environment

    static let scope = Scope("semel", "shard-map")
    private static let policy = PinnedPolicy(scene: "semel shard map", text: "kept as long as the store")
    private static let forEver = Duration.seconds(200 * 365 * 24 * 3600)

    static func id(_ epoch: UInt64) -> OperationID {
        guard let key = try? OperationKey("map \(epoch)") else { preconditionFailure("a number makes a key") }
        return OperationID(scope: scope, key: key)
    }

    /// The newest map, or `nil` when there is none yet.
    func newest() async throws(StoreError) -> ShardMap? {
        var found: ShardMap?
        while true {
            guard let record = try await home.record(of: Self.id((found?.epoch ?? 0) + 1)), record.state == .completed else { return found }
            guard let outcome = record.outcome, case .kept(let bytes) = outcome.body else {
                throw StoreError(
                    .damaged, "the shard map of epoch \((found?.epoch ?? 0) + 1) has lost its content; restore the home shard from a backup"
                )
            }
            found = try ShardMap(decoding: bytes)
        }
    }

    /// Makes a map the one that holds.
    /// - Throws: `inUse` when another process made, or is making, the map of this epoch. After `indeterminate` nobody knows.
    func publish(_ map: ShardMap) async throws(StoreError) {
        let bytes = map.encoded()
        let request = ClaimRequest(
            id: Self.id(map.epoch), fingerprint: Fingerprint(of: bytes), owner: environment.newOwner(), lease: .seconds(30),
            onLapse: .reclaim, policy: Self.policy, retention: Retention(response: Self.forEver, key: Self.forEver))
        let result = try await repeating { () async throws(StoreError) in try await home.claim(request) }
        switch result {
        case .granted(let grant):
            let applied = try await repeating { () async throws(StoreError) in
                try await home.apply(.complete(Outcome(body: .kept(bytes))), to: request.id, token: grant.token)
            }
            guard applied == .applied else { throw StoreError(.inUse, "another process makes the shard map of epoch \(map.epoch)") }
        case .completed(let record) where record.outcome?.body == .kept(bytes):
            return
        default:
            throw StoreError(.inUse, "another process made, or is making, the shard map of epoch \(map.epoch)")
        }
    }

    /// A lost answer is found out by saying the same again.
    private func repeating<Value>(_ body: () async throws(StoreError) -> Value) async throws(StoreError) -> Value {
        for _ in 0..<3 {
            do throws(StoreError) { return try await body() } catch  where error.code == .indeterminate {}
        }
        return try await body()
    }
}
