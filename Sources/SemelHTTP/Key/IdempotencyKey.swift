internal import HTTPTypes
internal import RawStructuredFieldValues
internal import Semel

/// Reads keys as clients write them (draft-ietf-httpapi-idempotency-key-header).
///
/// A key is 1 to 255 bytes of printable ASCII, opaque and case-sensitive (H27, H28).
enum IdempotencyKey {
    /// The key of a request's header field, or `nil` when there is none.
    /// - Throws: a `key-malformed` problem for two field lines, a list, and everything else that is not one key.
    static func read(_ name: HTTPField.Name, of request: HTTPRequest, syntax: HTTPPolicy.KeySyntax) throws(HTTPProblem) -> OperationKey? {
        let lines = request.headerFields[fields: name]
        guard let line = lines.first else { return nil }
        guard lines.count == 1 else { throw malformed("There are \(lines.count) \(name) fields; send one.") }
        return try parse(line.value, syntax: syntax)
    }

    /// Reads a field value: one RFC 8941 String, whose parameters mean nothing here.
    static func parse(_ value: String, syntax: HTTPPolicy.KeySyntax) throws(HTTPProblem) -> OperationKey {
        let text = value.trimmingBlanks
        guard text.utf8.first == UInt8(ascii: "\"") else {
            guard syntax == .lenient else {
                throw malformed("The key is not a quoted string (RFC 8941); write it as \"…\", with the quotes.")
            }
            return try bare(text)
        }
        // Most keys have neither escapes nor parameters.
        let inside = text.utf8.dropFirst().dropLast()
        if text.utf8.count >= 2, text.utf8.last == UInt8(ascii: "\""), inside.allSatisfy(isPlain) { return try key(inside) }
        var parser = StructuredFieldValueParser(Array(text.utf8))
        guard let item = try? parser.parseItemFieldValue(), case .string(let string) = item.rfc9651BareItem else {
            throw malformed("The key is not one quoted string (RFC 8941).")
        }
        return try key(string.utf8)
    }

    /// A key from somewhere without quotes: a bare field value, or the field of a form.
    static func bare(_ text: some StringProtocol) throws(HTTPProblem) -> OperationKey {
        // What separates fields, members and parameters cannot be part of a value that has no quotes.
        guard text.utf8.allSatisfy({ isPlain($0) && $0 != UInt8(ascii: ",") && $0 != UInt8(ascii: ";") && $0 != UInt8(ascii: " ") }) else {
            throw malformed("The key has characters that a key without quotes cannot have.")
        }
        return try key(text.utf8)
    }

    private static func key(_ bytes: some Collection<UInt8>) throws(HTTPProblem) -> OperationKey {
        do {
            return try OperationKey(bytes: Array(bytes))
        } catch {
            throw malformed(error.description)
        }
    }

    /// Printable ASCII but for the quote and the backslash.
    private static func isPlain(_ byte: UInt8) -> Bool {
        byte >= 0x20 && byte <= 0x7E && byte != UInt8(ascii: "\"") && byte != UInt8(ascii: "\\")
    }

    private static func malformed(_ detail: String) -> HTTPProblem {
        HTTPProblem(.keyMalformed, detail, isSafeForNewKey: true)
    }
}
