/// A strict reader of RFC 8259 over the bytes of a text. It looks at each byte once and builds text only from whole runs.
struct JSONParser {
    private let text: UnsafeBufferPointer<UInt8>
    private let maximumDepth: Int
    private var position = 0

    init(_ text: UnsafeBufferPointer<UInt8>, maximumDepth: Int) {
        self.text = text
        self.maximumDepth = maximumDepth
    }

    mutating func parseText() throws(JSONError) -> JSONValue {
        if text.starts(with: [0xEF, 0xBB, 0xBF]) { throw failure(.byteOrderMark, at: 0) }
        let value = try parseValue(depth: 0)
        skipWhiteSpace()
        guard position == text.count else { throw failure(.trailingBytes, at: position) }
        return value
    }

    private mutating func parseValue(depth: Int) throws(JSONError) -> JSONValue {
        skipWhiteSpace()
        switch try peek("a value") {
        case UInt8(ascii: "{"): return .object(try parseObject(depth: depth + 1))
        case UInt8(ascii: "["): return .array(try parseArray(depth: depth + 1))
        case UInt8(ascii: "\""): return .string(try parseString())
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return .number(try parseNumber())
        case UInt8(ascii: "t"): return try parseLiteral("true", .bool(true))
        case UInt8(ascii: "f"): return try parseLiteral("false", .bool(false))
        case UInt8(ascii: "n"): return try parseLiteral("null", .null)
        case let byte: throw failure(.unexpectedByte(byte, expected: "a value"), at: position)
        }
    }

    // MARK: Containers

    private mutating func parseObject(depth: Int) throws(JSONError) -> JSONObject {
        try enter(depth: depth)
        var members: [JSONObject.Member] = []
        // A few names are compared one by one; many are looked up, so that a hostile object costs no quadratic time.
        var names: Set<ExactText> = []
        if skip(UInt8(ascii: "}")) { return JSONObject() }
        while true {
            skipWhiteSpace()
            let start = position
            guard try peek("a name") == UInt8(ascii: "\"") else { throw unexpected("a name") }
            let name = try parseString()
            let isNew: Bool
            if members.count < 12 {
                isNew = !members.contains { ExactText($0.name) == ExactText(name) }
            } else {
                if names.isEmpty { names = Set(members.map { ExactText($0.name) }) }
                isNew = names.insert(ExactText(name)).inserted
            }
            guard isNew else { throw failure(.duplicateName(name), at: start) }
            guard skip(UInt8(ascii: ":")) else { throw unexpected("':'") }
            members.append(JSONObject.Member(name: name, value: try parseValue(depth: depth)))
            if skip(UInt8(ascii: ",")) { continue }
            if skip(UInt8(ascii: "}")) { return JSONObject(uniqueMembers: members) }
            throw unexpected("',' or '}'")
        }
    }

    private mutating func parseArray(depth: Int) throws(JSONError) -> [JSONValue] {
        try enter(depth: depth)
        var elements: [JSONValue] = []
        if skip(UInt8(ascii: "]")) { return elements }
        while true {
            elements.append(try parseValue(depth: depth))
            if skip(UInt8(ascii: ",")) { continue }
            if skip(UInt8(ascii: "]")) { return elements }
            throw unexpected("',' or ']'")
        }
    }

    private mutating func enter(depth: Int) throws(JSONError) {
        guard depth <= maximumDepth else { throw failure(.tooDeep(limit: maximumDepth), at: position) }
        position += 1
    }

    // MARK: Scalars

    private mutating func parseLiteral(_ literal: StaticString, _ value: JSONValue) throws(JSONError) -> JSONValue {
        for index in 0..<literal.utf8CodeUnitCount {
            guard try peek("'\(literal)'") == literal.utf8Start[index] else { throw unexpected("'\(literal)'") }
            position += 1
        }
        return value
    }

    private mutating func parseNumber() throws(JSONError) -> JSONNumber {
        let start = position
        if text[position] == UInt8(ascii: "-") { position += 1 }
        if try peek("a digit") == UInt8(ascii: "0") {
            position += 1
            if isDigit { throw failure(.leadingZero, at: start) }
        } else {
            try skipDigits()
        }
        if position < text.count, text[position] == UInt8(ascii: ".") {
            position += 1
            try skipDigits()
        }
        let mantissa = start..<position
        var hasExponent = false
        if position < text.count, text[position] | 0x20 == UInt8(ascii: "e") {
            hasExponent = true
            position += 1
            let sign = try peek("a digit")
            if sign == UInt8(ascii: "+") || sign == UInt8(ascii: "-") { position += 1 }
            try skipDigits()
        }
        let number = JSONNumber(validLexeme: String(decoding: text[start..<position], as: UTF8.self))
        // Without an exponent it takes hundreds of digits to leave the range.
        if hasExponent || position - start > 300 {
            let double = number.double
            let isZero = text[mantissa].allSatisfy { !(UInt8(ascii: "1")...UInt8(ascii: "9")).contains($0) }
            guard double.isFinite, isZero || double != 0 else { throw failure(.numberOutOfRange, at: start) }
        }
        return number
    }

    private mutating func parseString() throws(JSONError) -> String {
        position += 1
        var runStart = position
        // Filled only when there are escapes; otherwise the string is one run of the text.
        var unescaped: [UInt8] = []
        while true {
            let byte = try peek("the end of a string")
            switch byte {
            case UInt8(ascii: "\""):
                let run = text[runStart..<position]
                position += 1
                if unescaped.isEmpty { return String(decoding: run, as: UTF8.self) }
                unescaped += run
                return String(decoding: unescaped, as: UTF8.self)
            case UInt8(ascii: "\\"):
                unescaped += text[runStart..<position]
                try parseEscape(into: &unescaped)
                runStart = position
            case ..<0x20: throw failure(.controlCharacter(byte), at: position)
            case ..<0x80: position += 1
            default: try skipMultibyteCharacter(startingWith: byte)
            }
        }
    }

    private mutating func parseEscape(into unescaped: inout [UInt8]) throws(JSONError) {
        let start = position
        position += 1
        let kind = try peek("an escape")
        position += 1
        switch kind {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): unescaped.append(kind)
        case UInt8(ascii: "b"): unescaped.append(0x08)
        case UInt8(ascii: "f"): unescaped.append(0x0C)
        case UInt8(ascii: "n"): unescaped.append(0x0A)
        case UInt8(ascii: "r"): unescaped.append(0x0D)
        case UInt8(ascii: "t"): unescaped.append(0x09)
        case UInt8(ascii: "u"):
            var scalar = try parseHexadecimal(escapeStart: start)
            if (0xD800...0xDBFF).contains(scalar) {
                guard position + 1 < text.count, text[position] == UInt8(ascii: "\\"), text[position + 1] == UInt8(ascii: "u")
                else { throw failure(.loneSurrogate, at: start) }
                position += 2
                let low = try parseHexadecimal(escapeStart: position - 2)
                guard (0xDC00...0xDFFF).contains(low) else { throw failure(.loneSurrogate, at: start) }
                scalar = 0x10000 + (scalar - 0xD800) << 10 + (low - 0xDC00)
            }
            // What is left that is no scalar is a low surrogate without a high one before it.
            guard let scalar = Unicode.Scalar(scalar) else { throw failure(.loneSurrogate, at: start) }
            unescaped += UTF8.encode(scalar)!
        default: throw failure(.invalidEscape, at: start)
        }
    }

    private mutating func parseHexadecimal(escapeStart: Int) throws(JSONError) -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<4 {
            guard let digit = hexadecimalValue(of: try peek("a hexadecimal digit")) else {
                throw failure(.invalidEscape, at: escapeStart)
            }
            value = value << 4 | UInt32(digit)
            position += 1
        }
        return value
    }

    /// Steps over one character of two to four bytes: no overlong forms, no surrogates, nothing above U+10FFFF (RFC 3629 §4).
    private mutating func skipMultibyteCharacter(startingWith first: UInt8) throws(JSONError) {
        let second: ClosedRange<UInt8>
        let length: Int
        switch first {
        case 0xC2...0xDF: (length, second) = (2, 0x80...0xBF)
        case 0xE0: (length, second) = (3, 0xA0...0xBF)
        case 0xE1...0xEC, 0xEE...0xEF: (length, second) = (3, 0x80...0xBF)
        case 0xED: (length, second) = (3, 0x80...0x9F)
        case 0xF0: (length, second) = (4, 0x90...0xBF)
        case 0xF1...0xF3: (length, second) = (4, 0x80...0xBF)
        case 0xF4: (length, second) = (4, 0x80...0x8F)
        default: throw failure(.invalidUTF8, at: position)
        }
        guard position + length <= text.count, second.contains(text[position + 1]),
            text[position + 2..<position + length].allSatisfy({ $0 & 0xC0 == 0x80 })
        else { throw failure(.invalidUTF8, at: position) }
        position += length
    }

    // MARK: Bytes

    private var isDigit: Bool {
        position < text.count && (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(text[position])
    }

    private mutating func skipDigits() throws(JSONError) {
        guard isDigit else { throw unexpected("a digit") }
        repeat { position += 1 } while isDigit
    }

    private mutating func skipWhiteSpace() {
        while position < text.count {
            switch text[position] {
            case 0x20, 0x09, 0x0A, 0x0D: position += 1
            default: return
            }
        }
    }

    /// Skips white space, and the byte if it comes next.
    private mutating func skip(_ byte: UInt8) -> Bool {
        skipWhiteSpace()
        guard position < text.count, text[position] == byte else { return false }
        position += 1
        return true
    }

    private func peek(_ expected: @autoclosure () -> String) throws(JSONError) -> UInt8 {
        guard position < text.count else { throw failure(.unexpectedEnd(expected: expected()), at: position) }
        return text[position]
    }

    private func unexpected(_ expected: String) -> JSONError {
        position < text.count
            ? failure(.unexpectedByte(text[position], expected: expected), at: position)
            : failure(.unexpectedEnd(expected: expected), at: position)
    }

    private func failure(_ reason: JSONError.Reason, at offset: Int) -> JSONError {
        JSONError(reason, at: offset, of: text)
    }
}
