internal import Semel

/// The name of a policy inside a record: the first four bytes of its hash, so that it means the same whoever writes it
/// down, also after Redis has forgotten.
struct PolicyNumber: Hashable, Sendable, RawRepresentable, CustomStringConvertible {
    let rawValue: UInt32

    init(rawValue: UInt32) { self.rawValue = rawValue }

    init(_ hash: PolicyHash) { rawValue = UInt32(truncatingIfNeeded: hash.high >> 32) }

    var description: String { String(rawValue, radix: 16) }
}

/// The texts of the policies that records are pinned to, in one hash on the server by their numbers.
final class Policies: Sendable {
    private struct State {
        /// Those known to be kept by the server as it is now.
        var confirmed: Set<PolicyHash> = []
        var known: [PolicyNumber: PinnedPolicy] = [:]
    }

    private let client: RedisClient
    private let key: [UInt8]
    private let slot: HashSlot
    private let state = Locked(State())

    init(_ client: RedisClient, _ keys: KeySpace) {
        self.client = client
        key = Array(keys.policies.utf8)
        slot = HashSlot(of: key)
    }

    /// After a reconnection the server may be one that has forgotten.
    func doubt() { state.withLock { $0.confirmed = [] } }

    func isKept(_ policy: PinnedPolicy) -> Bool { state.withLock { $0.confirmed.contains(policy.hash) } }

    /// Makes sure that the server keeps a policy before a record names it.
    func keep(_ policy: PinnedPolicy) async throws(StoreError) {
        if isKept(policy) { return }
        let number = Self.field(PolicyNumber(policy.hash))
        let text = Self.encode(policy)
        let replies = try await client.send([
            (RedisCommand("HSETNX", [key, number, text]), slot), (RedisCommand("HGET", [key, number]), slot),
        ])
        for case .error(let text) in replies { throw .refusal(text, by: "\(client.location)") }
        guard let kept = replies[1].bytes.flatMap(Self.decode), kept == policy else {
            throw StoreError(
                .refused,
                "Another policy has the number of the policy of \(policy.scene) in this store. Remedy: change any word of one of the two.")
        }
        state.withLock { state in
            state.confirmed.insert(policy.hash)
            state.known[PolicyNumber(policy.hash)] = policy
        }
    }

    /// What is known without asking.
    func known(_ number: PolicyNumber) -> PinnedPolicy? { state.withLock { $0.known[number] } }

    func policy(_ number: PolicyNumber) async throws(StoreError) -> PinnedPolicy? {
        if let policy = known(number) { return policy }
        let reply = try await client.send(RedisCommand("HGET", [key, Self.field(number)]), slot)
        if case .error(let text) = reply { throw .refusal(text, by: "\(client.location)") }
        guard let policy = reply.bytes.flatMap(Self.decode), PolicyNumber(policy.hash) == number else { return nil }
        state.withLock { $0.known[number] = policy }
        return policy
    }

    func policy(_ hash: PolicyHash) async throws(StoreError) -> PinnedPolicy? {
        let policy = try await policy(PolicyNumber(hash))
        return policy?.hash == hash ? policy : nil
    }

    private static func field(_ number: PolicyNumber) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendNumber(UInt64(number.rawValue), bytes: 4)
        return bytes
    }

    private static func encode(_ policy: PinnedPolicy) -> [UInt8] {
        var writer = ByteWriter()
        writer.writeLengthPrefixed(policy.scene)
        writer.writeLengthPrefixed(policy.text)
        return writer.bytes
    }

    private static func decode(_ bytes: [UInt8]) -> PinnedPolicy? {
        var reader = ByteReader(bytes)
        // Bytes that are no policy are none that this store kept.
        guard let scene = try? reader.readLengthPrefixedText(), let text = try? reader.readLengthPrefixedText() else { return nil }
        return PinnedPolicy(scene: scene, text: text)
    }
}
