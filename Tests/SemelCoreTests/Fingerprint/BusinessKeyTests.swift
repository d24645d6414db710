import SemelCore
import Testing

@Suite("Business keys")
struct BusinessKeyTests {
    private func key(_ payload: String, _ selectors: String...) throws -> BusinessKey {
        try BusinessKey(selecting: selectors.map { try JSONSelector($0) }, in: json(payload))
    }

    @Test("a redelivery has the key of the first delivery; a key with a freshly minted id never does (R4)")
    func mintedId() throws {
        let first = #"{"delivery_id":"5f3c","attempt":1,"order_id":"A-17","version":3}"#
        let again = #"{"delivery_id":"91be","attempt":2,"version":3,"order_id":"A-17"}"#
        #expect(try key(first, "$.order_id", "$.version") == key(again, "$.order_id", "$.version"))
        // The naive keys: the whole payload, or one that contains the delivery's own id.
        #expect(try key(first, "$") != key(again, "$"))
        #expect(try key(first, "$.order_id", "$.delivery_id") != key(again, "$.order_id", "$.delivery_id"))
    }

    @Test("fields that belong to an attempt are warned about, others are not (R4, H31)")
    func warnings() throws {
        for minted in ["$.delivery_id", "$.deliveryId", "$.meta['trace-id']", "$.attempts[0]", "$.Request_ID", "$.sentAt"] {
            #expect(try JSONSelector(minted).instabilityWarning?.contains("differ between attempts") == true, "\(minted)")
        }
        for stable in ["$", "$.order_id", "$.version", "$.attempt.order", "$.event_time", "$.id", "$[0]", "$[*]"] {
            #expect(try JSONSelector(stable).instabilityWarning == nil, "\(stable)")
        }
    }

    @Test("however characters are spread over the fields, the keys differ (H30)")
    func boundaries() throws {
        let keys = try [
            key(#"{"a":"ab","b":"c"}"#, "$.a", "$.b"), key(#"{"a":"a","b":"bc"}"#, "$.a", "$.b"), key(#"{"a":"a:b","b":"c"}"#, "$.a", "$.b"),
            key(#"{"a":"a","b":"b:c"}"#, "$.a", "$.b"), key(#"{"a":["ab","c"]}"#, "$.a"), key(#"{"a":["ab","c"]}"#, "$.a[*]"),
            key(#"{"a":["a","bc"]}"#, "$.a[*]"), key(#"{"a":"abc"}"#, "$.a"), key(#"{"b":"abc"}"#, "$.b"), key(#"{"a":1}"#, "$.a"),
            key(#"{"a":"1"}"#, "$.a"), key(#"{"a":true}"#, "$.a"), key(#"{"a":false}"#, "$.a"), key(#"{"a":0}"#, "$.a"),
            BusinessKey(fields: ["a": "ab", "b": "c"]), BusinessKey(fields: ["a": "a", "b": "bc"]), BusinessKey(fields: ["a": "abc"]),
            BusinessKey(fields: ["ab": "a", "b": "c"]),
        ]
        #expect(Set(keys).count == keys.count)
    }

    @Test("Unicode and case variants of an identity are different identities (H27)")
    func byteExact() throws {
        let names = ["caf\u{E9}", "cafe\u{301}", "CAF\u{E9}", "caf\u{E9} "]
        #expect(Set(try names.map { try BusinessKey(fields: ["name": $0]) }).count == names.count)
        #expect(Set(try names.map { try BusinessKey(selecting: [JSONSelector("$")], in: JSONValue($0)) }).count == names.count)
    }

    @Test("a field that identifies nothing is refused by name: all such payloads would be taken for one (H28)", arguments: [
        (#"{"version":3}"#, .missing), (#"{"id":null}"#, .null), (#"{"id":""}"#, .empty), (#"{"id":[]}"#, .empty), (#"{"id":{}}"#, .empty), ("[]", .missing),
    ] as [(String, BusinessKeyError.Gap)])
    func gaps(payload: String, gap: BusinessKeyError.Gap) {
        let error = #expect(throws: BusinessKeyError.self) { _ = try key(payload, "$.id") }
        #expect(error == .unusable(field: "$['id']", gap))
        #expect(error?.description.contains("$['id']") == true)
    }

    @Test("a gap in one of many elements, no element, no selector and no field are refused (H28)")
    func moreGaps() throws {
        #expect(throws: BusinessKeyError.self) { _ = try key(#"{"lines":[{"id":1},{}]}"#, "$.lines[*].id") }
        #expect(throws: BusinessKeyError.self) { _ = try key(#"{"lines":[]}"#, "$.lines[*].id") }
        #expect(throws: BusinessKeyError.noFields) { _ = try BusinessKey(selecting: [], in: [:]) }
        #expect(throws: BusinessKeyError.noFields) { _ = try BusinessKey(fields: [:]) }
        #expect(throws: BusinessKeyError.unusable(field: "nonce", .empty)) { _ = try BusinessKey(fields: ["device": "d", "nonce": ""]) }
        // Falsy is not empty.
        #expect(throws: Never.self) { _ = try key(#"{"a":0,"b":false}"#, "$.a", "$.b") }
    }

    @Test("whatever the field holds, the key is 64 printable characters (H28)")
    func shape() throws {
        var random = SeededRandom.fresh()
        for _ in 0..<200 {
            let value = String(repeating: RandomJSON.text(&random) + "\0\n", count: Int.random(in: 1...2_000, using: &random))
            let key = try BusinessKey(fields: ["device": value]).description
            #expect(key.utf8.count == 64)
            #expect(key.utf8.allSatisfy { (0x21...0x7E).contains($0) }, "seed \(random.seed)")
        }
    }

    @Test("identities whose digests share a prefix keep different keys (R15, H29)")
    func wholeDigest() throws {
        var seen: [Substring: BusinessKey] = [:]
        for number in 0..<200_000 {
            let key = try BusinessKey(fields: ["order": "\(number)"])
            if let other = seen.updateValue(key, forKey: key.description.prefix(6)) {
                #expect(other != key)
                #expect(other.description != key.description)
                return
            }
        }
        Issue.record("no two keys shared a prefix, so nothing was tested")
    }
}
