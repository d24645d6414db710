#if Postgres
import Semel

/// The policies that records are pinned to. There are few, so those met are in memory; rows name them by a small number.
final class Policies: Sendable {
    private struct State {
        var numbers: [PolicyHash: Int32] = [:]
        var kept: [Int32: PinnedPolicy] = [:]
    }

    private let state = Locked(State())
    private let schema: String

    init(schema: String) { self.schema = schema }

    var count: Int { state.withLock { $0.kept.count } }
    func number(of hash: PolicyHash) -> Int32? { state.withLock { $0.numbers[hash] } }
    func known(_ number: Int32) -> PinnedPolicy? { state.withLock { $0.kept[number] } }

    /// The policy under a number, looked up in the table when it is not known yet.
    func policy(_ number: Int32, _ connection: Connection, within time: Duration) throws -> PinnedPolicy? {
        if let policy = known(number) { return policy }
        try load(connection, "WHERE number = \(number)", Parameters(), within: time)
        return known(number)
    }

    func policy(_ hash: PolicyHash, _ connection: Connection, within time: Duration) throws -> PinnedPolicy? {
        if let number = number(of: hash) { return known(number) }
        try load(connection, "WHERE hash = $1::uuid", Self.parameters(hash), within: time)
        return number(of: hash).flatMap(known)
    }

    /// Keeps a policy, before the first claim under it. In a transaction of its own: others may keep the same now.
    func keep(_ policy: PinnedPolicy, _ connection: Connection, within time: Duration) throws {
        guard number(of: policy.hash) == nil else { return }
        if try self.policy(policy.hash, connection, within: time) != nil { return }
        var parameters = Self.parameters(policy.hash)
        parameters.add(Array(policy.scene.utf8))
        parameters.add(Array(policy.text.utf8))
        let insert = "INSERT INTO \(schema).policy (hash, scene, text) VALUES ($1::uuid, $2::bytea, $3::bytea) ON CONFLICT DO NOTHING"
        _ = try connection.run([.text(insert, parameters)], within: time)[0].get()
        try load(connection, "WHERE hash = $1::uuid", Self.parameters(policy.hash), within: time)
    }

    /// All that the table has.
    func loadAll(_ connection: Connection, within time: Duration) throws {
        try load(connection, "", Parameters(), within: time)
    }

    private func load(_ connection: Connection, _ condition: String, _ parameters: Parameters, within time: Duration) throws {
        let rows = try connection.run([.text("SELECT number, scene, text FROM \(schema).policy \(condition)", parameters)], within: time)[0].get()
        state.withLock { state in
            for row in 0..<rows.count {
                let policy = PinnedPolicy(scene: rows.text(row, 1), text: rows.text(row, 2))
                let number: Int32 = rows.integer(row, 0)
                state.numbers[policy.hash] = number
                state.kept[number] = policy
            }
        }
    }

    private static func parameters(_ hash: PolicyHash) -> Parameters {
        var parameters = Parameters()
        parameters.add(OperationReference(high: hash.high, low: hash.low))
        return parameters
    }
}
#endif
