/// The engines whose SQL the helpers of this folder speak.
public enum SQLDialect: Hashable, Sendable, CaseIterable {
    /// SQLite 3.35 or newer.
    case sqlite
    /// PostgreSQL 12 or newer.
    case postgres
    /// MySQL 8 or MariaDB 10.5, or newer, with InnoDB.
    case mysql
}

/// A value bound to a parameter, or read from a column.
public enum SQLValue: Hashable, Sendable, ExpressibleByIntegerLiteral, ExpressibleByStringLiteral, ExpressibleByFloatLiteral,
    ExpressibleByBooleanLiteral, ExpressibleByNilLiteral
{
    case null
    case boolean(Bool)
    case integer(Int64)
    case real(Double)
    case text(String)
    case blob([UInt8])

    public init(integerLiteral value: Int64) { self = .integer(value) }
    public init(floatLiteral value: Double) { self = .real(value) }
    public init(stringLiteral value: String) { self = .text(value) }
    public init(booleanLiteral value: Bool) { self = .boolean(value) }
    public init(nilLiteral: ()) { self = .null }

    /// The whole number, also when a driver gives it as text.
    public var integer: Int64? {
        switch self {
        case .integer(let value): value
        case .boolean(let value): value ? 1 : 0
        case .text(let value): Int64(value)
        case .null, .real, .blob: nil
        }
    }

    /// The text, also when a driver gives it as bytes.
    public var text: String? {
        switch self {
        case .text(let value): value
        case .blob(let bytes): String(validating: bytes, as: UTF8.self)
        case .null, .boolean, .integer, .real: nil
        }
    }

    /// The bytes, also when a driver gives them as text.
    public var bytes: [UInt8]? {
        switch self {
        case .blob(let bytes): bytes
        case .text(let value): Array(value.utf8)
        case .null, .boolean, .integer, .real: nil
        }
    }

    public var isNull: Bool { self == .null }
}

/// One statement with its values: what is text is never a value, and what is a value is never text.
public struct SQLStatement: Hashable, Sendable {
    /// With placeholders as the dialect writes them: `?1`, `$1` or `?`.
    public let text: String
    public let values: [SQLValue]

    public init(text: String, values: [SQLValue] = []) {
        self.text = text
        self.values = values
    }
}

/// The name of a table or a column, such as `orders` or `shop.orders`; always quoted, so it is never read as anything else.
public struct SQLName: Hashable, Sendable, ExpressibleByStringLiteral {
    public let parts: [String]

    /// - Throws: ``SQLNameError`` for a part that is empty, is longer than the 63 bytes that every engine takes, or contains
    ///   a control character.
    public init(_ parts: String...) throws(SQLNameError) {
        guard !parts.isEmpty else { throw SQLNameError(name: "") }
        for part in parts
        where part.isEmpty || part.utf8.count > 63 || part.unicodeScalars.contains(where: { $0.value < 0x20 || $0.value == 0x7F }) {
            throw SQLNameError(name: part)
        }
        self.parts = parts
    }

    /// A name that stands in the program; one that is no name stops it. Names from elsewhere go through ``init(_:)``.
    public init(stringLiteral value: String) {
        do {
            try self.init(value)
        } catch {
            preconditionFailure(error.description)
        }
    }

    /// The name in the quotes of a dialect, with quotes inside it doubled.
    public func quoted(in dialect: SQLDialect) -> String {
        let quote = dialect == .mysql ? "`" : "\""
        return parts.map { quote + $0.split(separator: quote, omittingEmptySubsequences: false).joined(separator: quote + quote) + quote }
            .joined(separator: ".")
    }
}

public struct SQLNameError: Error, Hashable, CustomStringConvertible {
    public let name: String

    public var description: String {
        "\"\(name.prefix(80))\" cannot be the name of a table or a column: it takes 1 to 63 bytes without control characters"
    }
}

/// Puts a statement together: text as it stands, names quoted, values bound.
struct SQLBuilder {
    let dialect: SQLDialect
    private var text = ""
    private var values: [SQLValue] = []

    init(_ dialect: SQLDialect, _ text: String = "") {
        self.dialect = dialect
        self.text = text
    }

    var statement: SQLStatement { SQLStatement(text: text, values: values) }

    mutating func write(_ text: String) { self.text += text }
    mutating func write(_ name: SQLName) { text += name.quoted(in: dialect) }

    mutating func bind(_ value: SQLValue) {
        values.append(value)
        switch dialect {
        case .sqlite: text += "?\(values.count)"
        case .postgres: text += "$\(values.count)"
        case .mysql: text += "?"
        }
    }

    mutating func write<Item>(_ items: some Collection<Item>, separator: String, _ each: (inout SQLBuilder, Item) -> Void) {
        for (index, item) in items.enumerated() {
            if index > 0 { write(separator) }
            each(&self, item)
        }
    }

    /// `a = ? AND b = ?`
    mutating func writeCondition(_ columns: [SQLName], _ values: [SQLValue]) {
        write(Array(zip(columns, values)), separator: " AND ") { builder, pair in
            builder.write(pair.0)
            builder.write(" = ")
            builder.bind(pair.1)
        }
    }

    /// `INSERT INTO table (columns) VALUES (values)`
    mutating func writeInsert(into table: SQLName, _ values: [(SQLName, SQLValue)]) {
        write("INSERT INTO ")
        write(table)
        write(" (")
        write(values, separator: ", ") { $0.write($1.0) }
        write(") VALUES (")
        write(values, separator: ", ") { $0.bind($1.1) }
        write(")")
    }
}

extension SQLDialect {
    /// The database's own time in microseconds since 1970.
    var now: String {
        switch self {
        case .sqlite: "CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER)"
        case .postgres: "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)"
        case .mysql: "CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)"
        }
    }

    /// The larger of two.
    func larger(_ first: String, _ second: String) -> String { "\(self == .sqlite ? "max" : "GREATEST")(\(first), \(second))" }

    /// A plain read in MySQL sees the transaction's first moment, and not what another one has committed since.
    var readingLatest: String { self == .mysql ? " FOR UPDATE" : "" }
}
