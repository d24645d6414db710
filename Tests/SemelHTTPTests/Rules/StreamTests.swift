import AsyncHTTPClient
import HTTPTypes
import Hummingbird
import NIOCore
import Semel
import SemelHTTP
import SemelTesting
import Testing

@Suite("Streams and disconnects")
struct StreamTests {
    @Test("a streamed answer up to the cap is held back, recorded and replayed whole")
    func smallStream() async throws {
        let store = StoreDouble.durable()
        let written = Gate()
        let gate = Gate()
        try await TestService.run(store: store, handler: { _, _ in
            Response(status: .ok, body: ResponseBody { writer in
                try await writer.write(ByteBuffer(string: "first "))
                written.open()
                await gate.pass()
                try await writer.write(ByteBuffer(string: "second"))
                try await writer.finish(nil)
            })
        }) { service async throws in
            async let first = service.send()
            await written.pass()
            #expect(try await store.record()?.state == .claimed)
            gate.open()
            #expect(try await first.text == "first second")
            let replay = try await service.send()
            #expect(replay.isReplay && replay.text == "first second" && service.runs.count == 1)
        }
    }

    @Test("beyond the cap it is first recorded as streaming, then sent in full, then completed without a body (H35, H36)")
    func largeStream() async throws {
        let store = StoreDouble.durable()
        let gate = Gate()
        try await TestService.run(.test { $0.responseLimit = 100 }, store: store, handler: { _, _ in
            Response(status: .ok, body: ResponseBody { writer in
                for _ in 0..<12 { try await writer.write(ByteBuffer(string: "0123456789")) }
                await gate.pass()
                try await writer.write(ByteBuffer(string: "the end"))
                try await writer.finish(nil)
            })
        }) { service async throws in
            try await RawClient.with(port: service.port) { connection in
                try await connection.say(rawRequest("POST", "/payments", ["Idempotency-Key: \"key-1\""]))
                let beginning = try await connection.hear(until: "0123456789")
                #expect(beginning.hasPrefix("HTTP/1.1 200") && !beginning.contains("Idempotency-Key-Expires"))
                #expect(try await store.record()?.state == .streaming)
                #expect(try await service.send(body: "{}").code == "in-progress")
                gate.open()
                let whole = try await connection.hear(until: "0\r\n\r\n")
                #expect(whole.contains("the end"))
            }
            let record = try #require(try await store.record())
            guard case .omitted(let length, let digest) = record.outcome?.body else { Issue.record("the body was kept"); return }
            let text = String(repeating: "0123456789", count: 12) + "the end"
            #expect(length == UInt64(text.utf8.count) && digest == Digest256(hashing: Array(text.utf8)).bytes)
            #expect(try await service.send(body: "{}").code == "outcome-unavailable")
            #expect(service.runs.count == 1)
        }
    }

    @Test("nothing of a large answer is sent before it is durable that it is being sent (R19)")
    func streamingIsDurableFirst() async throws {
        let store = StoreDouble.durable()
        let (marking, mayMark) = (Gate(), Gate())
        store.set { $0.beforeApply = { transition in
            guard transition.change == .stream else { return }
            marking.open()
            await mayMark.pass()
        } }
        try await TestService.run(.test { $0.responseLimit = 3 }, store: store) { service async throws in
            let replies = Tally()
            async let first = service.send(countingIn: replies)
            await marking.pass()
            for _ in 0..<20 { _ = try await service.send(.get, "/other", key: nil, body: "") }
            #expect(replies.count == 0)
            #expect(try await store.record()?.state == .claimed)
            mayMark.open()
            #expect(try await first.text == "made")
        }
    }

    @Test("an answer whose beginning cannot be marked as being sent is not sent")
    func unmarkedStream() async throws {
        let store = StoreDouble.durable()
        store.set { $0.apply = StoreError(.full, "no space") }
        try await TestService.run(.test { $0.responseLimit = 3 }, store: store) { service async throws in
            #expect(try await service.send().code == "outcome-uncertain")
        }
    }

    @Test("an answer that breaks off while it is sent reaches the client cut off, and is uncertain (H36)")
    func brokenStream() async throws {
        struct Broken: Error {}
        let store = StoreDouble.durable()
        try await TestService.run(.test { $0.responseLimit = 10 }, store: store, handler: { _, _ in
            Response(status: .ok, body: ResponseBody { writer in
                for _ in 0..<3 { try await writer.write(ByteBuffer(string: "0123456789")) }
                throw Broken()
            })
        }) { service async throws in
            let heard = try await RawClient.with(port: service.port) { connection in
                try await connection.say(rawRequest("POST", "/payments", ["Idempotency-Key: \"key-1\""]))
                return try await connection.hear(until: "0\r\n\r\n")
            }
            #expect(heard.contains("0123456789") && !heard.hasSuffix("0\r\n\r\n"))
            #expect(try await store.record()?.state == .uncertain)
            #expect(try await service.send(body: "{}").code == "outcome-uncertain")
        }
    }

    @Test("an answer that breaks off before the cap is an error like any other, and nothing of it is replayed (H36)")
    func brokenSmallStream() async throws {
        let runs = Tally()
        try await TestService.run(.test(effect: .deduplicates(keeps: .seconds(86_400))), handler: { _, _ in
            Response(status: .ok, body: ResponseBody { writer in
                try await writer.write(ByteBuffer(string: "half"))
                if runs.add() == 1 { throw UpstreamFailure.lost("it closed the connection", timedOut: false) }
                try await writer.finish(nil)
            })
        }) { service async throws in
            #expect(try await service.send().code == "upstream-lost")
            let second = try await service.send()
            #expect(second.text == "half" && second.status == 200)
        }
    }

    @Test("an event stream passes through at once and is recorded without a body")
    func eventStream() async throws {
        let store = StoreDouble.durable()
        let gate = Gate()
        try await TestService.run(store: store, handler: { _, _ in
            Response(status: .ok, headers: [.contentType: "text/event-stream; charset=utf-8"], body: ResponseBody { writer in
                try await writer.write(ByteBuffer(string: "data: 1\n\n"))
                await gate.pass()
                try await writer.write(ByteBuffer(string: "data: 2\n\n"))
                try await writer.finish(nil)
            })
        }) { service async throws in
            try await RawClient.with(port: service.port) { connection in
                try await connection.say(rawRequest("POST", "/payments", ["Idempotency-Key: \"key-1\""]))
                _ = try await connection.hear(until: "data: 1")
                #expect(try await store.record()?.state == .streaming)
                gate.open()
                _ = try await connection.hear(until: "0\r\n\r\n")
            }
            #expect(try await service.send(body: "{}").code == "outcome-unavailable")
        }
    }

    @Test("an upgrade is refused: its outcome could not be recorded")
    func upgrade() async throws {
        let scene = try HTTPScene(.test(), operations: Operations(store: StoreDouble.durable()))
        let request = HTTPRequest(method: .post, scheme: nil, authority: nil, path: "/", headerFields: [.idempotencyKey: "\"k\""])
        let answer = try await scene.respond(to: HTTPExchange(request), body: RequestBody(buffer: ByteBuffer())) { _ in
            HTTPAnswer(HTTPResponse(status: .switchingProtocols))
        }
        #expect(answer.head.status.code == 502)
    }

    @Test("a client that leaves does not stop the handler: the outcome is recorded, and replayed to its retry (H41)")
    func disconnect() async throws {
        let (started, gate) = (Gate(), Gate())
        try await TestService.run(handler: { _, _ in
            started.open()
            await gate.pass()
            guard !Task.isCancelled else { throw CancellationError() }
            return Response(status: .created)
        }) { service async throws in
            try await RawClient.with(port: service.port) { connection in
                try await connection.say(rawRequest("POST", "/payments", ["Idempotency-Key: \"key-1\""]))
                await started.pass()
                try await connection.channel.close()
            }
            gate.open()
            await service.events.wait(for: "recorded 201")
            let replay = try await service.send(body: "{}")
            #expect(replay.isReplay && replay.status == 201 && service.runs.count == 1)
        }
    }

    @Test("cancelling the request's own task does not stop the handler either (H41)")
    func cancellation() async throws {
        let store = StoreDouble.durable()
        let scene = try HTTPScene(.test(), operations: Operations(store: store))
        let (started, gate) = (Gate(), Gate())
        let request = HTTPRequest(method: .post, scheme: nil, authority: nil, path: "/", headerFields: [.idempotencyKey: "\"key-1\""])
        let task = Task {
            try await scene.respond(to: HTTPExchange(request), body: RequestBody(buffer: ByteBuffer())) { _ in
                started.open()
                await gate.pass()
                try Task.checkCancellation()
                return HTTPAnswer(HTTPResponse(status: .ok))
            }
        }
        await started.pass()
        task.cancel()
        gate.open()
        #expect(try await task.value.head.status == .ok)
        #expect(try await store.record()?.state == .completed)
    }

    @Test("a client that leaves in mid-stream does not stop it: the rest is read, and the record completes (H41)")
    func disconnectWhileStreaming() async throws {
        let gate = Gate()
        try await TestService.run(.test { $0.responseLimit = 10 }, handler: { _, _ in
            Response(status: .ok, body: ResponseBody { writer in
                for _ in 0..<3 { try await writer.write(ByteBuffer(string: "0123456789")) }
                await gate.pass()
                for _ in 0..<1000 { try await writer.write(ByteBuffer(repeating: 0x78, count: 10_000)) }
                try await writer.finish(nil)
            })
        }) { service async throws in
            try await RawClient.with(port: service.port) { connection in
                try await connection.say(rawRequest("POST", "/payments", ["Idempotency-Key: \"key-1\""]))
                _ = try await connection.hear(until: "0123456789")
                try await connection.channel.close()
            }
            gate.open()
            await service.events.wait(for: "recorded 200")
            let reply = try await service.send(body: "{}")
            #expect(reply.code == "outcome-unavailable" && reply.json?["detail"]?.string?.contains("10000030 bytes") == true)
        }
    }

    @Test("a large answer is sent no faster than the client takes it")
    func backPressure() async throws {
        let written = Tally()
        try await TestService.run(handler: { _, _ in
            Response(status: .ok, body: ResponseBody { writer in
                for _ in 0..<800 {
                    try await writer.write(ByteBuffer(repeating: 0x78, count: 100_000))
                    written.add()
                }
                try await writer.finish(nil)
            })
        }) { service async throws in
            try await RawClient.with(port: service.port) { connection in
                try await connection.say(rawRequest("POST", "/payments", ["Idempotency-Key: \"key-1\""]))
                // 80 MB do not fit into the sockets' buffers: it stands still until the client reads.
                var before = -1
                while written.count != before || before < 3 {
                    before = written.count
                    try await ContinuousClock().sleep(for: .milliseconds(50))
                }
                #expect(before < 800)
                var count = 0
                while true {
                    let more = try await connection.skip()
                    count += more
                    if count > 80_000_000 || more == 0 { break }
                }
            }
            await service.events.wait(for: "recorded 200")
            #expect(written.count == 800)
        }
    }

    @Test("an answer that stops for longer than the policy allows is broken off, whoever makes it (H8)", .timeLimit(.minutes(5)))
    func hangsWhileSending() async throws {
        let (clock, store, gate) = (ManualClock(), StoreDouble.durable(isTransactional: true), Gate())
        try await TestService.run(.test(progress: .seconds(5)), store: store, environment: clock.environment(), handler: { _, _ in
            Response(status: .ok, headers: [.contentType: "text/event-stream"], body: ResponseBody { writer in
                try await writer.write(ByteBuffer(string: "data: 1\n\n"))
                // It does not heed that it is cancelled.
                await gate.pass()
                try await writer.write(ByteBuffer(string: "data: 2\n\n"))
                try await writer.finish(nil)
            })
        }) { service async throws in
            let heard = try await RawClient.with(port: service.port) { connection in
                try await connection.say(rawRequest("POST", "/payments", ["Idempotency-Key: \"key-1\""]))
                _ = try await connection.hear(until: "data: 1")
                await clock.sleepers(atLeast: 1)
                clock.advance(by: .seconds(5))
                return try await connection.hear(until: "data: 2")
            }
            #expect(!heard.contains("data: 2") && !heard.hasSuffix("0\r\n\r\n"))
            await service.events.wait(for: "suspended stream-interrupted")
            gate.open()
            #expect(try await service.send(body: "{}").code == "outcome-uncertain")
            #expect(!service.events.all.contains("recorded 200"))
        }
    }

    @Test("one that stops before its beginning was sent is answered as lost, and nothing of it counts", .timeLimit(.minutes(5)))
    func hangsWhileHeldBack() async throws {
        let (clock, store) = (ManualClock(), StoreDouble.durable(isTransactional: true))
        let (written, gate, finished) = (Gate(), Gate(), Gate())
        try await TestService.run(.test(progress: .seconds(5)), store: store, environment: clock.environment(), handler: { _, _ in
            Response(status: .ok, body: ResponseBody { writer in
                try await writer.write(ByteBuffer(string: "half"))
                written.open()
                await gate.pass()
                finished.open()
                try await writer.finish(nil)
            })
        }) { service async throws in
            async let reply = service.send()
            await written.pass()
            await clock.sleepers(atLeast: 1)
            clock.advance(by: .seconds(5))
            #expect(try await reply.code == "upstream-lost")
            gate.open()
            await finished.pass()
            #expect(try await service.send().code == "outcome-uncertain")
            #expect(try await store.record()?.outcome == nil && service.runs.count == 1)
        }
    }

    @Test("a handler that ignores that its answer cannot be sent does not make a part of it the outcome (H36)")
    func swallowedError() async throws {
        let store = StoreDouble.durable(isTransactional: true)
        try await TestService.run(.test { $0.responseLimit = 10 }, store: store, handler: { _, _ in
            Response(status: .ok, body: ResponseBody { writer in
                try await writer.write(ByteBuffer(string: "01234"))
                store.set { $0.apply = StoreError(.full, "no space") }
                do { try await writer.write(ByteBuffer(string: "0123456789")) } catch {}
                store.set { $0.apply = nil }
                do { try await writer.write(ByteBuffer(string: "56789")) } catch {}
                try await writer.finish(nil)
            })
        }) { service async throws in
            let reply = try await service.send()
            #expect(reply.status == 503 && reply.code == "outcome-uncertain")
            #expect(try await store.record()?.state == .claimed)
            #expect(!service.events.all.contains("recorded 200"))
        }
    }
}
