#if MySQL
/// A value of a parameter or a column.
///
/// Numbers that MySQL keeps exactly (`DECIMAL`) and its dates and times come as the text that MySQL writes them as.
public enum MySQLValue: Hashable, Sendable, ExpressibleByIntegerLiteral, ExpressibleByStringLiteral, ExpressibleByFloatLiteral,
    ExpressibleByNilLiteral
{
    case null
    case integer(Int64)
    /// From an unsigned column, when the value is above what ``integer(_:)`` holds.
    case unsigned(UInt64)
    case real(Double)
    case text(String)
    case blob([UInt8])

    public init(integerLiteral value: Int64) { self = .integer(value) }
    public init(floatLiteral value: Double) { self = .real(value) }
    public init(stringLiteral value: String) { self = .text(value) }
    public init(nilLiteral: ()) { self = .null }

    public var integer: Int64? { if case .integer(let value) = self { value } else { nil } }
    public var text: String? { if case .text(let value) = self { value } else { nil } }
    public var blob: [UInt8]? { if case .blob(let value) = self { value } else { nil } }

    /// The value of an unsigned column.
    var natural: UInt64? {
        switch self {
        case .integer(let value) where value >= 0: UInt64(value)
        case .unsigned(let value): value
        default: nil
        }
    }

    /// The bytes of a text or a blob.
    var bytes: [UInt8]? {
        switch self {
        case .text(let value): Array(value.utf8)
        case .blob(let value): value
        default: nil
        }
    }
}

public struct MySQLRow: Hashable, Sendable {
    public let names: [String]
    public let values: [MySQLValue]

    /// The value in a column, by its place from 0.
    public subscript(column: Int) -> MySQLValue { values[column] }

    /// The value in the first column of that name; `null` when there is none.
    public subscript(name: String) -> MySQLValue { names.firstIndex(of: name).map { values[$0] } ?? .null }
}
#endif
