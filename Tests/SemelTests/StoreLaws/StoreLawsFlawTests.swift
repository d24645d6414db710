import Semel
import SemelTesting
import Testing

@Suite("The store laws")
struct StoreLawsFlawTests {
    @Test("are all upheld by a store without a flaw that can do everything they need", arguments: StoreLaw.all)
    func areUpheld(_ law: StoreLaw) async throws {
        let verdict = try await law.check(FlawedStore.subject(nil, patience: .seconds(60)))
        #expect(verdict == .upheld)
    }

    @Test("catch the store that", arguments: Flaw.all)
    func catches(_ flaw: Flaw) async throws {
        let violation = await #expect(throws: LawViolation.self, "the law \"\(flaw.law)\" does not see that the store \(flaw)") {
            // Only for a flaw that makes somebody wait for ever may time be what shows it.
            try await flaw.law.check(FlawedStore.subject(flaw, patience: flaw.hangs ? .milliseconds(500) : .seconds(60)))
        }
        let message = try #require(violation).description
        #expect(message.contains(flaw.law.name))
        #expect(message.contains("Expected:") && message.contains("History:"))
    }

    @Test("are never without a flaw that they catch")
    func haveFlaws() {
        let caught = Set(Flaw.all.map(\.law.name))
        #expect(StoreLaw.all.map(\.name).filter { !caught.contains($0) } == [])
    }

    @Test("have names of their own, and name the hazards they guard against by their numbers")
    func areNamed() {
        #expect(Set(StoreLaw.all.map(\.name)).count == StoreLaw.all.count)
        for hazard in StoreLaw.all.flatMap(\.hazards) {
            #expect(hazard.wholeMatch(of: /H([1-9]|[1-5][0-9]|6[01])|R([1-9]|1[0-9])/) != nil)
        }
    }

    @Test("repeat a failure that was found by chance when they are given its seed")
    func areRepeatable() async throws {
        var subject = FlawedStore.subject(.forgetsToVerifyTheThirdTime, patience: .seconds(60))
        let first = try #require(await #expect(throws: LawViolation.self) { try await StoreLaw.rulesHoldByChance.check(subject) })
        let match = try #require(first.history[0].firstMatch(of: /the seed ([0-9]+)/))
        subject = FlawedStore.subject(.forgetsToVerifyTheThirdTime, patience: .seconds(60))
        subject.seed = try #require(UInt64(match.1))
        let second = try #require(await #expect(throws: LawViolation.self) { try await StoreLaw.rulesHoldByChance.check(subject) })
        #expect(second.expected == first.expected && second.actual == first.actual)
        #expect(second.history.count == first.history.count)
    }

    @Test("that need what a store cannot do are reported as not applicable")
    func areReported() async throws {
        var subject = FlawedStore.subject(nil, patience: .seconds(60))
        subject.corrupt = nil
        subject.reopen = nil
        #expect(try await StoreLaw.unknownStatesFailClosed.check(subject) == .notApplicable(missing: [.corruption]))
        #expect(try await StoreLaw.reopeningEndsLeases.check(subject) == .notApplicable(missing: [.reopening, .leasesEndOnReopening]))
        #expect(StoreLaw.notApplicable(to: subject).map(\.name).contains(StoreLaw.unknownStatesFailClosed.name))
    }
}
