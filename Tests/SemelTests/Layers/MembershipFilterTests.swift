import Semel
import SemelTesting
import Testing

@Suite("The membership filter")
struct MembershipFilterTests {
    private func request(_ key: String, owner: Owner = .ada) -> ClaimRequest {
        ClaimRequest(
            id: .sample(key), fingerprint: .sample("payload"), owner: owner, lease: .seconds(30), onLapse: .uncertain, policy: .sample)
    }

    @Test("skips the read of new keys and reads those that are repeated, in one process and after it was saved and restored")
    func skipsReads() async throws {
        let base = MemoryStore()
        let filter = MembershipFilter(base, capacity: 1000)
        for number in 0..<200 {
            guard case .granted(let grant) = try await filter.claim(request("\(number)")) else {
                return _ = Issue.record("a new key is granted")
            }
            #expect(try await filter.apply(.complete(.sample()), to: .sample("\(number)"), token: grant.token) == .applied)
        }
        #expect(filter.readCounts.skipped >= 195)
        let restored = try MembershipFilter(base, restoring: filter.saved())
        for number in 0..<200 { #expect(try await restored.claim(request("\(number)", owner: .ben)).replayed == .sample()) }
        #expect(restored.readCounts.made == 200)
    }

    @Test("decides nothing: a key it does not know is the store's to answer (R5, H32)")
    func decidesNothing() async throws {
        let base = MemoryStore()
        let (one, other) = (MembershipFilter(base), MembershipFilter(base))
        #expect(try await one.claim(request("key")).isGranted)
        #expect(try await other.claim(request("key", owner: .ben)).isInProgress)
    }

    @Test("goes on when it is full, and forgets the oldest half")
    func rotates() async throws {
        let filter = MembershipFilter(MemoryStore(), capacity: 50)
        for number in 0..<500 { #expect(try await filter.claim(request("\(number)")).isGranted) }
        #expect(try await filter.claim(request("3", owner: .ben)).isInProgress)
    }

    @Test("refuses saved bytes that are damaged")
    func refusesDamage() {
        var bytes = MembershipFilter(MemoryStore(), capacity: 10).saved()
        bytes[bytes.count / 3] ^= 4
        #expect(throws: BlockedBloomFilter.RestoreError.self) { try MembershipFilter(MemoryStore(), restoring: bytes) }
    }
}
