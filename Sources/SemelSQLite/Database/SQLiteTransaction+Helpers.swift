public import Semel

/// So that ``VersionedTable`` and ``SQLTable`` work in a transaction of the store.
extension SQLiteTransaction: BlockingCallerTransaction {
    public var dialect: SQLDialect { .sqlite }

    public func execute(_ statement: SQLStatement) throws -> Int {
        try execute(statement.text, statement.values.map(SQLiteValue.init))
    }

    public func query(_ statement: SQLStatement) throws -> [[SQLValue]] {
        try query(statement.text, statement.values.map(SQLiteValue.init)).map { $0.values.map(SQLValue.init) }
    }
}

extension SQLiteValue {
    init(_ value: SQLValue) {
        self =
            switch value {
            case .null: .null
            case .boolean(let value): .integer(value ? 1 : 0)
            case .integer(let value): .integer(value)
            case .real(let value): .real(value)
            case .text(let value): .text(value)
            case .blob(let value): .blob(value)
            }
    }
}

extension SQLValue {
    init(_ value: SQLiteValue) {
        self =
            switch value {
            case .null: .null
            case .integer(let value): .integer(value)
            case .real(let value): .real(value)
            case .text(let value): .text(value)
            case .blob(let value): .blob(value)
            }
    }
}
