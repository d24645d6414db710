extension JSONValue {
    /// The compact JSON text in UTF-8: no white space, members in their order, numbers in their own digits, and only those
    /// characters escaped that must be. Reading it gives an equal value.
    public func serialized() -> [UInt8] {
        var text: [UInt8] = []
        serialize(into: &text)
        return text
    }

    /// Appends the compact JSON text.
    public func serialize(into text: inout [UInt8]) {
        write(into: &text, canonicalNumbers: nil)
    }

    /// The two forms, compact and canonical, differ in the order of members and in numbers only.
    func write(into text: inout [UInt8], canonicalNumbers: CanonicalNumbers?) {
        switch self {
        case .null: text += "null".utf8
        case .bool(let flag): text += (flag ? "true" : "false").utf8
        case .number(let number):
            if let canonicalNumbers {
                number.writeCanonical(into: &text, canonicalNumbers)
            } else {
                text += number.lexeme.utf8
            }
        case .string(let string): Self.write(string, into: &text)
        case .array(let elements):
            text.append(UInt8(ascii: "["))
            for (index, element) in elements.enumerated() {
                if index > 0 { text.append(UInt8(ascii: ",")) }
                element.write(into: &text, canonicalNumbers: canonicalNumbers)
            }
            text.append(UInt8(ascii: "]"))
        case .object(let object):
            text.append(UInt8(ascii: "{"))
            let members = canonicalNumbers == nil ? object.members : object.canonicallyOrderedMembers
            for (index, member) in members.enumerated() {
                if index > 0 { text.append(UInt8(ascii: ",")) }
                Self.write(member.name, into: &text)
                text.append(UInt8(ascii: ":"))
                member.value.write(into: &text, canonicalNumbers: canonicalNumbers)
            }
            text.append(UInt8(ascii: "}"))
        }
    }

    /// Writes a string with the escapes of RFC 8785 §3.2.2.2: the short ones, `\u00xx` for other control characters, and
    /// every other character as it is.
    private static func write(_ string: String, into text: inout [UInt8]) {
        text.append(UInt8(ascii: "\""))
        defer { text.append(UInt8(ascii: "\"")) }
        let needsEscape = string.utf8.contains { $0 < 0x20 || $0 == UInt8(ascii: "\"") || $0 == UInt8(ascii: "\\") }
        guard needsEscape else {
            // Most strings: copied as a whole.
            text.append(contentsOf: string.utf8)
            return
        }
        for byte in string.utf8 {
            switch byte {
            case UInt8(ascii: "\""): text += "\\\"".utf8
            case UInt8(ascii: "\\"): text += "\\\\".utf8
            case 0x08: text += "\\b".utf8
            case 0x09: text += "\\t".utf8
            case 0x0A: text += "\\n".utf8
            case 0x0C: text += "\\f".utf8
            case 0x0D: text += "\\r".utf8
            case ..<0x20: text += (byte < 0x10 ? "\\u000" : "\\u00").utf8 + Array(String(byte, radix: 16).utf8)
            default: text.append(byte)
            }
        }
    }
}
