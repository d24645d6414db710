import SemelCore
import Testing

func json(_ text: String) throws -> JSONValue {
    try JSONValue(parsing: text.utf8)
}

@Suite("Reading JSON")
struct JSONParserTests {
    @Test("values of every kind are read and reached")
    func reads() throws {
        let value = try json(
            #" { "id" : "a\"b\\c\/\b\f\n\r\t\u00e9\ud83d\ude00" , "n":-12.50e3, "big":18446744073709551615, "list":[1,[],{},true,false,null], "none":null } "#)
        #expect(value["id"]?.string == "a\"b\\c/\u{8}\u{C}\n\r\t\u{E9}\u{1F600}")
        #expect(value["n"]?.double == -12_500)
        #expect(value["n"]?.number?.lexeme == "-12.50e3")
        #expect(value["n"]?.integer == nil)
        #expect(value["big"]?.integer == nil)
        #expect(value["big"]?.number?.lexeme == "18446744073709551615")
        #expect(value["list"]?[0]?.integer == 1)
        #expect(value["list"]?[1]?.array == [])
        #expect(value["list"]?[2]?.object == JSONObject())
        #expect(value["list"]?[3]?.bool == true)
        #expect(value["list"]?[4]?.bool == false)
        #expect(value["list"]?[5]?.isNull == true)
        #expect(value["list"]?[6] == nil)
        #expect(value["list"]?[-1] == nil)
        #expect(value["none"] == .some(.null))
        #expect(value["missing"] == nil)
        #expect(value["id"]?["deeper"] == nil)
        #expect(value.object?.members.map(\.name) == ["id", "n", "big", "list", "none"])
    }

    @Test("a scalar is a whole text", arguments: ["null", " true\n", "false", "0", "-0", "\"\"", "\t[]\r\n", "{}", "1E+2", "1e-7", "0e99999999999999999999"])
    func scalars(text: String) throws {
        _ = try json(text)
    }

    @Test("what is not JSON is refused with its place and reason", arguments: [
        ("", 0, .unexpectedEnd(expected: "a value")),
        (" ", 1, .unexpectedEnd(expected: "a value")),
        ("{", 1, .unexpectedEnd(expected: "a name")),
        ("[1", 2, .unexpectedEnd(expected: "',' or ']'")),
        ("[1,]", 3, .unexpectedByte(0x5D, expected: "a value")),
        ("[,1]", 1, .unexpectedByte(0x2C, expected: "a value")),
        (#"{"a":1,}"#, 7, .unexpectedByte(0x7D, expected: "a name")),
        (#"{"a" 1}"#, 5, .unexpectedByte(0x31, expected: "':'")),
        (#"{"a":1 "b":2}"#, 7, .unexpectedByte(0x22, expected: "',' or '}'")),
        ("{a:1}", 1, .unexpectedByte(0x61, expected: "a name")),
        ("[1]]", 3, .trailingBytes),
        ("1 2", 2, .trailingBytes),
        ("{}{}", 2, .trailingBytes),
        ("null\0", 4, .trailingBytes),
        ("nul", 3, .unexpectedEnd(expected: "'null'")),
        ("nuLl", 2, .unexpectedByte(0x4C, expected: "'null'")),
        ("True", 0, .unexpectedByte(0x54, expected: "a value")),
        ("NaN", 0, .unexpectedByte(0x4E, expected: "a value")),
        ("-Infinity", 1, .unexpectedByte(0x49, expected: "a digit")),
        ("01", 0, .leadingZero),
        ("-01", 0, .leadingZero),
        ("+1", 0, .unexpectedByte(0x2B, expected: "a value")),
        (".5", 0, .unexpectedByte(0x2E, expected: "a value")),
        ("-", 1, .unexpectedEnd(expected: "a digit")),
        ("1.", 2, .unexpectedEnd(expected: "a digit")),
        ("1.e1", 2, .unexpectedByte(0x65, expected: "a digit")),
        ("1e", 2, .unexpectedEnd(expected: "a digit")),
        ("1e+", 3, .unexpectedEnd(expected: "a digit")),
        ("0x10", 1, .trailingBytes),
        ("1e400", 0, .numberOutOfRange),
        ("[-1e309]", 1, .numberOutOfRange),
        ("1e-400", 0, .numberOutOfRange),
        ("1e99999999999999999999", 0, .numberOutOfRange),
        ("'a'", 0, .unexpectedByte(0x27, expected: "a value")),
        ("\"a", 2, .unexpectedEnd(expected: "the end of a string")),
        ("\"a\nb\"", 2, .controlCharacter(0x0A)),
        ("\"\0\"", 1, .controlCharacter(0)),
        (#""\x""#, 1, .invalidEscape),
        (#""\u12G4""#, 1, .invalidEscape),
        (#""\u12""#, 1, .invalidEscape),
        (#""\"#, 2, .unexpectedEnd(expected: "an escape")),
        (#""\ud800""#, 1, .loneSurrogate),
        (#""\ud800x""#, 1, .loneSurrogate),
        (#""\ud800\n""#, 1, .loneSurrogate),
        (#""\ud800\ud800""#, 1, .loneSurrogate),
        (#""\ud800\ue000""#, 1, .loneSurrogate),
        (#""\ud800\u0041""#, 1, .loneSurrogate),
        (#""a\udc00""#, 2, .loneSurrogate),
        ("// comment\n1", 0, .unexpectedByte(0x2F, expected: "a value")),
        ("[1]/**/", 3, .trailingBytes),
        ("\u{A0}1", 0, .unexpectedByte(0xC2, expected: "a value")),
        ("\u{FEFF}1", 0, .byteOrderMark),
    ] as [(String, Int, JSONError.Reason)])
    func refuses(text: String, offset: Int, reason: JSONError.Reason) {
        let error = #expect(throws: JSONError.self) { _ = try json(text) }
        #expect(error?.reason == reason)
        #expect(error?.offset == offset)
    }

    @Test("bytes that are not UTF-8 are refused, in strings and elsewhere", arguments: [
        [0x80], [0xC3], [0xC3, 0x28], [0xC0, 0xAF], [0xC1, 0xBF], [0xE0, 0x80, 0xAF], [0xE2, 0x82], [0xED, 0xA0, 0x80],
        [0xED, 0xBF, 0xBF], [0xF0, 0x80, 0x80, 0xAF], [0xF0, 0x9F, 0x98], [0xF4, 0x90, 0x80, 0x80], [0xF5, 0x80, 0x80, 0x80],
        [0xFF], [0xFE], [0xE2, 0x28, 0xA1], [0xE2, 0x82, 0x28], [0xF0, 0x9F, 0x28, 0x80],
    ] as [[UInt8]])
    func invalidUTF8(bytes: [UInt8]) {
        let error = #expect(throws: JSONError.self) { _ = try JSONValue(parsing: [0x22, 0x61] + bytes + [0x22]) }
        #expect(error?.reason == .invalidUTF8)
        #expect(error?.offset == 2)
        #expect(throws: JSONError.self) { _ = try JSONValue(parsing: bytes + Array("1".utf8)) }
    }

    @Test("every character of UTF-8's corner cases is read as itself")
    func validUTF8() throws {
        for scalar in ["\u{80}", "\u{7FF}", "\u{800}", "\u{FFF}", "\u{1000}", "\u{CFFF}", "\u{D000}", "\u{D7FF}", "\u{E000}", "\u{FFFF}", "\u{10000}", "\u{3FFFF}", "\u{40000}", "\u{FFFFF}", "\u{100000}", "\u{10FFFF}"] {
            #expect(try json("\"\(scalar)\"").string?.unicodeScalars.elementsEqual(scalar.unicodeScalars) == true)
        }
    }

    @Test("a name that occurs twice is refused, also when an escape hides it, in small and in large objects", arguments: [
        (#"{"a":1,"a":1}"#, 7), (#"{"a":1,"\u0061":2}"#, 7), (#"{"":1,"b":2,"":3}"#, 12), (#"[{"x":{"é":1,"\u00e9":2}}]"#, 14),
    ])
    func duplicateNames(text: String, offset: Int) {
        let error = #expect(throws: JSONError.self) { _ = try json(text) }
        #expect(error?.offset == offset)
        if case .duplicateName = error?.reason {} else { Issue.record("\(String(describing: error))") }

        let many = (0..<40).map { #""n\#($0)":\#($0)"# }
        for repeated in [0, 5, 11, 12, 13, 39] {
            let large = "{" + (many + [#""n\#(repeated)":0"#]).joined(separator: ",") + "}"
            #expect(throws: JSONError.self) { _ = try json(large) }
        }
        #expect(throws: Never.self) { _ = try json("{" + many.joined(separator: ",") + "}") }
    }

    @Test("names that only Unicode equivalence or case makes equal are different names (H27)")
    func exactNames() throws {
        let value = try json("{\"\u{E9}\":1,\"e\u{301}\":2,\"E\u{301}\":3}")
        #expect(value["\u{E9}"]?.integer == 1)
        #expect(value["e\u{301}"]?.integer == 2)
        #expect(value["E\u{301}"]?.integer == 3)
        #expect(JSONValue("\u{E9}") != JSONValue("e\u{301}"))
    }

    @Test("nesting is bounded, so hostile input cannot exhaust the stack")
    func depth() throws {
        func nested(_ depth: Int) -> String { String(repeating: "[", count: depth) + String(repeating: "]", count: depth) }
        _ = try json(nested(128))
        let error = #expect(throws: JSONError.self) { _ = try json(nested(129)) }
        #expect(error?.reason == .tooDeep(limit: 128))
        #expect(error?.offset == 128)
        #expect(throws: JSONError.self) { _ = try json(String(repeating: "[", count: 1_000_000)) }
        #expect(throws: JSONError.self) { _ = try json(String(repeating: #"{"a":"#, count: 200_000)) }
        #expect(throws: JSONError.self) { _ = try JSONValue(parsing: "[[1]]".utf8, maximumDepth: 1) }
    }

    @Test("a large object costs no quadratic time")
    func largeObject() throws {
        let text = "{" + (0..<50_000).map { "\"name\($0)\":0" }.joined(separator: ",") + "}"
        #expect(try json(text).object?.members.count == 50_000)
    }

    @Test("an error names line and column in characters, says what is wrong, and shows no control characters")
    func errorText() {
        let error = #expect(throws: JSONError.self) { _ = try json("{\n  \"é\": 1,\n  \"é\": 2\n}") }
        #expect(error?.line == 3)
        #expect(error?.column == 3)
        #expect(error?.description == "line 3, column 3 (byte 15): the name \"é\" occurs twice in one object")
        let second = #expect(throws: JSONError.self) { _ = try json("[1,\0]") }
        #expect(second?.description == "line 1, column 4 (byte 3): the byte 0x0 stands where a value is expected")
    }

    @Test("numbers of hundreds of digits are read in full, and stay within the range of a double")
    func longNumbers() throws {
        let digits = String(repeating: "9", count: 308)
        #expect(try json(digits).number?.lexeme == digits)
        #expect(throws: JSONError.self) { _ = try json(digits + "9") }
        #expect(try json("0." + String(repeating: "0", count: 400)).double == 0)
        #expect(throws: JSONError.self) { _ = try json("0." + String(repeating: "0", count: 400) + "1") }
        #expect(try json("0." + String(repeating: "0", count: 400) + "1e401").double == 1)
        #expect(try json("5e-324").double == 5e-324)
        #expect(try json("1.7976931348623157e308").double == .greatestFiniteMagnitude)
    }

    @Test("reading what was serialized gives the same value")
    func roundTrip() throws {
        var random = SeededRandom.fresh()
        for _ in 0..<1_000 {
            let value = RandomJSON.value(&random)
            let text = value.serialized()
            let read = try JSONValue(parsing: text)
            #expect(read == value, "seed \(random.seed): \(value)")
            #expect(read.hashValue == value.hashValue)
            #expect(read.serialized() == text)
            // Not every collection has its bytes in one piece.
            #expect(try JSONValue(parsing: text.lazy.map { $0 }) == value)
        }
    }

    @Test("damaged text never traps the reader, and what it accepts it can write and read again")
    func fuzz() throws {
        var random = SeededRandom.fresh()
        var accepted = 0
        for _ in 0..<3_000 {
            var text = RandomJSON.value(&random, depth: 2).serialized()
            for _ in 0..<Int.random(in: 1...3, using: &random) where !text.isEmpty {
                let place = Int.random(in: text.indices, using: &random)
                switch Int.random(in: 0..<4, using: &random) {
                case 0: text[place] = UInt8(truncatingIfNeeded: random.next())
                case 1: text.remove(at: place)
                case 2: text.insert(Array("\"\\{}[]:,eE+-.019u".utf8).randomElement(using: &random)!, at: place)
                default: text.removeLast(text.count - place)
                }
            }
            guard let value = try? JSONValue(parsing: text) else { continue }
            accepted += 1
            #expect(try JSONValue(parsing: value.serialized()) == value, "seed \(random.seed)")
        }
        #expect(accepted > 0, "everything was refused; seed \(random.seed)")
    }

    @Test("values are built from literals and members, and written in their order")
    func building() {
        var object = JSONObject()
        object["result"] = "claimed"
        object["epoch"] = 7
        object["gone"] = true
        object["outcome"] = ["status": 201, "headers": [["name", "value"]], "body": nil]
        object["epoch"] = JSONValue(UInt64.max)
        object["gone"] = nil
        let epoch = 3
        #expect(
            JSONValue.object(object).description
                == #"{"result":"claimed","epoch":18446744073709551615,"outcome":{"status":201,"headers":[["name","value"]],"body":null}}"#)
        #expect(JSONValue("a\u{0}\u{1F}\"\\/\u{7F}é").description == "\"a\\u0000\\u001f\\\"\\\\/\u{7F}é\"")
        #expect(JSONValue("epoch \(epoch)") == "epoch 3")
        #expect(JSONNumber(.infinity) == nil)
        #expect(JSONNumber(.nan) == nil)
    }
}
