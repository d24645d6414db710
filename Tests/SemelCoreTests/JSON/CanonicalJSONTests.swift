import SemelCore
import Testing

@Suite("Canonical JSON (RFC 8785)")
struct CanonicalJSONTests {
    private func canonical(_ text: String, _ numbers: CanonicalNumbers = .exact) throws -> String {
        String(decoding: try json(text).canonicalBytes(numbers: numbers), as: UTF8.self)
    }

    @Test("doubles are written as appendix B says", arguments: [
        (0x0000_0000_0000_0000, "0"),
        (0x8000_0000_0000_0000, "0"),
        (0x0000_0000_0000_0001, "5e-324"),
        (0x8000_0000_0000_0001, "-5e-324"),
        (0x7FEF_FFFF_FFFF_FFFF, "1.7976931348623157e+308"),
        (0xFFEF_FFFF_FFFF_FFFF, "-1.7976931348623157e+308"),
        (0x4340_0000_0000_0000, "9007199254740992"),
        (0xC340_0000_0000_0000, "-9007199254740992"),
        (0x4430_0000_0000_0000, "295147905179352830000"),
        (0x44B5_2D02_C7E1_4AF5, "9.999999999999997e+22"),
        (0x44B5_2D02_C7E1_4AF6, "1e+23"),
        (0x44B5_2D02_C7E1_4AF7, "1.0000000000000001e+23"),
        (0x444B_1AE4_D6E2_EF4E, "999999999999999700000"),
        (0x444B_1AE4_D6E2_EF4F, "999999999999999900000"),
        (0x444B_1AE4_D6E2_EF50, "1e+21"),
        (0x3EB0_C6F7_A0B5_ED8C, "9.999999999999997e-7"),
        (0x3EB0_C6F7_A0B5_ED8D, "0.000001"),
        (0x41B3_DE43_5555_5553, "333333333.3333332"),
        (0x41B3_DE43_5555_5554, "333333333.33333325"),
        (0x41B3_DE43_5555_5555, "333333333.3333333"),
        (0x41B3_DE43_5555_5556, "333333333.3333334"),
        (0x41B3_DE43_5555_5557, "333333333.33333343"),
        (0xBECB_F647_612F_3696, "-0.0000033333333333333333"),
        (0x4314_3FF3_C1CB_0959, "1424953923781206.2"),
    ] as [(UInt64, String)])
    func appendixB(bits: UInt64, text: String) throws {
        let double = Double(bitPattern: bits)
        let number = try #require(JSONNumber(double))
        for numbers in [CanonicalNumbers.doubles, .exact] {
            #expect(String(decoding: JSONValue.number(number).canonicalBytes(numbers: numbers), as: UTF8.self) == text)
        }
        // And from the text in which Swift writes the double.
        #expect(try canonical(double.description, .doubles) == text)
        #expect(try canonical(text, .exact) == text)
    }

    @Test("NaN and the infinities of appendix B are no numbers", arguments: [0x7FFF_FFFF_FFFF_FFFF, 0x7FF0_0000_0000_0000] as [UInt64])
    func notFinite(bits: UInt64) {
        #expect(JSONNumber(Double(bitPattern: bits)) == nil)
    }

    @Test("the example of section 3.2.2 has the given form")
    func example() throws {
        let text = """
            {
              "numbers": [333333333.33333329, 1E30, 4.50,
                          2e-3, 0.000000000000000000000000001],
              "string": "\\u20ac$\\u000F\\u000aA'\\u0042\\u0022\\u005c\\\\\\"\\/",
              "literals": [null, true, false]
            }
            """
        let expected = #"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}"#
        #expect(try canonical(text, .doubles) == expected)
        // The first number has more digits than its double needs; the exact form keeps its value.
        #expect(try canonical(text) == expected.replacing("333333333.3333333", with: "333333333.33333329"))
    }

    @Test("names are in the order of section 3.2.3, by UTF-16 code units")
    func order() throws {
        let text = #"{"\u20ac":"Euro","\r":"CR","\ufb33":"Dalet","1":"One","\ud83d\ude00":"Emoji","\u0080":"Control","\u00f6":"O"}"#
        let values = try json(try canonical(text)).object?.members.map { $0.value.string }
        #expect(values == ["CR", "One", "Control", "O", "Euro", "Emoji", "Dalet"])
    }

    @Test("the order of names agrees with a comparison of UTF-16 code units")
    func orderProperty() {
        var random = SeededRandom.fresh()
        for _ in 0..<1_000 {
            var object = JSONObject()
            for _ in 0..<8 { object[RandomJSON.text(&random)] = JSONValue.null }
            let names = object.members.map(\.name)
            let expected = names.sorted { $0.utf16.lexicographicallyPrecedes($1.utf16) }
            let written = (try? JSONValue(parsing: JSONValue.object(object).canonicalBytes()))?.object?.members.map(\.name) ?? []
            #expect(written.map { Array($0.utf8) } == expected.map { Array($0.utf8) }, "seed \(random.seed)")
        }
    }

    @Test("a shuffled and reformatted text has the same canonical form (H26)")
    func reordering() throws {
        var random = SeededRandom.fresh()
        for _ in 0..<500 {
            let value = RandomJSON.value(&random)
            let other = RandomJSON.reordered(value, &random)
            #expect(other.canonicalBytes() == value.canonicalBytes(), "seed \(random.seed): \(value)")
            #expect(other.canonicalBytes(numbers: .doubles) == value.canonicalBytes(numbers: .doubles))
            // It is a form: the canonical form of a canonical form is itself.
            #expect(try JSONValue(parsing: value.canonicalBytes()).canonicalBytes() == value.canonicalBytes())
        }
        let reformatted = try canonical(" {\"b\" : [ 1.0 , 1e2 ] ,\n\"a\":\"\\u0041\\/\" } ")
        #expect(reformatted == #"{"a":"A/","b":[1,100]}"#)
    }

    @Test("different values have different canonical forms", arguments: [
        ("1", "\"1\""), ("null", "\"null\""), ("[]", "{}"), ("[1,2]", "[2,1]"), ("[[1],2]", "[[1,2]]"), ("{\"a\":null}", "{}"),
        ("\"\u{E9}\"", "\"e\u{301}\""), ("\"A\"", "\"a\""), ("0", "false"), ("\"\"", "null"), ("\"a\\u0000\"", "\"a\""),
        ("12345678901234567890", "12345678901234567891"), ("9007199254740993", "9007199254740992"),
        ("1e-323", "1.1e-323"), ("90071992547409.921", "90071992547409.92"), ("-1", "1"),
    ])
    func different(left: String, right: String) throws {
        // As bytes: Swift's text comparison takes Unicode variants for equal.
        #expect(try json(left).canonicalBytes() != json(right).canonicalBytes())
    }

    @Test("RFC 8785 to the letter merges ids beyond the precision of a double; the form used for identity does not")
    func precision() throws {
        #expect(try canonical("12345678901234567890", .doubles) == canonical("12345678901234567891", .doubles))
        #expect(try canonical("12345678901234567891") == "12345678901234567891")
        #expect(try canonical("1.2345678901234567891e19") == "12345678901234567891")
        #expect(try canonical("1234567890123456789012345") == "1.234567890123456789012345e+24")
    }

    @Test("every notation of a number has one form", arguments: [
        (["0", "-0", "0.0", "0e5", "-0E-9", "0.000e99999999999999999999"], "0"),
        (["1", "1.0", "1e0", "10e-1", "0.1e1", "0.00100E3", "1.000"], "1"),
        (["-100", "-1e2", "-1.0E+2", "-0.01e4"], "-100"),
        (["0.5", "5e-1", "0.50", "0.05e1"], "0.5"),
        (["1e20", "100000000000000000000"], "100000000000000000000"),
        (["1e21", "1000000000000000000000", "10e20"], "1e+21"),
        (["1e-6", "0.000001", "0.0000010"], "0.000001"),
        (["1e-7", "0.0000001", "10e-8"], "1e-7"),
        (["12.5e-8", "1.25e-7"], "1.25e-7"),
        (["1.5e300", "15e299"], "1.5e+300"),
    ])
    func notations(lexemes: [String], form: String) throws {
        for lexeme in lexemes {
            #expect(try canonical(lexeme, .exact) == form, "\(lexeme)")
            #expect(try canonical(lexeme, .doubles) == form, "\(lexeme)")
        }
    }

    @Test("for doubles the two forms agree, and reading the form gives the double back")
    func doubles() throws {
        var random = SeededRandom.fresh()
        for _ in 0..<20_000 {
            let double = Double(bitPattern: random.next())
            guard let number = JSONNumber(double) else { continue }
            let form = JSONValue.number(number).canonicalBytes(numbers: .doubles)
            #expect(form == JSONValue.number(number).canonicalBytes(), "seed \(random.seed)")
            #expect(Double(String(decoding: form, as: UTF8.self)) == double, "seed \(random.seed)")
        }
    }
}
