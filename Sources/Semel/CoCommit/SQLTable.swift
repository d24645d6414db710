/// Writes that teams make again and again on their own tables, with a result that says what happened.
public struct SQLTable: Sendable {
    public let name: SQLName
    /// The columns of one unique constraint.
    public let key: [SQLName]

    public init(_ name: SQLName, key: [SQLName]) throws(SQLHelperError) {
        guard !key.isEmpty else { throw SQLHelperError("\(name.parts.joined(separator: ".")): the columns of a unique key are needed") }
        self.name = name
        self.key = key
    }

    public enum Insertion: Hashable, Sendable {
        case inserted
        /// There was a row with this key, and nothing was changed.
        case existed
    }

    public enum Upsertion: Hashable, Sendable {
        case inserted
        case updated
    }

    /// Inserts a row unless there is one with its key.
    ///
    /// Only a conflict on this key is answered *existed*; every other refusal (a check, a type, another unique constraint)
    /// is the statement's error. That is why it is no `INSERT IGNORE` in MySQL, which makes warnings of all of them; in
    /// MySQL a conflict on any unique key of the table counts.
    public func insertUnlessThere(_ values: [SQLName: SQLValue], in dialect: SQLDialect) throws(SQLHelperError) -> SQLDialogue<Insertion> {
        let builder = try insertion(values, dialect)
        return .execute(builder.statement) { rows in
            switch rows {
            case 0: .done(.existed)
            case 1: .done(.inserted)
            default: throw SQLHelperError("\(name.parts.joined(separator: ".")): one insert changed \(rows) rows")
            }
        }
    }

    /// Inserts a row, or changes the given columns of the one with its key.
    ///
    /// Two statements, insert-unless-there and update, so that every engine can tell which it was. A row that vanishes
    /// between them is inserted after all; one that comes and goes again and again is an error.
    ///
    /// - Parameter updates: the columns to take from `values` when the row is there; all but the key by default.
    public func upsert(
        _ values: [SQLName: SQLValue], updating updates: [SQLName]? = nil, in dialect: SQLDialect
    ) throws(SQLHelperError) -> SQLDialogue<Upsertion> {
        let insert = try insertion(values, dialect).statement
        let columns = updates ?? values.keys.filter { !key.contains($0) }.sorted { $0.parts.joined() < $1.parts.joined() }
        guard !columns.isEmpty, columns.allSatisfy({ values[$0] != nil && !key.contains($0) }) else {
            throw SQLHelperError("\(name.parts.joined(separator: ".")): the columns to update must have values and not be of the key")
        }
        var builder = SQLBuilder(dialect, "UPDATE ")
        builder.write(name)
        builder.write(" SET ")
        builder.write(columns, separator: ", ") { builder, column in
            builder.write(column)
            builder.write(" = ")
            builder.bind(values[column] ?? .null)
        }
        builder.write(" WHERE ")
        builder.writeCondition(key, key.map { values[$0] ?? .null })
        // MySQL counts a row that had these values already as not changed; so whether it is there is asked.
        var present = SQLBuilder(dialect, "SELECT 1 FROM ")
        present.write(name)
        present.write(" WHERE ")
        present.writeCondition(key, key.map { values[$0] ?? .null })
        present.write(dialect.readingLatest)
        return Self.upsert(insert, builder.statement, present.statement, name, tries: 3)
    }

    private static func upsert(
        _ insert: SQLStatement, _ update: SQLStatement, _ present: SQLStatement, _ name: SQLName, tries: Int
    ) -> SQLDialogue<Upsertion> {
        .execute(insert) { inserted in
            if inserted == 1 { return .done(.inserted) }
            return .execute(update) { updated in
                if updated == 1 { return .done(.updated) }
                guard updated == 0 else {
                    throw SQLHelperError(
                        "\(name.parts.joined(separator: ".")): \(updated) rows have one key; undo the transaction, and give the table a unique key"
                    )
                }
                return .query(present) { rows in
                    if !rows.isEmpty { return .done(.updated) }
                    guard tries > 1 else {
                        throw SQLHelperError("\(name.parts.joined(separator: ".")): the row came and went \(3) times while it was written")
                    }
                    return upsert(insert, update, present, name, tries: tries - 1)
                }
            }
        }
    }

    private func insertion(_ values: [SQLName: SQLValue], _ dialect: SQLDialect) throws(SQLHelperError) -> SQLBuilder {
        // NULL is equal to nothing, so a key with it would never conflict.
        guard key.allSatisfy({ values[$0].map { !$0.isNull } ?? false }) else {
            throw SQLHelperError("\(name.parts.joined(separator: ".")): every column of the key needs a value that is not NULL")
        }
        var builder = SQLBuilder(dialect)
        builder.writeInsert(into: name, values.sorted { $0.key.parts.joined() < $1.key.parts.joined() }.map { ($0.key, $0.value) })
        builder.writeIgnoringConflict(on: key)
        return builder
    }
}

extension SQLBuilder {
    /// A conflict on these columns inserts nothing, and is no error.
    mutating func writeIgnoringConflict(on key: [SQLName]) {
        switch dialect {
        case .sqlite, .postgres:
            write(" ON CONFLICT (")
            write(key, separator: ", ") { $0.write($1) }
            write(") DO NOTHING")
        case .mysql:
            write(" ON DUPLICATE KEY UPDATE ")
            write(key[0])
            write(" = ")
            write(key[0])
        }
    }
}
