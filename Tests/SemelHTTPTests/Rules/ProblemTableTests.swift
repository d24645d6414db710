import HTTPTypes
import Hummingbird
import NIOCore
import Semel
import SemelHTTP
import SemelTesting
import Testing

/// The table of HTTP.md, row by row, through a real server and a real client: the row, and what comes nearest to it without
/// being it.
@Suite("The table of problems")
struct ProblemTableTests {
    /// What every problem document has, and what the table says of this one.
    private func expect(
        _ reply: Reply, _ code: String, _ status: Int, safeForNewKey: Bool = false, operation: Bool = true, retries: Bool = false,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        #expect(reply.status == status, sourceLocation: sourceLocation)
        #expect(reply["Content-Type"] == "application/problem+json", sourceLocation: sourceLocation)
        #expect(reply["Cache-Control"] == "no-store", sourceLocation: sourceLocation)
        #expect(reply["Link"] == "</.well-known/semel/problems/\(code)>; rel=\"describedby\"", sourceLocation: sourceLocation)
        #expect(reply["Semel-Guarantee"] != nil, sourceLocation: sourceLocation)
        #expect(!reply.isReplay, sourceLocation: sourceLocation)
        let document = reply.json
        #expect(document?["type"]?.string == "urn:semel:\(code)", sourceLocation: sourceLocation)
        #expect(document?["code"]?.string == code, sourceLocation: sourceLocation)
        #expect(document?["status"]?.integer == status, sourceLocation: sourceLocation)
        #expect(document?["title"]?.string?.isEmpty == false, sourceLocation: sourceLocation)
        #expect(document?["detail"]?.string?.isEmpty == false, sourceLocation: sourceLocation)
        #expect(document?["safe_new_key"]?.bool == safeForNewKey, sourceLocation: sourceLocation)
        #expect((document?["operation"]?.string?.hasPrefix("op_") == true) == operation, sourceLocation: sourceLocation)
        #expect((reply["Retry-After"].flatMap(Int.init).map { $0 >= 1 } ?? false) == retries, sourceLocation: sourceLocation)
    }

    @Test("a required key that is missing is 400 key-missing, and one that is not required is passed through")
    func keyMissing() async throws {
        try await TestService.run { service async throws in
            expect(try await service.send(key: nil), "key-missing", 400, safeForNewKey: true, operation: false)
            #expect(service.runs.count == 0)
        }
        try await TestService.run(.test { $0.keyRequired = false }) { service async throws in
            let reply = try await service.send(key: nil)
            #expect(reply.status == 201 && reply["Semel-Guarantee"] == nil)
            _ = try await service.send(key: nil)
            #expect(service.runs.count == 2)
            // And with a key the rules hold.
            _ = try await service.send()
            #expect(try await service.send().isReplay)
            #expect(service.runs.count == 3)
        }
    }

    @Test(
        "a malformed key is 400 key-malformed (H27, H28)",
        arguments: [
            "key-1", #""unterminated"#, #""""#, #""a", "b""#, #""a"b"#, "\"\(String(repeating: "k", count: 256))\"", "\"schlüssel\"", "42", ":YWJj:", "?1",
        ])
    func keyMalformed(_ key: String) async throws {
        try await TestService.run { service async throws in
            expect(try await service.send(key: key), "key-malformed", 400, safeForNewKey: true, operation: false)
            #expect(service.runs.count == 0)
        }
    }

    @Test("two key fields, and a control character in one, are 400 key-malformed on the wire (H28)")
    func keyMalformedOnTheWire() async throws {
        try await TestService.run { service async throws in
            for fields in [["Idempotency-Key: \"a\"", "Idempotency-Key: \"a\""], ["Idempotency-Key: \"a\"", "idempotency-key: \"b\""], ["Idempotency-Key: \"a\u{1}b\""], ["Idempotency-Key: \"a\tb\""], ["Idempotency-Key:"]] {
                let heard = try await RawClient.with(port: service.port) { connection in
                    try await connection.say(rawRequest("POST", "/payments", fields))
                    return try await connection.hear(until: "}")
                }
                #expect(heard.hasPrefix("HTTP/1.1 400"), "\(fields)")
            }
            #expect(service.runs.count == 0)
        }
    }

    @Test("keys of 1 and of 255 characters, with spaces, escapes, parameters and any case, are keys of their own (H27, H28)")
    func goodKeys() async throws {
        try await TestService.run { service async throws in
            for key in [#""a""#, #""A""#, "\"\(String(repeating: "k", count: 255))\"", #""with space, and; comma""#, #""quote \" and \\""#] {
                let reply = try await service.send(key: key)
                #expect(reply.status == 201 && !reply.isReplay, "\(key)")
            }
            #expect(service.runs.count == 5)
            #expect(try await service.send(key: #""a";version=1"#).isReplay)
            #expect(try await service.send(key: #"  "a"  "#).isReplay)
            #expect(service.runs.count == 5)
        }
    }

    @Test("a bare key is refused when syntax is strict, and is the same key as the quoted one when it is lenient")
    func lenientKeys() async throws {
        try await TestService.run(.test { $0.keySyntax = .lenient }) { service async throws in
            #expect(try await service.send(key: "8e03978e-40d5-43dd-bc93-6894a57f9324").status == 201)
            #expect(try await service.send(key: #""8e03978e-40d5-43dd-bc93-6894a57f9324""#).isReplay)
            #expect(service.runs.count == 1)
            for key in ["a, b", "a,b", #"a"b"#, "a b", "a;b", #""a"#] {
                #expect(try await service.send(key: key).code == "key-malformed", "\(key)")
            }
        }
    }

    @Test("a body that is not JSON, or repeats a name, is 400 body-malformed where canonical JSON is asked for")
    func bodyMalformed() async throws {
        try await TestService.run(.test { $0.fingerprint = .canonicalJSON }) { service async throws in
            for body in ["", "{", #"{"a":1,"a":2}"#, "amount=1", "[1,]"] {
                expect(try await service.send(body: body), "body-malformed", 400, safeForNewKey: true, operation: false)
            }
            #expect(service.runs.count == 0)
            #expect(try await service.send(body: #"{"a":1}"#).status == 201)
        }
        // Raw bodies may be anything.
        try await TestService.run { service async throws in #expect(try await service.send(body: "{").status == 201) }
    }

    @Test("a body larger than the cap is 413 request-too-large, said or not, and one of just the cap is taken")
    func requestTooLarge() async throws {
        try await TestService.run(.test(onStoreFailure: .open) { $0.requestLimit = 1000 }) { service async throws in
            expect(try await service.send(body: String(repeating: "x", count: 1001)), "request-too-large", 413, safeForNewKey: true, operation: false)
            let heard = try await RawClient.with(port: service.port) { connection in
                try await connection.say("POST /payments HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nIdempotency-Key: \"c\"\r\n\r\n")
                for _ in 0..<3 { try await connection.say("1f4\r\n\(String(repeating: "x", count: 500))\r\n") }
                return try await connection.hear(until: "}")
            }
            #expect(heard.hasPrefix("HTTP/1.1 413"))
            #expect(service.runs.count == 0)
            #expect(try await service.send(body: String(repeating: "x", count: 1000)).status == 201)
        }
    }

    @Test("the same key with another body, path, query, method or media type is 422 key-reused (H25)")
    func keyReused() async throws {
        try await TestService.run { service async throws in
            _ = try await service.send(body: "one")
            expect(try await service.send(body: "two"), "key-reused", 422)
            expect(try await service.send(.patch, body: "one"), "key-reused", 422)
            expect(try await service.send(.post, "/refunds", body: "one"), "key-reused", 422)
            expect(try await service.send(.post, "/payments?x=1", body: "one"), "key-reused", 422)
            expect(try await service.send(body: "one", [("Content-Type", "text/plain")]), "key-reused", 422)
            expect(try await service.send(body: "one", [("Content-Encoding", "br")]), "key-reused", 422)
            #expect(try await service.send(body: "one").isReplay)
            #expect(service.runs.count == 1)
        }
    }

    @Test("another body is reported as reuse even while the first request runs, and after its response is gone (H25)")
    func reusedBeforeInProgress() async throws {
        let (gate, started) = (Gate(), Gate())
        let clock = ManualStoreClock()
        try await TestService.run(
            store: StoreDouble.durable(clock: clock),
            handler: { _, _ in
                started.open()
                await gate.pass()
                return Response(status: .ok)
            }
        ) { service async throws in
            async let first = service.send(body: "one")
            await started.pass()
            expect(try await service.send(body: "two"), "key-reused", 422)
            gate.open()
            #expect(try await first.status == 200)
            clock.advance(by: .seconds(25 * 3600))
            expect(try await service.send(body: "two"), "key-reused", 422)
            expect(try await service.send(body: "one"), "outcome-expired", 409)
            #expect(service.runs.count == 1)
        }
    }

    @Test("a second request during the first is 409 in-progress with Retry-After, and a replay after it")
    func inProgress() async throws {
        let (gate, started) = (Gate(), Gate())
        try await TestService.run(handler: { _, _ in
            started.open()
            await gate.pass()
            return Response(status: .ok)
        }) { service async throws in
            async let first = service.send()
            await started.pass()
            expect(try await service.send(), "in-progress", 409, retries: true)
            gate.open()
            #expect(try await first.status == 200)
            #expect(try await service.send().isReplay)
            #expect(service.runs.count == 1)
        }
    }

    @Test("an operation whose holder was lost is 409 outcome-uncertain where nothing may rerun, and runs again where it may (H1, H2)")
    func outcomeUncertain() async throws {
        for (effect, reruns) in [(Effect.unknown, false), (.deduplicates(keeps: .seconds(86_400)), true)] {
            let clock = ManualStoreClock()
            let store = StoreDouble.durable(clock: clock)
            let policy = HTTPPolicy.test(effect: effect)
            // Another process claimed, and died.
            let dead = try Operations(store: store).scene(policy.policy)
            let builder = FingerprintBuilder(method: "POST", path: "/payments", query: nil, mediaType: nil)
            let call = OperationCall(id: OperationID(scope: Scope("http"), key: try OperationKey("key-1")), fingerprint: try fingerprint(builder, #"{"amount":1}"#))
            guard case .run = try await dead.begin(call) else { Issue.record("the claim was refused"); return }
            try await TestService.run(policy, store: store) { service async throws in
                #expect(try await service.send().code == "in-progress")
                clock.advance(by: .seconds(31))
                let reply = try await service.send()
                if reruns {
                    #expect(reply.status == 201 && service.runs.count == 1)
                } else {
                    expect(reply, "outcome-uncertain", 409)
                    #expect(service.runs.count == 0)
                }
            }
        }
    }

    private func fingerprint(_ builder: FingerprintBuilder, _ body: String) throws -> Fingerprint {
        var builder = builder
        builder.update(Array(body.utf8))
        return try builder.finish()
    }

    @Test("a response that is no longer kept is 409 outcome-expired, until the key is forgotten too")
    func outcomeExpired() async throws {
        let clock = ManualStoreClock()
        try await TestService.run(store: StoreDouble.durable(clock: clock)) { service async throws in
            _ = try await service.send()
            clock.advance(by: .seconds(24 * 3600 - 1))
            #expect(try await service.send().isReplay)
            clock.advance(by: .seconds(1))
            expect(try await service.send(), "outcome-expired", 409)
            clock.advance(by: .seconds(29 * 86_400))
            #expect(try await service.send().status == 201)
            #expect(service.runs.count == 2)
        }
    }

    @Test("a response too large to keep reaches the first client whole, and is 409 outcome-unavailable to the next, with its status and digest (H35)")
    func outcomeUnavailable() async throws {
        let large = String(repeating: "0123456789", count: 200)
        try await TestService.run(.test { $0.responseLimit = 1000 }, handler: { _, _ in Response(status: .created, body: ResponseBody(byteBuffer: ByteBuffer(string: large))) }) { service async throws in
            let first = try await service.send()
            #expect(first.status == 201 && first.text == large && first["Idempotency-Key-Expires"] == nil)
            let second = try await service.send()
            expect(second, "outcome-unavailable", 409)
            let detail = second.json?["detail"]?.string ?? ""
            #expect(detail.contains("201") && detail.contains("2000 bytes") && detail.contains("\(Digest256(hashing: Array(large.utf8)))"))
            #expect(service.runs.count == 1)
        }
    }

    @Test("a request that says it was first sent longer ago than keys are kept is 412 too-late, and a newer one is not (H24)")
    func tooLate() async throws {
        let now = Timestamp(microseconds: 784_111_777_000_000)  // Sun, 06 Nov 1994 08:49:37 GMT
        try await TestService.run(.test(retention: Retention(response: .seconds(60), key: .seconds(3600))), calendar: { now }) { service async throws in
            expect(try await service.send([("Repeatability-First-Sent", "Sun, 06 Nov 1994 07:49:36 GMT")]), "too-late", 412, operation: false)
            #expect(try await service.send([("Repeatability-First-Sent", "yesterday")]).code == "key-malformed")
            #expect(service.runs.count == 0)
            #expect(try await service.send([("Repeatability-First-Sent", "Sun, 06 Nov 1994 07:49:37 GMT")]).status == 201)
        }
    }

    @Test("a store that cannot be reached is 503 store-unavailable with Retry-After, and the handler does not run (H13, R2)")
    func storeUnavailable() async throws {
        let store = StoreDouble.durable()
        store.set { $0.claim = StoreError(.unavailable, "gone") }
        try await TestService.run(store: store) { service async throws in
            expect(try await service.send(), "store-unavailable", 503, retries: true)
            #expect(service.runs.count == 0)
            store.set { $0.claim = nil }
            #expect(try await service.send().status == 201)
        }
    }

    @Test("with onStoreFailure: open the handler runs unprotected, and a lower level is shown (H13)")
    func storeFailureOpen() async throws {
        let store = StoreDouble.durable()
        store.set { $0.claim = StoreError(.unavailable, "gone") }
        try await TestService.run(.test(onStoreFailure: .open), store: store) { service async throws in
            let reply = try await service.send()
            #expect(reply.status == 201 && reply["Semel-Guarantee"] == "bestEffort")
            #expect(service.events.all.contains("degraded"))
            store.set { $0.claim = nil }
            // What may lose work at any time, and double it while the store is down, promises nothing.
            #expect(try await service.send()["Semel-Guarantee"] == "bestEffort")
        }
        // What is never bypassed: the cap, and the scope.
        store.set { $0.claim = StoreError(.unavailable, "gone") }
        try await TestService.run(.test(onStoreFailure: .open) { $0.requestLimit = 3; $0.scopeSource = .header(HTTPField.Name("X-Tenant")!) }, store: store) { service async throws in
            #expect(try await service.send([("X-Tenant", "a")]).code == "request-too-large")
            #expect(try await service.send(body: "abc").code == "scope-missing")
            #expect(service.runs.count == 0)
        }
    }

    @Test("a missing identity is 403 or 401 scope-missing, as the policy says, and the handler does not run", arguments: [403, 401])
    func scopeMissing(_ status: Int) async throws {
        try await TestService.run(.test { $0.scopeSource = .header(HTTPField.Name("X-Tenant")!); $0.scopeMissingStatus = status }) { service async throws in
            expect(try await service.send(), "scope-missing", status, safeForNewKey: true, operation: false)
            expect(try await service.send([("X-Tenant", "a"), ("X-Tenant", "b")]), "scope-missing", status, safeForNewKey: true, operation: false)
            expect(try await service.send([("X-Tenant", "")]), "scope-missing", status, safeForNewKey: true, operation: false)
            #expect(service.runs.count == 0)
            #expect(try await service.send([("X-Tenant", "a")]).status == 201)
        }
        try await TestService.run(.test { $0.scopeSource = .application; $0.scopeMissingStatus = status }, identity: { request, _ in request.headers[.authorization] }) { service async throws in
            expect(try await service.send(), "scope-missing", status, safeForNewKey: true, operation: false)
            #expect(try await service.send([("Authorization", "alice")]).status == 201)
        }
    }

    @Test("a handler behind HTTP cannot claim to share the record's transaction")
    func neverAtomic() {
        #expect(throws: PolicyError.self) {
            _ = try HTTPScene(.test(effect: .localTransaction), operations: Operations(store: StoreDouble.durable()))
        }
    }

    @Test("an upstream that refused is 502 upstream-refused, releases the key, and says whether a new key is safe")
    func upstreamRefused() async throws {
        for (effect, safe) in [(Effect.unknown, true), (.deduplicates(keeps: .seconds(86_400)), false)] {
            let attempts = Tally()
            try await TestService.run(.test(effect: effect), handler: { _, _ in
                if attempts.add() == 1 { throw UpstreamFailure.notSent("connection refused") }
                return Response(status: .ok)
            }) { service async throws in
                expect(try await service.send(), "upstream-refused", 502, safeForNewKey: safe)
                let second = try await service.send()
                #expect(second.status == 200 && !second.isReplay && service.runs.count == 2)
            }
        }
    }

    @Test("an upstream that was lost is 502 or 504 upstream-lost, then by the level: uncertain where it cannot rerun, a new run where it can", arguments: [false, true])
    func upstreamLost(timedOut: Bool) async throws {
        for (effect, reruns) in [(Effect.unknown, false), (.deduplicates(keeps: .seconds(86_400)), true)] {
            let attempts = Tally()
            try await TestService.run(.test(effect: effect), handler: { _, _ in
                if attempts.add() == 1 { throw UpstreamFailure.lost("the connection broke", timedOut: timedOut) }
                return Response(status: .ok)
            }) { service async throws in
                expect(try await service.send(), "upstream-lost", timedOut ? 504 : 502)
                let second = try await service.send()
                if reruns {
                    #expect(second.status == 200 && service.runs.count == 2)
                } else {
                    expect(second, "outcome-uncertain", 409)
                    #expect(service.runs.count == 1)
                }
            }
        }
    }

    @Test("more live keys than the tenant may have are 429 too-many-keys, and finished ones do not count")
    func tooManyKeys() async throws {
        let (gate, started) = (Gate(), Gate())
        try await TestService.run(.test(liveKeys: 1), handler: { request, _ in
            if request.uri.path == "/slow" {
                started.open()
                await gate.pass()
            }
            return Response(status: .ok)
        }) { service async throws in
            #expect(try await service.send(key: #""done""#).status == 200)
            async let slow = service.send(.post, "/slow", key: #""slow""#)
            await started.pass()
            expect(try await service.send(key: #""more""#), "too-many-keys", 429, safeForNewKey: true, retries: true)
            gate.open()
            #expect(try await slow.status == 200)
            #expect(try await service.send(key: #""more""#).status == 200)
            #expect(service.runs.count == 3)
        }
    }

    @Test("an application's own 409 and 422 carry no type of ours")
    func ownProblems() async throws {
        try await TestService.run(handler: { _, _ in Response(status: .conflict, headers: [.contentType: "application/json"], body: ResponseBody(byteBuffer: ByteBuffer(string: "{}"))) }) { service async throws in
            #expect(try await service.send().code == nil)
            let replay = try await service.send()
            #expect(replay.status == 409 && replay.isReplay && replay.code == nil && service.runs.count == 1)
        }
    }
}

extension TestService {
    func send(_ fields: [(String, String)]) async throws -> Reply { try await send(.post, "/payments", fields) }
}
