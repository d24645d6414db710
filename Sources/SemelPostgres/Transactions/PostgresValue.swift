#if Postgres
/// A value of a parameter or a column, as a caller's statements have them.
public enum PostgresValue: Hashable, Sendable, ExpressibleByIntegerLiteral, ExpressibleByStringLiteral, ExpressibleByFloatLiteral,
    ExpressibleByBooleanLiteral, ExpressibleByNilLiteral
{
    case null
    case boolean(Bool)
    case integer(Int64)
    case double(Double)
    /// Also every type without a case of its own, as PostgreSQL writes it: a timestamp, a uuid, a numeric.
    case text(String)
    case bytes([UInt8])

    public init(integerLiteral value: Int64) { self = .integer(value) }
    public init(floatLiteral value: Double) { self = .double(value) }
    public init(stringLiteral value: String) { self = .text(value) }
    public init(booleanLiteral value: Bool) { self = .boolean(value) }
    public init(nilLiteral: ()) { self = .null }

    public var integer: Int64? { if case .integer(let value) = self { value } else { nil } }
    public var text: String? { if case .text(let value) = self { value } else { nil } }
    public var boolean: Bool? { if case .boolean(let value) = self { value } else { nil } }

    /// As PostgreSQL reads it.
    var parameter: String? {
        switch self {
        case .null: nil
        case .boolean(let value): value ? "true" : "false"
        case .integer(let value): String(value)
        case .double(let value): value.isNaN ? "NaN" : value.isInfinite ? (value < 0 ? "-Infinity" : "Infinity") : "\(value)"
        case .text(let value): value
        case .bytes(let value): "\\x" + value.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        }
    }

    /// - Parameter type: the column's number in `pg_type`.
    init(_ text: String, type: UInt32) {
        switch type {
        case 16: self = .boolean(text == "t")
        case 20, 21, 23, 26: self = Int64(text).map { .integer($0) } ?? .text(text)
        case 700, 701: self = Double(text).map { .double($0) } ?? .text(text)
        case 17:
            var bytes: [UInt8] = []
            var digits = text.utf8.dropFirst(2)
            while let high = digits.popFirst(), let low = digits.popFirst() { bytes.append(Self.digit(high) << 4 | Self.digit(low)) }
            self = .bytes(bytes)
        default: self = .text(text)
        }
    }

    private static func digit(_ character: UInt8) -> UInt8 {
        character >= 0x61 ? character - 0x61 + 10 : character >= 0x41 ? character - 0x41 + 10 : character - 0x30
    }
}

public struct PostgresRow: Hashable, Sendable {
    public let names: [String]
    public let values: [PostgresValue]

    /// The value in a column, by its place from 0.
    public subscript(column: Int) -> PostgresValue { values[column] }

    /// The value in the first column of that name; `null` when there is none.
    public subscript(name: String) -> PostgresValue { names.firstIndex(of: name).map { values[$0] } ?? .null }
}
#endif
