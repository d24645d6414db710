import HTTPTypes
import Hummingbird
import NIOCore
import Semel
import SemelHTTP
import SemelTesting
import Testing

@Suite("mode: observe")
struct ObserveTests {
    @Test("nobody is turned away, and what enforcing would have done is counted")
    func observes() async throws {
        let store = StoreDouble.durable()
        try await TestService.run(.test(mode: .observe) { $0.requestLimit = 100 }, store: store) { service async throws in
            func expectRun(_ event: String, _ send: () async throws -> Reply) async throws {
                let runs = service.runs.count
                let reply = try await send()
                #expect(reply.status == 201 && !reply.isReplay && reply.code == nil && service.runs.count == runs + 1, "\(event)")
                #expect(service.events.all.contains(event), "\(event)")
            }
            try await expectRun("recorded 201") { try await service.send() }
            #expect(try await store.record()?.mode == .observe)
            try await expectRun("wouldReplay") { try await service.send() }
            try await expectRun("wouldReject key-reused") { try await service.send(body: "other") }
            try await expectRun("wouldReject key-missing") { try await service.send(key: nil) }
            try await expectRun("wouldReject key-malformed") { try await service.send(key: "bad") }
            try await expectRun("wouldReject request-too-large") { try await service.send(key: #""large""#, body: String(repeating: "x", count: 101)) }
            store.set { $0.claim = StoreError(.unavailable, "gone") }
            try await expectRun("degraded") { try await service.send(key: #""down""#) }
            store.set { $0.claim = nil; $0.apply = StoreError(.full, "no space") }
            try await expectRun("unrecorded full") { try await service.send(key: #""unrecorded""#) }
        }
    }

    @Test("a body larger than the cap passes through whole, whether its length was said or not")
    func largeBodies() async throws {
        try await TestService.run(.test(mode: .observe) { $0.requestLimit = 100 }, handler: { request, _ in
            let body = try await request.body.collect(upTo: 1 << 20)
            return Response(status: .ok, body: ResponseBody(byteBuffer: ByteBuffer(string: "\(body.readableBytes)")))
        }) { service async throws in
            #expect(try await service.send(body: String(repeating: "x", count: 300_000)).text == "300000")
            let heard = try await RawClient.with(port: service.port) { connection in
                try await connection.say("POST /payments HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nIdempotency-Key: \"c\"\r\n\r\n")
                for _ in 0..<3 { try await connection.say("1f4\r\n\(String(repeating: "x", count: 500))\r\n") }
                try await connection.say("0\r\n\r\n")
                return try await connection.hear(until: "1500")
            }
            #expect(heard.contains("\r\n\r\n1500"))
        }
    }

    @Test("a second request during the first runs too")
    func concurrent() async throws {
        let (gate, started) = (Gate(), Gate())
        let runs = Tally()
        try await TestService.run(.test(mode: .observe), handler: { _, _ in
            guard runs.add() == 1 else { return Response(status: .created) }
            started.open()
            await gate.pass()
            return Response(status: .ok)
        }) { service async throws in
            async let first = service.send()
            await started.pass()
            #expect(try await service.send().status == 201)
            #expect(service.events.all.contains("wouldReject in-progress"))
            gate.open()
            #expect(try await first.status == 200)
        }
    }

    @Test("a body beyond the cap is not held back: its handler reads it while it still comes", .timeLimit(.minutes(5)))
    func passing() async throws {
        let (read, total) = (Gate(), Locked(0))
        try await TestService.run(.test(mode: .observe) { $0.requestLimit = 100 }, handler: { request, _ in
            for try await piece in request.body {
                let sum = total.withLock { total in
                    total += piece.readableBytes
                    return total
                }
                if sum >= 250 { read.open() }
            }
            return Response(status: .ok, body: ResponseBody(byteBuffer: ByteBuffer(string: "\(total.withLock { $0 })")))
        }) { service async throws in
            let heard = try await RawClient.with(port: service.port) { connection in
                try await connection.say("POST /payments HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nIdempotency-Key: \"c\"\r\n\r\n")
                for _ in 0..<5 { try await connection.say("32\r\n\(String(repeating: "x", count: 50))\r\n") }
                // The request has not ended.
                await read.pass()
                try await connection.say("1\r\ny\r\n0\r\n\r\n")
                return try await connection.hear(until: "251")
            }
            #expect(heard.contains("\r\n\r\n251"))
            #expect(service.events.all == ["wouldReject request-too-large"])
        }
    }

    @Test("a body that cannot be held passes through whole")
    func unheldBody() async throws {
        let spool = Spool(memoryLimit: 1000, directory: "/nowhere")
        try await TestService.run(.test(mode: .observe), spool: spool, handler: { request, _ in
            let body = try await request.body.collect(upTo: 1 << 20)
            return Response(status: .ok, body: ResponseBody(byteBuffer: ByteBuffer(string: "\(body.readableBytes)")))
        }) { service async throws in
            #expect(try await service.send(body: String(repeating: "x", count: 300_000)).text == "300000")
            #expect(service.events.all == ["wouldReject store-unavailable"])
        }
    }
}
