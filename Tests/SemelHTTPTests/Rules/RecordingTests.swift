import HTTPTypes
import Hummingbird
import NIOCore
import Semel
import SemelHTTP
import SemelTesting
import Testing

@Suite("What is recorded")
struct RecordingTests {
    @Test("every final answer of a handler that started is recorded", arguments: [200, 201, 204, 303, 400, 401, 404, 409, 410, 422, 499])
    func recorded(_ status: Int) async throws {
        try await TestService.run(handler: { _, _ in Response(status: .init(code: status)) }) { service async throws in
            #expect(try await service.send().status == status)
            let replay = try await service.send()
            #expect(replay.status == status && replay.isReplay && service.runs.count == 1)
        }
    }

    @Test("statuses that mean not started are given on and release the key (H38)", arguments: [408, 425, 429])
    func notStarted(_ status: Int) async throws {
        let runs = Tally()
        try await TestService.run(handler: { _, _ in
            Response(status: .init(code: runs.add() == 1 ? status : 200), headers: [.retryAfter: "7"])
        }) { service async throws in
            let first = try await service.send()
            #expect(first.status == status && first["Retry-After"] == "7" && first.code == nil && first["Idempotency-Key-Expires"] == nil)
            #expect(service.events.all == ["started", "released \(status)"])
            let second = try await service.send()
            #expect(second.status == 200 && !second.isReplay)
            #expect(try await service.send().isReplay)
        }
    }

    @Test("what fails before the handler starts is not recorded (H38)")
    func nothingBefore() async throws {
        let store = StoreDouble.durable()
        try await TestService.run(.test { $0.requestLimit = 10 }, store: store) { service async throws in
            _ = try await service.send(key: "bad")
            _ = try await service.send(body: String(repeating: "x", count: 11))
            #expect(try await store.record() == nil)
            #expect(service.events.all == ["rejected key-malformed", "rejected request-too-large"])
        }
    }

    @Test(
        "a 5xx or a thrown error is recorded, reruns, or leaves the operation uncertain, as the policy says",
        arguments: [ErrorRule.replay, .rerun, .uncertain], [true, false])
    func errors(_ rule: ErrorRule, throwing: Bool) async throws {
        struct Broken: Error {}
        let runs = Tally()
        try await TestService.run(.test(effect: .deduplicates(keeps: .seconds(86_400)), onError: rule), handler: { _, _ in
            guard runs.add() == 1 else { return Response(status: .ok) }
            if throwing { throw Broken() }
            return Response(status: .serviceUnavailable, body: ResponseBody(byteBuffer: ByteBuffer(string: "broken")))
        }) { service async throws in
            let first = try await service.send()
            #expect(first.status == (throwing ? 500 : 503) && first.code == nil && (throwing || first.text == "broken"))
            #expect((first["Idempotency-Key-Expires"] != nil) == (rule == .replay))
            let second = try await service.send()
            switch rule {
            case .replay: #expect(second.isReplay && second.status == first.status && second.body == first.body && service.runs.count == 1)
            case .rerun: #expect(second.status == 200 && !second.isReplay && service.runs.count == 2)
            case .uncertain: #expect(second.code == "outcome-uncertain" && service.runs.count == 1)
            }
        }
    }

    @Test("without a rule an effect that deduplicates reruns after a 500, and one nothing is known about is uncertain")
    func errorDefaults() async throws {
        for (effect, status) in [(Effect.deduplicates(keeps: .seconds(86_400)), 200), (.unknown, 409)] {
            let runs = Tally()
            try await TestService.run(.test(effect: effect), handler: { _, _ in Response(status: runs.add() == 1 ? .internalServerError : .ok) }) { service async throws in
                #expect(try await service.send().status == 500)
                #expect(try await service.send().status == status)
            }
        }
    }

    @Test("an error that answers for itself is a response like any other")
    func responseErrors() async throws {
        try await TestService.run(handler: { _, _ in throw HTTPError(.unprocessableContent, message: "no amount") }) { service async throws in
            let first = try await service.send()
            #expect(first.status == 422 && first.text.contains("no amount") && first.code == nil)
            let second = try await service.send()
            #expect(second.isReplay && second.body == first.body && service.runs.count == 1)
        }
    }

    @Test("an error that proves that nothing was applied releases the key at every level")
    func notApplied() async throws {
        struct Unreachable: NotApplied {}
        let runs = Tally()
        try await TestService.run(handler: { _, _ in
            if runs.add() == 1 { throw Unreachable() }
            return Response(status: .ok)
        }) { service async throws in
            #expect(try await service.send().code == "upstream-refused")
            #expect(try await service.send().status == 200)
        }
    }

    @Test("the outcome is durable before its first byte is sent (R19)")
    func persistedBeforeReply() async throws {
        let store = StoreDouble.durable()
        let (recording, mayRecord) = (Gate(), Gate())
        store.set { faults in
            faults.beforeApply = { transition in
                guard case .complete = transition.change else { return }
                recording.open()
                await mayRecord.pass()
            }
        }
        try await TestService.run(store: store) { service async throws in
            let replies = Tally()
            async let first = service.send(countingIn: replies)
            await recording.pass()
            // What was ready to be sent would have arrived before all these.
            for _ in 0..<20 { _ = try await service.send(.get, "/other", key: nil, body: "") }
            #expect(replies.count == 0)
            #expect(try await store.record()?.state == .claimed)
            mayRecord.open()
            #expect(try await first.status == 201)
            #expect(try await store.record()?.state == .completed)
        }
    }

    @Test("an answer that could not be recorded is not given, and the key stays claimed (503 outcome-uncertain)")
    func unrecorded() async throws {
        let store = StoreDouble.durable()
        store.set { $0.apply = StoreError(.full, "no space") }
        try await TestService.run(store: store) { service async throws in
            let reply = try await service.send()
            #expect(reply.status == 503 && reply.code == "outcome-uncertain" && reply["Retry-After"] == "1" && reply.json?["safe_new_key"]?.bool == false)
            #expect(service.runs.count == 1 && service.events.all.contains("unrecorded full"))
            #expect(try await service.send().code == "in-progress")
        }
        // Where the policy runs without a store anyway, the client gets its answer, at the level that still holds.
        try await TestService.run(.test(onStoreFailure: .open), store: store) { service async throws in
            let reply = try await service.send(key: #""other""#)
            #expect(reply.status == 201 && reply["Semel-Guarantee"] == "bestEffort" && reply["Idempotency-Key-Expires"] == nil)
        }
    }

    @Test("a short outage while recording is waited out")
    func outageWhileRecording() async throws {
        let store = StoreDouble.durable()
        let tries = Tally()
        store.set { faults in
            faults.apply = StoreError(.unavailable, "gone")
            faults.beforeApply = { _ in if tries.add() == 3 { store.set { $0.apply = nil; $0.beforeApply = nil } } }
        }
        try await TestService.run(store: store) { service async throws in
            #expect(try await service.send().status == 201)
            #expect(try await service.send().isReplay)
            #expect(tries.count >= 3)
        }
    }

    @Test("a zombie's answer is not given: what its successor recorded stands (H5, H6, R13, R17)", arguments: [200, 429, 500])
    func superseded(_ status: Int) async throws {
        let clock = ManualStoreClock()
        let store = StoreDouble.durable(clock: clock)
        let (started, gate) = (Gate(), Gate())
        let runs = Tally()
        let policy = HTTPPolicy.test(effect: .deduplicates(keeps: .seconds(86_400)))
        try await TestService.run(policy, store: store, handler: { _, _ in
            guard runs.add() == 1 else { return Response(status: .created, body: ResponseBody(byteBuffer: ByteBuffer(string: "successor"))) }
            started.open()
            await gate.pass()
            return Response(status: .init(code: status), body: ResponseBody(byteBuffer: ByteBuffer(string: "zombie")))
        }) { service async throws in
            async let zombie = service.send()
            await started.pass()
            clock.advance(by: .seconds(31))
            #expect(try await service.send().text == "successor")
            gate.open()
            let late = try await zombie
            #expect(late.text == "successor" && late.isReplay && late.status == 201)
            let record = try #require(try await store.record())
            #expect(record.state == .completed && record.outcome?.body == .kept(Array("successor".utf8)))
        }
    }

    @Test("a request that lost its claim while it waited for its turn does not run when that comes (H5)")
    func supersededWhileWaiting() async throws {
        let clock = ManualStoreClock()
        let store = StoreDouble.durable(clock: clock)
        let (waiting, turn) = (Gate(), Gate())
        let policy = HTTPPolicy.test(effect: .deduplicates(keeps: .seconds(86_400)), lease: .milliseconds(300))
        let attempts = Attempts()
        let scene = try HTTPScene(policy, operations: Operations(store: store), observer: attempts)
        let request = HTTPRequest(method: .post, scheme: nil, authority: nil, path: "/", headerFields: [.idempotencyKey: "\"key-1\""])
        let runs = Tally()
        func respond(admission: (@Sendable () async -> Void)?) async throws -> HTTPAnswer {
            try await scene.respond(to: HTTPExchange(request, admission: admission), body: RequestBody(buffer: ByteBuffer())) { _ in
                HTTPAnswer(HTTPResponse(status: .init(code: runs.add() == 1 ? 201 : 500)))
            }
        }
        async let late = respond {
            waiting.open()
            await turn.pass()
        }
        await waiting.pass()
        let first = attempts.begun[0]
        #expect(runs.count == 0)
        // Its heartbeat may come in between, and then the claim lapses at the next advance.
        var status = 0
        while status != 201 {
            clock.advance(by: .seconds(1))
            status = try await respond(admission: nil).head.status.code
        }
        // The next heartbeat is refused.
        while first.end == nil { try await Task.sleep(for: .milliseconds(5)) }
        turn.open()
        let answer = try await late
        #expect(first.end == .leaseLost && runs.count == 1)
        #expect(answer.head.status.code == 201 && answer.head.headerFields[.idempotentReplayed] == "true")
    }

    /// Keeps the attempts that were begun.
    private final class Attempts: HTTPObserver {
        private let all = Locked([Attempt]())

        var begun: [Attempt] { all.withLock { $0 } }

        func observe(_ event: HTTPEvent, scene: Scene, operation: OperationID?) {
            if case .started(let attempt) = event { all.withLock { $0.append(attempt) } }
        }
    }

    @Test("a zombie whose key is another request's by now is told so, and shown nothing of it", arguments: [200, 429, 500])
    func supersededByAnother(_ status: Int) async throws {
        let clock = ManualStoreClock()
        let store = StoreDouble.durable(clock: clock, isTransactional: true)
        let (started, gate) = (Gate(), Gate())
        let runs = Tally()
        try await TestService.run(store: store, handler: { _, _ in
            guard runs.add() == 1 else { return Response(status: .created, body: ResponseBody(byteBuffer: ByteBuffer(string: "another's"))) }
            started.open()
            await gate.pass()
            return Response(status: .init(code: status), body: ResponseBody(byteBuffer: ByteBuffer(string: "zombie")))
        }) { service async throws in
            async let zombie = service.send()
            await started.pass()
            clock.advance(by: .seconds(31))
            let id = OperationID(scope: Scope("http"), key: try OperationKey("key-1"))
            #expect(try await store.resolve(id, as: .notApplied, by: OperatorAct(actor: "a", reason: "r"), expecting: nil) == .applied)
            #expect(try await service.send(body: #"{"amount":2}"#).text == "another's")
            gate.open()
            let late = try await zombie
            #expect(late.status == 422 && late.code == "key-reused" && !late.text.contains("another's"))
            #expect(late.json?["safe_new_key"] == false)
        }
    }

    @Test("64 first requests at once run the handler once (H15, H40, R7)")
    func stampede() async throws {
        let (gate, started) = (Gate(), Gate())
        try await TestService.run(handler: { _, _ in
            started.open()
            await gate.pass()
            return Response(status: .created)
        }) { service async throws in
            try await withThrowingTaskGroup(of: Reply.self) { group in
                for _ in 0..<64 { group.addTask { try await service.send() } }
                await started.pass()
                var conflicts = 0
                while conflicts < 63, let reply = try await group.next() {
                    #expect(reply.code == "in-progress")
                    conflicts += 1
                }
                gate.open()
                #expect(try await group.next()?.status == 201)
            }
            #expect(service.runs.count == 1)
        }
    }

    @Test("waiters get the first request's response, and those beyond the limit 409 (H40)")
    func waiting() async throws {
        let (gate, started) = (Gate(), Gate())
        try await TestService.run(.test(onConcurrent: .wait(.seconds(60), waiters: 3)), handler: { _, _ in
            started.open()
            await gate.pass()
            return Response(status: .created)
        }) { service async throws in
            async let first = service.send()
            await started.pass()
            try await withThrowingTaskGroup(of: Reply.self) { group in
                for _ in 0..<6 { group.addTask { try await service.send() } }
                for _ in 0..<3 { #expect(try await group.next()?.code == "in-progress") }
                gate.open()
                for _ in 0..<3 {
                    let reply = try await group.next()
                    #expect(reply?.status == 201 && reply?.isReplay == true)
                }
            }
            #expect(try await first.status == 201)
            #expect(service.runs.count == 1)
        }
    }

    @Test("an operation that makes no progress for as long as it may is given up, and its handler is told (H8)")
    func progressDeadline() async throws {
        let cancelled = Gate()
        try await TestService.run(.test(lease: .milliseconds(200), progress: .milliseconds(100)), handler: { _, _ in
            try await withTaskCancellationHandler {
                try await ContinuousClock().sleep(for: .seconds(60))
            } onCancel: {
                cancelled.open()
            }
            return Response(status: .ok)
        }) { service async throws in
            #expect(try await service.send().status == 500)
            await cancelled.pass()
            #expect(try await service.send().code == "outcome-uncertain")
        }
    }

    @Test("a slow handler keeps its lease by the heartbeat, over many times its length")
    func heartbeat() async throws {
        let (clock, storeClock) = (ManualClock(), ManualStoreClock())
        let store = StoreDouble.durable(clock: storeClock)
        let renewals = AsyncStream<Void>.makeStream()
        store.set { $0.beforeApply = { transition in
            if case .renew = transition.change { renewals.continuation.yield() }
        } }
        let (started, gate) = (Gate(), Gate())
        try await TestService.run(.test(lease: .seconds(30)), store: store, environment: clock.environment(), handler: { _, _ in
            started.open()
            await gate.pass()
            return Response(status: .ok)
        }) { service async throws in
            async let first = service.send()
            await started.pass()
            var renewed = renewals.stream.makeAsyncIterator()
            for _ in 0..<10 {
                await clock.sleepers(atLeast: 1)
                storeClock.advance(by: .seconds(10))
                clock.advance(by: .seconds(10))
                await renewed.next()
            }
            #expect(try await service.send().code == "in-progress")
            gate.open()
            #expect(try await first.status == 200)
        }
    }
}
