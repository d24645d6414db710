import HTTPTypes
import Hummingbird
import NIOCore
import Semel
import SemelHTTP
import SemelHummingbird
import SemelTesting
import Testing

@Suite("Effects that can be asked")
struct VerificationTests {
    private let policy = HTTPPolicy.test(effect: .queryable(inFlight: .zero, isFenced: true))

    /// A first request that is lost on the way.
    private func losing(_ runs: Tally) -> TestService.Handler {
        { _, _ in
            if runs.add() == 1 { throw UpstreamFailure.lost("gone", timedOut: true) }
            return Response(status: .created, body: ResponseBody(byteBuffer: ByteBuffer(string: "ran again")))
        }
    }

    @Test("a lost request whose effect had happened is completed with what the target said, and replayed (H2)")
    func applied() async throws {
        let epochs = Locked([Epoch]())
        try await TestService.run(policy, verify: { attempt in
            epochs.withLock { $0.append(attempt.epoch) }
            return .applied(Outcome(status: 201, fields: [.init("Content-Type", "text/plain")], body: .kept(Array("as it was".utf8))))
        }, handler: losing(Tally())) { service async throws in
            #expect(try await service.send().status == 504)
            for _ in 1...2 {
                let reply = try await service.send()
                #expect(reply.status == 201 && reply.text == "as it was" && reply.isReplay && reply["Content-Type"] == "text/plain")
                #expect(reply["Semel-Guarantee"] == "fencedAndVerified")
            }
            #expect(service.runs.count == 1 && epochs.withLock { $0.count } == 1)
        }
    }

    @Test("one that is known to have happened, and no more, is 409 outcome-unavailable")
    func appliedWithoutOutcome() async throws {
        try await TestService.run(policy, verify: { _ in .applied(nil) }, handler: losing(Tally())) { service async throws in
            _ = try await service.send()
            #expect(try await service.send().code == "outcome-unavailable")
            #expect(service.runs.count == 1)
        }
    }

    @Test("one whose effect had not happened runs, under the epoch of the question")
    func notApplied() async throws {
        let asked = Locked(Epoch.zero)
        try await TestService.run(policy, verify: { attempt in
            asked.withLock { $0 = attempt.epoch }
            return .notApplied
        }, handler: losing(Tally())) { service async throws in
            _ = try await service.send()
            let reply = try await service.send()
            #expect(reply.text == "ran again" && !reply.isReplay && service.runs.count == 2)
            #expect(try await service.send().isReplay)
        }
        #expect(asked.withLock { $0 } > .zero)
    }

    @Test("one that the target cannot tell about, or that nobody can ask about, stays uncertain", arguments: [0, 1, 2])
    func unknown(_ kind: Int) async throws {
        struct Unreachable: Error {}
        let verifications: [IdempotencyMiddleware<BasicRequestContext>.Verify?] = [
            { _ in .unknown }, { (_: Attempt) async throws -> Verification<Outcome?> in throw Unreachable() }, nil,
        ]
        let store = StoreDouble.durable()
        try await TestService.run(policy, store: store, verify: verifications[kind], handler: losing(Tally())) { service async throws in
            _ = try await service.send()
            #expect(try await service.send().code == "outcome-uncertain")
            #expect(try await store.record()?.state == .uncertain)
            #expect(service.runs.count == 1)
        }
    }

    @Test("the target is not asked before nothing of the lost request can still be under way")
    func inFlight() async throws {
        let clock = ManualClock()
        let store = StoreDouble.durable(clock: ManualStoreClock())
        let asked = Tally()
        try await TestService.run(.test(effect: .queryable(inFlight: .seconds(20), isFenced: false)), store: store, environment: clock.environment(), verify: { _ in
            asked.add()
            return .notApplied
        }, handler: losing(Tally())) { service async throws in
            _ = try await service.send()
            async let second = service.send()
            // The heartbeat and the wait.
            await clock.sleepers(atLeast: 2)
            clock.advance(by: .seconds(19))
            #expect(asked.count == 0)
            clock.advance(by: .seconds(1))
            #expect(try await second.text == "ran again")
            #expect(asked.count == 1)
        }
    }

    @Test("how long that is, the policy says under which the lost request was claimed (H57)", arguments: [true, false])
    func inFlightAsPinned(isFencedNow: Bool) async throws {
        let clock = ManualClock()
        let store = StoreDouble.durable(clock: ManualStoreClock(), isTransactional: true)
        let runs = Tally()
        try await TestService.run(
            .test(effect: .queryable(inFlight: .seconds(20), isFenced: false)), store: store, environment: clock.environment(), handler: losing(runs)
        ) { service async throws in
            _ = try await service.send()
        }
        let askedAt = Locked([Duration]())
        try await TestService.run(
            .test(effect: .queryable(inFlight: .seconds(1), isFenced: isFencedNow)), store: store, environment: clock.environment(seed: 2),
            verify: { _ in
                askedAt.withLock { $0.append(clock.now.offset) }
                return .notApplied
            }, handler: losing(runs)
        ) { service async throws in
            async let second = service.send()
            while askedAt.withLock({ $0.isEmpty }) && clock.now.offset < .seconds(20) {
                // The heartbeat and, as it should be, the wait.
                await clock.sleepers(atLeast: 1)
                try await ContinuousClock().sleep(for: .milliseconds(20))
                clock.advance(by: .seconds(1))
            }
            #expect(try await second.text == "ran again")
        }
        #expect(askedAt.withLock { $0 } == [.seconds(20)])
    }
}
