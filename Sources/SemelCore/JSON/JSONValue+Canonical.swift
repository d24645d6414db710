/// How the canonical form treats numbers that a double cannot hold exactly.
public enum CanonicalNumbers: Hashable, Sendable {
    /// By their decimal value: two numbers have the same form only if they are the same number.
    ///
    /// The notation is that of RFC 8785, and so is the whole result wherever a number's digits are those of a double: for
    /// everything within I-JSON (RFC 7493 §2.2). Beyond it RFC 8785 merges what senders keep apart: the 64-bit ids
    /// `12345678901234567890` and `12345678901234567891` are one double. To take a request for a repetition of another is
    /// worse than not to recognise one, and to refuse such ids would refuse many honest services. So this is what
    /// fingerprints and business keys use. A retry that passes through a reader which rounds to doubles is a mismatch.
    case exact

    /// By their nearest double, as RFC 8785 §3.2.2.3 says to the letter, for exchange with other implementations.
    /// Different numbers may get the same form: do not use it for identity.
    case doubles
}

extension JSONValue {
    /// The canonical form of RFC 8785 (JSON Canonicalization Scheme) in UTF-8: members in the order of the UTF-16 code units
    /// of their names, numbers in the notation of ECMAScript, minimal escapes, no white space.
    ///
    /// Texts that differ only in the order of members, in white space, in escapes or in the notation of numbers have the
    /// same form (H26). Strings are not normalised: Unicode variants differ (H27).
    ///
    /// - Parameter numbers: what happens beyond the precision of a double; see ``CanonicalNumbers``.
    public func canonicalBytes(numbers: CanonicalNumbers = .exact) -> [UInt8] {
        var text: [UInt8] = []
        write(into: &text, canonicalNumbers: numbers)
        return text
    }
}

extension JSONObject {
    var canonicallyOrderedMembers: [Member] {
        members.sorted { Self.precedesInUTF16($0.name, $1.name) }
    }

    /// Whether `left` comes before `right` in the order of UTF-16 code units, decided on UTF-8.
    ///
    /// The two orders agree but for characters beyond U+FFFF (first byte 0xF0–0xF4): in UTF-16 they begin with a surrogate,
    /// so they come before U+E000–U+FFFF (first byte 0xEE or 0xEF).
    static func precedesInUTF16(_ left: String, _ right: String) -> Bool {
        func rank(_ byte: UInt8) -> UInt8 { byte == 0xEE || byte == 0xEF ? byte + 0x10 : byte }
        for (left, right) in zip(left.utf8, right.utf8) where left != right {
            return rank(left) < rank(right)
        }
        return left.utf8.count < right.utf8.count
    }
}

extension JSONNumber {
    func writeCanonical(into text: inout [UInt8], _ numbers: CanonicalNumbers) {
        let isPlainInteger = lexeme.utf8.allSatisfy { $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }
        if isPlainInteger, lexeme.utf8.count <= (numbers == .exact ? 21 : 15) {
            // Most numbers: an integer in plain digits is its own canonical form (RFC 8259 allows no leading zeros).
            text += lexeme.utf8
            return
        }
        switch numbers {
        case .exact: text += DecimalNotation(lexeme.utf8).ecmaScript
        case .doubles: text += DecimalNotation(double.description.utf8).ecmaScript
        }
    }
}
