import Foundation
import ChildProcesses
import Semel
@testable import SemelRedis
import SemelTesting
import Testing

/// The laws let time pass by asking the scripts for no less than a later time, which is how a process whose server's clock
/// was set back goes on: everything is as on the server's own clock, and nobody waits. Some laws also wait for that clock.
@Suite("Redis upholds the store laws")
struct StoreLawsRedisTests {
    private static let turnstile = Turnstile(8)

    /// A fresh one, under a prefix of its own.
    /// - Parameter moment: `nil` where time passes at once.
    private func subject(cluster: Bool, moment: Duration? = nil) async throws -> (StoreSubject, RedisStore) {
        try await subject(at: try await SharedRedis.location(cluster: cluster), moment: moment)
    }

    private func subject(at location: RedisLocation, moment: Duration? = nil) async throws -> (StoreSubject, RedisStore) {
        let configuration = RedisStore.Configuration(patience: .seconds(60), purgesByItself: false)
        let time = SeenTime(isShared: true)
        @Sendable func open() async throws -> RedisStore {
            try await RedisStore(location, configuration: configuration, time: moment == nil ? time : nil)
        }
        let store = try await open()
        // Each of the many steps by chance is a round trip, and others compare the rules with more of them.
        var subject = StoreSubject(store, moment: moment ?? .seconds(60))
        if moment == nil { subject.elapse = { time.pass($0, from: SystemStoreClock().now().retention) } }
        subject.reopen = { try await open() }
        subject.connect = { try await open() }
        subject.corrupt = { id, state in try await store.plant(state: state, in: id) }
        return (subject, store)
    }

    private func check(_ law: StoreLaw, cluster: Bool) async throws {
        await Self.turnstile.enter()
        defer { Self.turnstile.leave() }
        let (subject, store) = try await subject(cluster: cluster)
        let verdict = try await law.check(subject)
        try await store.erase()
        if case .notApplicable(let missing) = verdict {
            try Test.cancel("not applicable: a Redis has no \(missing.map(\.rawValue).sorted().joined(separator: ", "))")
        }
    }

    @Test("upholds, alone", arguments: StoreLaw.all)
    func upholds(_ law: StoreLaw) async throws { try await check(law, cluster: false) }

    @Test("upholds, as a cluster of three", arguments: StoreLaw.all)
    func upholdsAsCluster(_ law: StoreLaw) async throws { try await check(law, cluster: true) }

    @Test("upholds, by the server's own clock", arguments: StoreLaw.realTime)
    func upholdsInRealTime(_ law: StoreLaw) async throws {
        var stores: [RedisStore] = []
        let verdict = try await law.check(moment: .seconds(1)) { moment in
            let (subject, store) = try await subject(cluster: false, moment: moment)
            stores.append(store)
            return subject
        }
        #expect(verdict == .upheld)
        for store in stores { try await store.erase() }
    }

    private func subject() async throws -> StoreSubject {
        let store = try await SharedRedis.store()
        var subject = StoreSubject(store)
        subject.reopen = { store }
        subject.connect = { store }
        subject.corrupt = { _, _ in }
        return subject
    }

    @Test("has the row of the README's guarantee table that its capabilities give")
    func row() async throws {
        let row = GuaranteeRow("Redis, its Cluster, as most are set up", try await subject())
        let readme = try Repository.text(of: "README.md")
        #expect(row.isIn(readme), "README.md lacks this row: \(row.markdown)")
    }

    @Test("upholds, with every write synced; and has a row of its own, which keeps more, and is an authority no more than others")
    func synced() async throws {
        await Self.turnstile.enter()
        defer { Self.turnstile.leave() }
        let server = try await RedisServer(["--appendfsync", "always"])
        func fresh() async throws -> (StoreSubject, RedisStore) {
            var location = try RedisLocation(server.url)
            location.prefix = "t\(UUID().uuidString.prefix(8)):"
            return try await subject(at: location)
        }
        let row = GuaranteeRow("Redis alone, every write synced", try await fresh().0)
        for law in StoreLaw.all {
            let (subject, store) = try await fresh()
            if case .notApplicable = try await law.check(subject) {
                #expect([.epochsSurviveABackwardClock, .reopeningEndsLeases].map(\StoreLaw.name).contains(law.name))
            }
            try await store.erase()
        }
        let readme = try Repository.text(of: "README.md")
        #expect(row.isIn(readme), "README.md lacks this row: \(row.markdown)")
    }

    @Test("is excused from no law but those about a clock that can be set and leases that rest on a process")
    func isExcused() async throws {
        let subject = try await subject()
        let expected: [StoreLaw] = [.epochsSurviveABackwardClock, .reopeningEndsLeases]
        #expect(StoreLaw.notApplicable(to: subject).map(\.name) == expected.map(\.name))
    }
}
