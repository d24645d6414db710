import SemelCore
import Testing

@Suite("Fingerprints of requests")
struct FingerprintTests {
    private func fingerprint(
        _ method: String = "POST", _ path: String = "/v1/payments", query: String? = nil, type: String? = "application/json",
        _ body: String = "", mode: FingerprintMode = .raw
    ) throws -> Fingerprint {
        var builder = FingerprintBuilder(method: method, path: path, query: query, mediaType: type, mode: mode)
        builder.update(body.utf8)
        return try builder.finish()
    }

    @Test("the format of a stored fingerprint never changes")
    func stable() throws {
        // Computed by an independent implementation from the documented format; a change would turn every retry of a
        // request recorded before it into a mismatch.
        #expect(try fingerprint(#"{"amount":1}"#).description == "7751a8be289ff0295a959b025361bf1c39136fa361587dc620840d100d24e0a7")
    }

    @Test("every part of a request counts (H25)")
    func everyPart() throws {
        let requests = try [
            fingerprint("{}"), fingerprint("PATCH", "{}"), fingerprint("post", "{}"), fingerprint("POST", "/v1/payment", "{}"),
            fingerprint("POST", "/V1/payments", "{}"), fingerprint("POST", "/v1/payments/", "{}"), fingerprint(query: "", "{}"),
            fingerprint(query: "a=1", "{}"), fingerprint(query: "a=1&", "{}"), fingerprint(type: nil, "{}"), fingerprint(type: "", "{}"),
            fingerprint(type: "text/plain", "{}"), fingerprint("{ }"), fingerprint(""), fingerprint("{}\n"),
            fingerprint("{}", mode: .json), fingerprint("{}", mode: .selected([])), fingerprint("{}", mode: .selected([JSONSelector("$")])),
        ]
        #expect(Set(requests).count == requests.count)
    }

    @Test("characters that move from one part to the next make another fingerprint (H30)")
    func boundaries() throws {
        let requests = try [
            fingerprint("POST", "/a", query: "b", type: "c", "d"), fingerprint("POST", "/ab", query: "", type: "c", "d"),
            fingerprint("POST", "/a", query: "bc", type: "", "d"), fingerprint("POST", "/a", query: "b", type: "", "cd"),
            fingerprint("POST/", "a", query: "b", type: "c", "d"), fingerprint("POST", "/a?b", query: nil, type: "c", "d"),
            fingerprint("POST", "/a", query: nil, type: "b", "d"), fingerprint("POST", "/a", query: "b", type: nil, "d"),
        ]
        #expect(Set(requests).count == requests.count)
    }

    @Test("of the media type only type and subtype count, in any case", arguments: [
        "application/json", "Application/JSON", "application/json; charset=utf-8", "application/json;charset=UTF-8", " application/json\t; a=b",
    ])
    func mediaType(type: String) throws {
        #expect(try fingerprint(type: type, "1") == fingerprint(type: "application/json", "1"))
    }

    @Test("exact bytes count by default: reordered JSON is another request, as is every other change (H26, H27)")
    func rawBytes() throws {
        let bodies = [#"{"a":1,"b":2}"#, #"{"b":2,"a":1}"#, #"{"a":1, "b":2}"#, #"{"a":1.0,"b":2}"#, "\u{E9}", "e\u{301}", "not JSON {"]
        #expect(Set(try bodies.map { try fingerprint($0) }).count == bodies.count)
    }

    @Test("as canonical JSON, order and notation do not count, and everything else does (H26)")
    func canonicalJSON() throws {
        let original = try fingerprint(#"{"amount":10,"to":{"iban":"X","name":"é"}}"#, mode: .json)
        #expect(try fingerprint(" {\"to\":{\"name\":\"\\u00e9\",\"iban\":\"X\"},\n \"amount\":1.0e1}", mode: .json) == original)
        for other in [
            #"{"amount":10,"to":{"iban":"X","name":"e\#u{301}"}}"#, #"{"amount":"10","to":{"iban":"X","name":"é"}}"#,
            #"{"amount":10,"to":{"iban":"x","name":"é"}}"#, #"{"amount":10,"to":{"iban":"X","name":"é","x":null}}"#, "{}",
        ] {
            #expect(try fingerprint(other, mode: .json) != original, "\(other)")
        }
    }

    @Test("ids beyond the precision of a double stay apart: a false match would replay another request's result")
    func largeIds() throws {
        #expect(try fingerprint(#"{"id":12345678901234567890}"#, mode: .json) != fingerprint(#"{"id":12345678901234567891}"#, mode: .json))
    }

    @Test("shuffled members never change the canonical fingerprint (H26)")
    func shuffled() throws {
        var random = SeededRandom.fresh()
        for _ in 0..<200 {
            let value = RandomJSON.value(&random)
            let other = RandomJSON.reordered(value, &random)
            #expect(try fingerprint(value.description, mode: .json) == fingerprint(other.description, mode: .json), "seed \(random.seed)")
        }
    }

    @Test("with selectors only the selected places count, by place and by kind")
    func selectors() throws {
        func selected(_ body: String, _ selectors: String...) throws -> Fingerprint {
            try fingerprint(body, mode: .selected(selectors.map { try JSONSelector($0) }))
        }
        let original = try selected(#"{"a":1,"b":"x","sent_at":"09:00"}"#, "$.a", "$.b")
        #expect(try selected(#"{"sent_at":"09:01","b":"x","a":1.0,"new":0}"#, "$.a", "$['b']") == original)
        let others = try [
            selected(#"{"a":2,"b":"x"}"#, "$.a", "$.b"), selected(#"{"a":"1","b":"x"}"#, "$.a", "$.b"),
            selected(#"{"b":"x"}"#, "$.a", "$.b"), selected(#"{"a":null,"b":"x"}"#, "$.a", "$.b"),
            selected(#"{"a":1,"b":"x"}"#, "$.a"), selected(#"{"a":1,"b":"x"}"#, "$.b", "$.a"), selected(#"{"a":"x","b":1}"#, "$.a", "$.b"),
        ]
        #expect(Set(others + [original]).count == others.count + 1)
        // One value at two places is not one request.
        #expect(try selected(#"{"a":1}"#, "$.a") != selected(#"{"b":1}"#, "$.b"))
        #expect(try selected(#"{"a":"ab","b":"c"}"#, "$.a", "$.b") != selected(#"{"a":"a","b":"bc"}"#, "$.a", "$.b"))
    }

    @Test("a body that is not acceptable JSON is refused where JSON is asked for", arguments: ["", "{", #"{"a":1,"a":1}"#, "\u{FEFF}{}"])
    func malformed(body: String) throws {
        #expect(throws: JSONError.self) { _ = try fingerprint(body, mode: .json) }
        #expect(throws: JSONError.self) { _ = try fingerprint(body, mode: .selected([JSONSelector("$.a")])) }
        _ = try fingerprint(body)
    }

    @Test("however the body is cut into chunks, the fingerprint is the same")
    func chunks() throws {
        var random = SeededRandom.fresh()
        let body = Array(#"{"amount":1,"note":"a longer body, so that it spans more than one block of the digest é"}"#.utf8)
        for mode in [FingerprintMode.raw, .json, .selected([try JSONSelector("$.note")])] {
            let whole = try fingerprint(String(decoding: body, as: UTF8.self), mode: mode)
            for _ in 0..<50 {
                var builder = FingerprintBuilder(method: "POST", path: "/v1/payments", query: nil, mediaType: "application/json", mode: mode)
                var rest = body[...]
                while !rest.isEmpty {
                    let size = Int.random(in: 0...min(20, rest.count), using: &random)
                    builder.update(rest.prefix(size).lazy.map { $0 })
                    rest = rest.dropFirst(size)
                }
                #expect(try builder.finish() == whole, "seed \(random.seed)")
            }
        }
    }

    @Test("a copy of a builder goes its own way")
    func valueSemantics() throws {
        var left = FingerprintBuilder(method: "POST", path: "/v1/payments", query: nil, mediaType: "application/json")
        left.update("a".utf8)
        var right = left
        left.update("b".utf8)
        right.update("c".utf8)
        #expect(try left.finish() == fingerprint("ab"))
        #expect(try right.finish() == fingerprint("ac"))
    }
}

extension FingerprintTests {
    private func fingerprint(_ body: String, mode: FingerprintMode = .raw) throws -> Fingerprint {
        try fingerprint("POST", body, mode: mode)
    }

    private func fingerprint(_ method: String, _ body: String, mode: FingerprintMode = .raw) throws -> Fingerprint {
        try fingerprint(method, "/v1/payments", query: nil, type: "application/json", body, mode: mode)
    }
}
