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
        var value: String?
        for field in request.headerFields where field.name == name {
            guard value == nil else {
                throw malformed("There are \(request.headerFields[fields: name].count) \(name) fields; send one.")
            }
            value = field.value
        }
        return if let value { try parse(value, syntax: syntax) } else { nil }
    }

    /// Reads a field value: one RFC 8941 String, whose parameters mean nothing here.
    static func parse(_ value: String, syntax: HTTPPolicy.KeySyntax) throws(HTTPProblem) -> OperationKey {
        // Most keys have neither escapes nor parameters.
        if let key = value.utf8.withContiguousStorageIfAvailable(plainKey) ?? nil { return try key.get() }
        let text = value.trimmingBlanks
        guard text.utf8.first == UInt8(ascii: "\"") else {
            guard syntax == .lenient else {
                throw malformed("The key is not a quoted string (RFC 8941); write it as \"…\", with the quotes.")
            }
            return try bare(text)
        }
        var parser = StructuredFieldValueParser(Array(text.utf8))
        guard let item = try? parser.parseItemFieldValue(), case .string(let string) = item.rfc9651BareItem else {
            throw malformed("The key is not one quoted string (RFC 8941).")
        }
        return try key(string.utf8)
    }

    /// The key in a field value that is a quote, plain characters, and a quote; `nil` for every other.
    private static func plainKey(_ text: UnsafeBufferPointer<UInt8>) -> Result<OperationKey, HTTPProblem>? {
        let quote = UInt8(ascii: "\"")
        guard text.count >= 2, text.first == quote, text.last == quote else { return nil }
        let inside = text[1..<text.count - 1]
        guard inside.allSatisfy(isPlain) else { return nil }
        return Result { () throws(HTTPProblem) in try key(inside) }
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
