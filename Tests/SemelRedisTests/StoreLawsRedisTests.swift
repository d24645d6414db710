import Foundation
import Semel
@testable import SemelRedis
import SemelTesting
import Testing

/// The laws wait for the server's own clock, so many run at once.
@Suite("Redis upholds the store laws")
struct StoreLawsRedisTests {
    private func check(_ law: StoreLaw, cluster: Bool) async throws {
        let location = try SharedRedis.location(cluster: cluster)
        let configuration = RedisStore.Configuration(purgesByItself: false)
        let store = try await RedisStore(location, configuration: configuration)
        // Long against a round trip, also while hundreds of other laws share two cores.
        var subject = StoreSubject(store, moment: .milliseconds(600))
        subject.reopen = { try await RedisStore(location, configuration: configuration) }
        subject.connect = { try await RedisStore(location, configuration: configuration) }
        subject.corrupt = { id, state in try await store.plant(state: state, in: id) }
        if case .notApplicable(let missing) = try await law.check(subject) {
            try Test.cancel("not applicable: a Redis has no \(missing.map(\.rawValue).sorted().joined(separator: ", "))")
        }
    }

    @Test("upholds, alone", arguments: StoreLaw.all)
    func upholds(_ law: StoreLaw) async throws { try await check(law, cluster: false) }

    @Test("upholds, as a cluster of three", arguments: StoreLaw.all)
    func upholdsAsCluster(_ law: StoreLaw) async throws { try await check(law, cluster: true) }

    @Test("is excused from no law but those about a clock that can be set and leases that rest on a process")
    func isExcused() async throws {
        let store = try await SharedRedis.store()
        var subject = StoreSubject(store)
        subject.reopen = { store }
        subject.connect = { store }
        subject.corrupt = { _, _ in }
        let expected: [StoreLaw] = [.epochsSurviveABackwardClock, .reopeningEndsLeases]
        #expect(StoreLaw.notApplicable(to: subject).map(\.name) == expected.map(\.name))
    }
}
