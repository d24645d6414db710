import Semel
import SemelTesting
import Testing

@Suite("The memory store")
struct StoreLawsMemoryTests {
    private func subject() -> StoreSubject {
        let clock = ManualStoreClock()
        // The laws count what a purge removes, so the store must not have purged before.
        return StoreSubject(MemoryStore(clock: clock, purgesByItself: false), clock: clock)
    }

    @Test("upholds", arguments: StoreLaw.all)
    func upholds(_ law: StoreLaw) async throws {
        if case .notApplicable(let missing) = try await law.check(subject()) {
            try Test.cancel("not applicable: the memory store has no \(missing.map(\.rawValue).sorted().joined(separator: ", "))")
        }
    }

    @Test("is excused from no law but those about what outlives it, further connections, and records of newer versions")
    func isExcused() {
        let expected: [StoreLaw] = [
            .unknownStatesFailClosed, .signalsCrossConnections, .claimsCrossConnections, .reopeningKeepsEverything,
            .epochsSurviveReopening, .auditSurvivesReopening, .reopeningEndsLeases,
        ]
        #expect(StoreLaw.notApplicable(to: subject()).map(\.name) == expected.map(\.name))
    }
}
