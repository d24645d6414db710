/// Reads a field of a form (`application/x-www-form-urlencoded`, WHATWG URL §5.1).
enum FormField {
    /// Every value of the field, in their order.
    static func values(of name: String, in form: some Collection<UInt8>) -> [String] {
        form.split(separator: UInt8(ascii: "&")).compactMap { pair in
            let sides = pair.split(separator: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
            guard decode(sides[0]) == Array(name.utf8) else { return nil }
            return String(decoding: sides.count == 2 ? decode(sides[1]) : [], as: UTF8.self)
        }
    }

    private static func decode(_ text: some Collection<UInt8>) -> [UInt8] {
        var bytes: [UInt8] = []
        var rest = text[...]
        while let byte = rest.popFirst() {
            let digits = rest.prefix(2)
            if byte == UInt8(ascii: "%"), digits.count == 2, !digits.contains(UInt8(ascii: "+")), !digits.contains(UInt8(ascii: "-")),
                let value = UInt8(String(decoding: digits, as: UTF8.self), radix: 16)
            {
                bytes.append(value)
                rest.removeFirst(2)
            } else {
                bytes.append(byte == UInt8(ascii: "+") ? UInt8(ascii: " ") : byte)
            }
        }
        return bytes
    }
}
