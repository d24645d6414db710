import HTTPTypes
import Hummingbird
import NIOCore
import Semel
import SemelHTTP
import SemelHummingbird
import SemelTesting
import Testing

@Suite("Replay")
struct ReplayTests {
    @Test("a replay has the status, the body byte for byte, and the allowed fields in their order, repeated ones kept (H4, H37)")
    func fields() async throws {
        let bytes = (0...255).map { UInt8($0) } + [0xFF, 0xFE, 0]
        try await TestService.run(.test { $0.replayedFields = [HTTPField.Name("X-Receipt")!, .setCookie, .date, .connection] }, handler: { _, _ in
            var headers = HTTPFields()
            for (name, value) in [
                ("Link", "<a>; rel=next"), ("X-Receipt", "1"), ("Content-Type", "application/octet-stream"), ("X-Other", "o"), ("Link", "<b>; rel=prev"),
                ("Location", "/payments/1"), ("ETag", "\"e\""), ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"), ("Content-Language", "de"),
                ("Content-Disposition", "inline"), ("Cache-Control", "private"), ("Set-Cookie", "session=1"), ("WWW-Authenticate", "Basic"),
                ("Keep-Alive", "timeout=5"), ("X-Receipt", "2"),
            ] { headers.append(HTTPField(name: HTTPField.Name(name)!, value: value)) }
            return Response(status: .accepted, headers: headers, body: ResponseBody(byteBuffer: ByteBuffer(bytes: bytes)))
        }) { service async throws in
            let first = try await service.send()
            #expect(first.status == 202 && first.body == bytes && !first.isReplay)
            #expect(first["Set-Cookie"] == "session=1" && first["X-Other"] == "o")
            let replay = try await service.send()
            #expect(replay.status == 202 && replay.body == bytes && replay.isReplay && service.runs.count == 1)
            let kept = replay.fields.map { "\($0.name): \($0.value)" }.prefix(11)
            #expect(
                Array(kept) == [
                    "Link: <a>; rel=next", "X-Receipt: 1", "Content-Type: application/octet-stream", "Link: <b>; rel=prev", "Location: /payments/1",
                    "ETag: \"e\"", "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", "Content-Language: de", "Content-Disposition: inline",
                    "Cache-Control: private", "X-Receipt: 2",
                ])
            for name in ["Set-Cookie", "WWW-Authenticate", "X-Other", "Keep-Alive"] { #expect(replay[name] == nil, "\(name)") }
            #expect(replay["Content-Length"] == "\(bytes.count)")
        }
    }

    @Test("a field that Connection names is not replayed, even if the policy adds it (H37)")
    func connectionOptions() async throws {
        let name = HTTPField.Name("X-Hop")!
        try await TestService.run(.test { $0.replayedFields = [name] }, handler: { _, _ in Response(status: .ok, headers: [.connection: "X-Hop", name: "1"]) }) { service async throws in
            _ = try await service.send()
            let replay = try await service.send()
            #expect(replay.isReplay && replay["X-Hop"] == nil)
        }
    }

    @Test("204, empty bodies, and bodies that are 0, \"\", [] or false are replayed as what they were (R16)", arguments: ["", "0", "\"\"", "[]", "false", "null"])
    func falsyResults(_ body: String) async throws {
        try await TestService.run(handler: { _, _ in
            body.isEmpty ? Response(status: .noContent) : Response(status: .ok, body: ResponseBody(byteBuffer: ByteBuffer(string: body)))
        }) { service async throws in
            let first = try await service.send()
            let replay = try await service.send()
            #expect(replay.isReplay && replay.status == first.status && replay.text == body && service.runs.count == 1)
        }
    }

    @Test("first and replayed responses tell the level, and when they stop being replayed")
    func expiry() async throws {
        let clock = ManualStoreClock(start: Timestamp(microseconds: 784_111_777_000_000))
        try await TestService.run(.test(retention: Retention(response: .seconds(3600), key: .seconds(86_400))), store: StoreDouble.durable(clock: clock)) { service async throws in
            let first = try await service.send()
            #expect(first["Idempotency-Key-Expires"] == "Sun, 06 Nov 1994 09:49:37 GMT" && first["Semel-Guarantee"] == "atMostOnce")
            clock.advance(by: .seconds(1800))
            let replay = try await service.send()
            #expect(replay["Idempotency-Key-Expires"] == "Sun, 06 Nov 1994 09:49:37 GMT" && replay["Semel-Guarantee"] == "atMostOnce")
            clock.advance(by: .seconds(1799))
            #expect(try await service.send().isReplay)
            clock.advance(by: .seconds(1))
            #expect(try await service.send().code == "outcome-expired")
        }
    }

    @Test("trailers are recorded and replayed")
    func trailers() async throws {
        try await TestService.run(handler: { _, _ in
            Response(status: .ok, body: ResponseBody { writer in
                try await writer.write(ByteBuffer(string: "body"))
                try await writer.finish([HTTPField.Name("X-Checksum")!: "1234", .setCookie: "a=b"])
            })
        }) { service async throws in
            for isReplay in [false, true] {
                let heard = try await RawClient.with(port: service.port) { connection in
                    try await connection.say(rawRequest("POST", "/payments", ["Idempotency-Key: \"t\""]))
                    return try await connection.hear(until: "X-Checksum: 1234\r\n")
                }
                #expect(heard.contains("\r\n4\r\nbody\r\n0\r\nX-Checksum: 1234\r\n"))
                #expect(heard.contains("Idempotent-Replayed: true") == isReplay)
                #expect(!isReplay || !heard.contains("a=b"))
            }
            #expect(service.runs.count == 1)
        }
    }

    @Test("the same key of another tenant is another operation, and shows nothing of the first (H33, H42)")
    func scopes() async throws {
        let name = HTTPField.Name("X-Tenant")!
        try await TestService.run(.test { $0.scopeSource = .header(name) }, handler: { request, _ in
            Response(status: .ok, body: ResponseBody(byteBuffer: ByteBuffer(string: "for \(request.headers[name] ?? "")")))
        }) { service async throws in
            #expect(try await service.send([("X-Tenant", "a")]).text == "for a")
            let other = try await service.send([("X-Tenant", "b")])
            #expect(other.text == "for b" && !other.isReplay)
            // Not even another body of a foreign key is told from an unused key.
            #expect(try await service.send(body: "else", [("X-Tenant", "c")]).text == "for c")
            #expect(try await service.send([("X-Tenant", "a")]).text == "for a")
            #expect(service.runs.count == 3)
        }
    }

    @Test("where the policy scopes by route, one key may be used on several routes, and query and body are still compared")
    func scopesByRoute() async throws {
        try await TestService.run(.test { $0.scopesByRoute = true }) { service async throws in
            _ = try await service.send(.post, "/a")
            #expect(try await service.send(.post, "/b").isReplay == false)
            #expect(try await service.send(.patch, "/a").isReplay == false)
            #expect(try await service.send(.post, "/a").isReplay)
            #expect(try await service.send(.post, "/a?x").code == "key-reused")
            #expect(service.runs.count == 3)
        }
    }

    @Test("permission is asked for before anything is looked up, so a replay is refused when it was revoked (H39)")
    func authorization() async throws {
        let store = StoreDouble.durable()
        let scene = try HTTPScene(.test(), operations: Operations(store: store))
        let allowed = Locked(true)
        let asked = Tally()
        func send(_ body: String = "x") async throws -> HTTPAnswer {
            let request = HTTPRequest(method: .post, scheme: nil, authority: nil, path: "/", headerFields: [.idempotencyKey: "\"k\""])
            let exchange = HTTPExchange(request, authorize: { _ in
                asked.add()
                return allowed.withLock { $0 } ? nil : HTTPAnswer(HTTPResponse(status: .forbidden))
            })
            return try await scene.respond(to: exchange, body: RequestBody(buffer: ByteBuffer(string: body))) { _ in HTTPAnswer(HTTPResponse(status: .ok)) }
        }
        #expect(try await send().head.status == .ok)
        #expect(try await send().head.headerFields[.idempotentReplayed] == "true")
        allowed.withLock { $0 = false }
        let refused = try await send()
        #expect(refused.head.status == .forbidden && refused.head.headerFields[.idempotentReplayed] == nil)
        // Neither does a 422 tell that the key was used.
        #expect(try await send("other").head.status == .forbidden)
        #expect(asked.count == 4)
    }

    @Test("JSON that differs only in order and notation is the same request where canonical JSON is asked for, and only there (H26)")
    func canonicalJSON() async throws {
        try await TestService.run(.test { $0.fingerprint = .canonicalJSON }) { service async throws in
            _ = try await service.send(body: #"{"a":1,"b":[1.0,"é"]}"#)
            #expect(try await service.send(body: "{ \"b\": [1, \"\\u00e9\"], \"a\": 1e0 }").isReplay)
            #expect(try await service.send(body: #"{"a":2,"b":[1.0,"é"]}"#).code == "key-reused")
        }
        try await TestService.run { service async throws in
            _ = try await service.send(body: #"{"a":1}"#)
            #expect(try await service.send(body: #"{ "a":1}"#).code == "key-reused")
        }
    }

    @Test("where fields are selected, only they are compared")
    func selectedFields() async throws {
        let amount = try JSONSelector("$.amount")
        try await TestService.run(.test { $0.fingerprint = .selected([amount]) }) { service async throws in
            _ = try await service.send(body: #"{"amount":1,"sent_at":"10:00"}"#)
            #expect(try await service.send(body: #"{"amount":1,"sent_at":"10:01"}"#).isReplay)
            #expect(try await service.send(body: #"{"amount":2,"sent_at":"10:00"}"#).code == "key-reused")
        }
    }

    @Test("an identical retry replays and is not validated again, although what it asks for exists by now (R18)")
    func noValidationOfRetries() async throws {
        let made = Tally()
        try await TestService.run(handler: { _, _ in
            guard made.add() == 1 else { throw HTTPError(.conflict, message: "it exists") }
            return Response(status: .created)
        }) { service async throws in
            #expect(try await service.send().status == 201)
            #expect(try await service.send().status == 201)
        }
    }

    @Test("bodies of other tenants' operations in another surface never meet: the claims API has a scope of its own")
    func claimsScope() {
        #expect(Scope("http", "a") != Scope("claims", "a"))
        #expect(Scope("http", "a", "POST", "/") != Scope("http", "a"))
    }

    @Test("safe methods and methods the policy does not name pass through, and nothing is stored", arguments: [HTTPRequest.Method.get, .put, .delete])
    func uncoveredMethods(_ method: HTTPRequest.Method) async throws {
        let store = StoreDouble.durable()
        try await TestService.run(.test { $0.methods = [.get, .post] }, store: store) { service async throws in
            for _ in 1...2 {
                let reply = try await service.send(method, body: "")
                #expect(reply.status == 201 && !reply.isReplay && reply["Semel-Guarantee"] == nil)
            }
            #expect(service.runs.count == 2)
            #expect(try await store.record() == nil)
        }
    }

    @Test("mode: off passes everything through")
    func off() async throws {
        try await TestService.run(.test(mode: .off)) { service async throws in
            #expect(try await service.send(key: nil).status == 201)
            _ = try await service.send()
            #expect(try await service.send().isReplay == false)
            #expect(service.runs.count == 3)
        }
    }

    @Test("a handler finds its own claim, and task-local values of outer middleware reach it")
    func handlersClaim() async throws {
        try await TestService.run(handler: { _, _ in
            let attempt = try #require(IdempotentRun.current?.attempt)
            return Response(status: .ok, body: ResponseBody(byteBuffer: ByteBuffer(string: "\(attempt.reference) \(attempt.epoch > .zero)")))
        }) { service async throws in
            let id = OperationID(scope: Scope("http"), key: try OperationKey("key-1"))
            #expect(try await service.send().text == "\(OperationReference(id)) true")
        }
    }
}
