import HTTPTypes
import Hummingbird
import NIOCore
import Semel
@testable import SemelHTTP
import SemelTesting
import Testing

@Suite("Keys from elsewhere")
struct KeySourceTests {
    @Test("a key made of fields of the body is the same whatever else differs in notation, and missing fields are 400 key-missing")
    func businessKeys() async throws {
        let selectors = [try JSONSelector("$.order"), try JSONSelector("$.version")]
        try await TestService.run(.test { $0.keySource = .body(selectors); $0.fingerprint = .canonicalJSON }) { service async throws in
            #expect(try await service.send(key: nil, body: #"{"order":"a","version":1}"#).status == 201)
            #expect(try await service.send(key: #""ignored""#, body: #"{"version":1.0,"order":"a"}"#).isReplay)
            #expect(try await service.send(key: nil, body: #"{"order":"a","version":2}"#).isReplay == false)
            #expect(try await service.send(key: nil, body: #"{"order":"a","version":1,"amount":2}"#).code == "key-reused")
            for body in [#"{"order":"a"}"#, #"{"order":"","version":1}"#, #"{"order":null,"version":1}"#] {
                #expect(try await service.send(key: nil, body: body).code == "key-missing")
            }
            #expect(try await service.send(key: nil, body: "order=a").code == "body-malformed")
            #expect(service.runs.count == 2)
        }
    }

    @Test("two spellings of one character make two keys of a body, and two scopes of a header (H27)")
    func spellings() async throws {
        let (composed, decomposed) = ("caf\u{E9}", "cafe\u{301}")
        let name = try #require(HTTPField.Name("X-Tenant"))
        let selectors = [try JSONSelector("$.order")]
        try await TestService.run(.test { $0.keySource = .body(selectors); $0.scopeSource = .header(name) }) { service async throws in
            for order in [composed, decomposed] {
                for tenant in [composed, decomposed] {
                    let answer = try await service.send(key: nil, body: #"{"order":"\#(order)"}"#, [("X-Tenant", tenant)])
                    #expect(answer.status == 201 && !answer.isReplay)
                }
            }
            #expect(try await service.send(key: nil, body: #"{"order":"\#(composed)"}"#, [("X-Tenant", decomposed)]).isReplay)
            #expect(service.runs.count == 4)
        }
    }

    @Test("the handler works in the request's trace, under a span of its own, and the record keeps the trace")
    func traces() async throws {
        let store = StoreDouble.durable()
        let seen = Locked([TraceContext?]())
        let handler: TestService.Handler = { _, _ in
            seen.withLock { $0.append(TraceContext.current) }
            return Response(status: .created)
        }
        try await TestService.run(store: store, handler: handler) { service async throws in
            let trace = "4bf92f3577b34da6a3ce929d0e0e4736"
            _ = try await service.send([("traceparent", "00-\(trace)-00f067aa0ba902b7-01")])
            _ = try await service.send(key: #""key-2""#, [("traceparent", "nonsense")])
            let contexts = seen.withLock { $0 }.compactMap(\.self)
            #expect(contexts.count == 2)
            #expect(contexts[0].traceID.hexadecimal == trace && contexts[0].parentSpanID == 0x00f0_67aa_0ba9_02b7)
            #expect(contexts[1].parentSpanID == nil && contexts[1].traceID != contexts[0].traceID)
            #expect(try await store.record()?.traceID == contexts[0].traceID)
            #expect(try await store.record("key-2")?.traceID == contexts[1].traceID)
        }
    }

    @Test("a token is a key: submitting the form twice gives the first result twice (R8)")
    func tokens() async throws {
        let now = Locked(Timestamp(microseconds: 784_111_777_000_000))
        let form = [("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")]
        try await TestService.run(.test(retention: Retention(response: .seconds(60), key: .seconds(3600))) { $0.tokens = .init(path: "/payments/tokens") }, calendar: { now.withLock { $0 } }) { service async throws in
            let minted = try await service.send(.post, "/payments/tokens", key: nil, body: "")
            #expect(minted.status == 201 && minted["Content-Type"] == "application/json" && minted["Cache-Control"] == "no-store")
            #expect(minted.json?["expires"]?.string == "1994-11-06T09:49:37Z")
            let token = try #require(minted.json?["token"]?.string)
            #expect(try await service.send(.post, "/payments/tokens", key: nil, body: "").json?["token"]?.string != token)
            #expect(service.runs.count == 0)

            let body = "amount=1&idempotency_key=\(token)"
            #expect(try await service.send(key: nil, body: body, form).isReplay == false)
            #expect(try await service.send(key: nil, body: body, form).isReplay)
            #expect(try await service.send(key: nil, body: "amount=2&idempotency_key=\(token)", form).code == "key-reused")
            #expect(service.runs.count == 1)
            // In the header it is the same key.
            #expect(try await service.send(key: "\"\(token)\"", body: body, form).isReplay)

            #expect(try await service.send(key: nil, body: "amount=1", form).code == "key-missing")
            #expect(try await service.send(key: nil, body: "idempotency_key=a&idempotency_key=b", form).code == "key-malformed")
            #expect(try await service.send(key: nil, body: "idempotency_key=", form).code == "key-malformed")
            #expect(try await service.send(key: nil, body: "idempotency_key=\(token)").code == "key-missing")

            // It tells its age, and is refused when its record may be gone (H24).
            now.withLock { $0 = $0 + .seconds(3600) }
            #expect(try await service.send(key: nil, body: body, form).isReplay)
            now.withLock { $0 = $0 + .seconds(1) }
            #expect(try await service.send(key: nil, body: body, form).code == "too-late")
        }
    }

    @Test("fields of forms are decoded")
    func formFields() {
        let form = Array("a=1&k%65y=x%20y+z&b&key=%zz%&key".utf8)
        #expect(FormField.values(of: "key", in: form) == ["x y z", "%zz%", ""])
        #expect(FormField.values(of: "none", in: form).isEmpty)
    }

    @Test("dates are read and written as HTTP has them", arguments: [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777, "1994-11-06T08:49:37Z"), ("Thu, 01 Jan 1970 00:00:00 GMT", 0, "1970-01-01T00:00:00Z"),
        ("Thu, 29 Feb 2024 23:59:59 GMT", 1_709_251_199, "2024-02-29T23:59:59Z"), ("Wed, 01 Mar 2000 12:00:00 GMT", 951_912_000, "2000-03-01T12:00:00Z"),
        ("Mon, 01 Mar 2100 00:00:00 GMT", 4_107_542_400, "2100-03-01T00:00:00Z"), ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799, "9999-12-31T23:59:59Z"),
    ])
    func dates(_ text: String, _ seconds: Int64, _ internetDate: String) throws {
        let time = CalendarTime(Timestamp(microseconds: seconds * 1_000_000 + 999_999))
        #expect(time.httpDate == text && time.internetDate == internetDate)
        #expect(CalendarTime(httpDate: text)?.seconds == seconds)
    }

    @Test("what is no HTTP-date is not read as one", arguments: [
        "", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "Sun, 06 Nov 1994 08:49:37 UTC", "Sun, 6 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:49:37 GMT", "Sun, 06 Foo 1994 08:49:37 GMT",
    ])
    func badDates(_ text: String) { #expect(CalendarTime(httpDate: text) == nil) }

    @Test("every day of 400 years is written and read as the same one")
    func everyDay() {
        for day in 0..<Int64(146_097) {
            let time = CalendarTime(Timestamp(microseconds: day * 86_400_000_000))
            guard CalendarTime(httpDate: time.httpDate) == time else { Issue.record("day \(day) is \(time.httpDate)"); return }
        }
    }

    @Test("random bytes never become a key that a quoted one would not be (F, H28)")
    func fuzz() throws {
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<20_000 {
            let bytes = (0..<Int.random(in: 0...12, using: &generator)).map { _ in UInt8.random(in: 0...255, using: &generator) % 130 }
            let value = String(decoding: bytes, as: UTF8.self)
            for syntax in [HTTPPolicy.KeySyntax.strict, .lenient] {
                guard let key = try? IdempotencyKey.parse(value, syntax: syntax) else { continue }
                #expect((1...255).contains(key.bytes.count) && key.bytes.allSatisfy { $0 >= 0x20 && $0 <= 0x7E }, "\(bytes)")
                // Written as a quoted string, it is read as the same key.
                let quoted = "\"" + key.text.map { $0 == "\"" || $0 == "\\" ? "\\\($0)" : "\($0)" }.joined() + "\""
                #expect(try IdempotencyKey.parse(quoted, syntax: .strict) == key, "\(bytes)")
            }
        }
    }
}
