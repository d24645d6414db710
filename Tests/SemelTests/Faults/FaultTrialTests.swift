import Semel
import SemelTesting
import Testing

@Suite("The trial of stores under faults finds who lies")
struct FaultTrialTests {
    /// A store that breaks one promise, each third time.
    private final class Liar: StoreLayer {
        enum Lie: CaseIterable {
            case grantsTwice, forgetsCompletions, deniesWhatItDid, speaksOfSomethingElse, staysAway, losesOutcomes, leavesClaims
        }

        let base = MemoryStore()
        private let other = MemoryStore()
        private let lie: Lie
        private let calls = Locked(0)

        init(_ lie: Lie) { self.lie = lie }

        private var isThird: Bool {
            calls.withLock { calls in
                calls += 1
                return calls % 3 == 0
            }
        }

        func claim(_ requests: [ClaimRequest]) async throws(StoreError) -> [ClaimResult] {
            if lie == .leavesClaims, requests.count == 1, isThird {
                var stray = requests[0]
                stray.id = .sample("stray \(requests[0].id.key.text)")
                _ = try await base.claim(stray)
            }
            let store = lie == .grantsTwice && requests[0].owner.low % 2 == 1 ? other : base
            let results = try await store.claim(requests)
            guard requests.count == 1 else { return results }
            switch lie {
            case .deniesWhatItDid where isThird: throw StoreError(.unavailable, "nothing happened")
            case .speaksOfSomethingElse where isThird: throw StoreError(.misconfigured, "nobody knows")
            case .staysAway where calls.withLock({ $0 += 1; return $0 > 20 }): throw StoreError(.unavailable, "gone for ever")
            default: return results
            }
        }

        func apply(_ transitions: [Transition]) async throws(StoreError) -> [TransitionResult] {
            switch lie {
            case .forgetsCompletions where isThird: return transitions.map { _ in .applied }
            case .losesOutcomes where isThird:
                return try await base.apply(transitions.map { Transition(id: $0.id, token: $0.token, change: .complete(.sample("lost"))) })
            case .grantsTwice:
                let results = try await base.apply(transitions)
                return results == [.applied] ? results : try await other.apply(transitions)
            default: return try await base.apply(transitions)
            }
        }
    }

    @Test("a lie under load is found, and called what it is", arguments: Liar.Lie.allCases)
    private func finds(_ lie: Liar.Lie) async throws {
        let law =
            switch lie {
            case .grantsTwice: "a key is granted once"
            case .forgetsCompletions, .losesOutcomes: "what was acknowledged is there"
            case .deniesWhatItDid: "what is said not to have happened has not"
            case .speaksOfSomethingElse: "a fault is told as what it is"
            case .staysAway: "under faults a store goes on by itself"
            case .leavesClaims: "nothing is left behind"
            }
        // Only who stays away is waited for.
        let trial = FaultTrial(patience: lie == .staysAway ? .milliseconds(300) : .seconds(120))
        let error = await #expect(throws: LawViolation.self) { try await trial.run(Liar(lie)) { try await $0.untilCompleted(20) } }
        #expect(error?.law == law)
    }

    @Test("a store that is away, and one whose answers are lost, pass")
    func honest() async throws {
        let store = InterruptibleStore(MemoryStore())
        let load = try await FaultTrial().run(store) { load in
            for fault in [InterruptibleStore<MemoryStore>.Connection.down, .losesAnswers] {
                try await load.untilCompleted(50)
                store.set(fault)
                try await load.untilErrors(20)
                store.set(.up)
            }
        }
        #expect(load.refused > 0)
        #expect(Set(load.errors.keys) == [.unavailable, .indeterminate])
        #expect(load.completed >= 150)
    }
}
