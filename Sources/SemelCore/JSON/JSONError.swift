/// Why a text is not acceptable JSON, and where.
public struct JSONError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Reason: Hashable, Sendable {
        case unexpectedEnd(expected: String)
        case unexpectedByte(UInt8, expected: String)
        case byteOrderMark
        case duplicateName(String)
        case invalidUTF8
        case loneSurrogate
        case controlCharacter(UInt8)
        case invalidEscape
        case leadingZero
        case numberOutOfRange
        case tooDeep(limit: Int)
        case trailingBytes
    }

    public var reason: Reason
    /// The position in bytes from the start of the text, beginning with 0.
    public var offset: Int
    /// The line, beginning with 1.
    public var line: Int
    /// The column in characters (Unicode scalars), beginning with 1.
    public var column: Int

    init(_ reason: Reason, at offset: Int, of text: UnsafeBufferPointer<UInt8>) {
        self.reason = reason
        self.offset = offset
        line = 1
        column = 1
        for byte in text[..<min(offset, text.count)] {
            if byte == UInt8(ascii: "\n") {
                line += 1
                column = 1
            } else if byte & 0xC0 != 0x80 {
                // Continuation bytes of UTF-8 begin no character.
                column += 1
            }
        }
    }

    public var description: String {
        "line \(line), column \(column) (byte \(offset)): \(explanation)"
    }

    private var explanation: String {
        switch reason {
        case .unexpectedEnd(let expected): "the text ends where \(expected) is expected"
        case .unexpectedByte(let byte, let expected): "\(Self.name(of: byte)) stands where \(expected) is expected"
        case .byteOrderMark: "the text begins with a byte order mark; send UTF-8 without one"
        case .duplicateName(let name): "the name \(JSONValue.string(String(name.prefix(64)))) occurs twice in one object"
        case .invalidUTF8: "the text is not valid UTF-8"
        case .loneSurrogate: "a \\u escape gives half of a surrogate pair"
        case .controlCharacter(let byte): "\(Self.name(of: byte)) inside a string must be escaped"
        case .invalidEscape: "this is not an escape of JSON; known are \\\" \\\\ \\/ \\b \\f \\n \\r \\t and \\u with four hexadecimal digits"
        case .leadingZero: "a number begins with a superfluous zero"
        case .numberOutOfRange: "the number is outside the range of a double; send it as a string"
        case .tooDeep(let limit): "arrays and objects are nested more than \(limit) deep"
        case .trailingBytes: "something follows the end of the value"
        }
    }

    private static func name(of byte: UInt8) -> String {
        0x20 < byte && byte < 0x7F ? "'\(Character(Unicode.Scalar(byte)))'" : "the byte 0x\(String(byte, radix: 16, uppercase: true))"
    }
}
