/// A JSON number in the digits in which it was written.
///
/// Two numbers are equal if they are written alike; `1` and `1.0` are different here and have one canonical form.
public struct JSONNumber: Hashable, Sendable, CustomStringConvertible {
    /// The number as written, such as `-12.50e3`.
    public let lexeme: String

    /// The caller guarantees the grammar of RFC 8259 §6 and the range of a double.
    init(validLexeme lexeme: String) {
        self.lexeme = lexeme
    }

    public init(_ integer: some BinaryInteger) {
        lexeme = String(integer)
    }

    /// A number in the shortest digits that give the same double back; nil for a double that is not finite.
    public init?(_ double: Double) {
        guard double.isFinite else { return nil }
        lexeme = String(decoding: DecimalNotation(double.description.utf8).ecmaScript, as: UTF8.self)
    }

    /// The nearest double. It is always finite; digits beyond its 53 bits are lost.
    public var double: Double {
        // Every lexeme that passed the reader's grammar is one that `Double` reads.
        Double(lexeme) ?? 0
    }

    /// The integer, if the number is written as one (no fraction, no exponent) and an `Int` holds it.
    public var integer: Int? { Int(lexeme) }

    public var description: String { lexeme }
}
