/// Optimistic locking on a table of the caller's: every change carries the version that was read, and is made only while
/// the row still has it.
///
/// ```swift
/// let orders = try VersionedTable(
///     "orders", key: ["id"], version: .number("version"),
///     states: .init(column: "state", transitions: ["CREATED": ["PAID"], "PAID": ["SHIPPED", "REFUNDED"]]))
/// let row = try await orders.read(["total"], key: [42], in: .postgres).run(in: transaction)
/// let result = try await orders.change(["carrier": "DHL"], to: "SHIPPED", key: [42], from: row!.version, in: .postgres)
///     .run(in: transaction)
/// ```
///
/// The version, the allowed change of state and the write are one statement, so nothing can come between them; what it did
/// is told by the number of rows it changed, never assumed. It holds in any isolation level, inside a transaction or alone.
public struct VersionedTable: Sendable {
    /// The column that tells one version of a row from the next.
    public enum Version: Hashable, Sendable {
        /// A whole number; each change adds one.
        case number(SQLName)
        /// The time of the last change by the database's clock; each change sets it, and always to a later one, so two changes
        /// in one tick are two versions. `timestamptz` in PostgreSQL, `DATETIME(6)` or `TIMESTAMP(6)` in MySQL, whole
        /// microseconds since 1970 in SQLite: a column that keeps less would make two versions one.
        case time(SQLName)

        var column: SQLName {
            switch self {
            case .number(let name), .time(let name): name
            }
        }
    }

    /// Which states may follow which.
    public struct States: Hashable, Sendable {
        public var column: SQLName
        public var transitions: [String: Set<String>]

        public init(column: SQLName, transitions: [String: Set<String>]) {
            self.column = column
            self.transitions = transitions
        }

        /// The states from which one may go to `target`.
        public func sources(of target: String) -> [String] { transitions.filter { $0.value.contains(target) }.keys.sorted() }
    }

    public let table: SQLName
    public let key: [SQLName]
    public let version: Version
    public let states: States?

    public init(_ table: SQLName, key: [SQLName], version: Version, states: States? = nil) throws(SQLHelperError) {
        guard !key.isEmpty, !key.contains(version.column), states?.column != version.column else {
            throw SQLHelperError(
                "\(table.parts.joined(separator: ".")): a versioned table needs key columns, and a version column of its own")
        }
        self.table = table
        self.key = key
        self.version = version
        self.states = states
    }

    /// A row as it was read.
    public struct Row: Hashable, Sendable {
        public let version: RowVersion
        /// `nil` for a table without states.
        public let state: String?
        /// The columns asked for, in order.
        public let values: [SQLValue]
    }

    /// Reads a row with its version; `nil` when there is none.
    public func read(_ columns: [SQLName], key values: [SQLValue], in dialect: SQLDialect) -> SQLDialogue<Row?> {
        var builder = SQLBuilder(dialect, "SELECT ")
        writeVersion(to: &builder)
        builder.write(", ")
        if let states { builder.write(states.column) } else { builder.write("NULL") }
        for column in columns {
            builder.write(", ")
            builder.write(column)
        }
        builder.write(" FROM ")
        builder.write(table)
        builder.write(" WHERE ")
        builder.writeCondition(key, values)
        return .query(builder.statement) { rows in
            guard let row = rows.first else { return .done(nil) }
            guard rows.count == 1, row.count == columns.count + 2 else { throw self.notOne(rows.count) }
            return .done(Row(version: RowVersion(value: row[0]), state: row[1].text, values: Array(row[2...])))
        }
    }

    /// Changes a row that still has the version that was read, and gives it the next one.
    ///
    /// - Parameters:
    ///   - changes: new values by column; not of the key, the version or the state.
    ///   - state: the state to enter, checked against the allowed transitions in the same statement.
    /// - Throws: ``SQLHelperError`` when the columns are not the caller's to change, or the key is not unique.
    public func change(
        _ changes: [SQLName: SQLValue], to state: String? = nil, key values: [SQLValue], from version: RowVersion, in dialect: SQLDialect
    ) throws(SQLHelperError) -> SQLDialogue<ChangeResult> {
        try check(changes, values)
        var sources: [String] = []
        if let state {
            guard let states else { throw SQLHelperError("\(name) has no states") }
            sources = states.sources(of: state)
            // No state leads there: nothing is written, and the row tells where it stands.
            guard !sources.isEmpty else { return diagnosis(values, version, sources, dialect) }
        }
        var builder = SQLBuilder(dialect, "UPDATE ")
        builder.write(table)
        builder.write(" SET ")
        writeNextVersion(to: &builder)
        for (column, value) in changes.sorted(by: { $0.key.parts.joined() < $1.key.parts.joined() }) {
            builder.write(", ")
            builder.write(column)
            builder.write(" = ")
            builder.bind(value)
        }
        if let state, let states {
            builder.write(", ")
            builder.write(states.column)
            builder.write(" = ")
            builder.bind(.text(state))
        }
        builder.write(" WHERE ")
        builder.writeCondition(key, values)
        builder.write(" AND ")
        builder.write(self.version.column)
        builder.write(" = ")
        writeExpected(version, to: &builder)
        if let states, state != nil {
            builder.write(" AND ")
            builder.write(states.column)
            builder.write(" IN (")
            builder.write(sources, separator: ", ") { $0.bind(.text($1)) }
            builder.write(")")
        }
        return .execute(builder.statement) { rows in
            switch rows {
            case 0: diagnosis(values, version, sources, dialect)
            case 1: nextVersion(after: version, values, dialect)
            default: throw notOne(rows)
            }
        }
    }

    /// Changes the state alone.
    public func move(
        to state: String, key values: [SQLValue], from version: RowVersion, in dialect: SQLDialect
    ) throws(SQLHelperError) -> SQLDialogue<ChangeResult> {
        try change([:], to: state, key: values, from: version, in: dialect)
    }

    // MARK: Parts

    private var name: String { table.parts.joined(separator: ".") }

    private func notOne(_ rows: Int) -> SQLHelperError {
        SQLHelperError("\(name): \(rows) rows have one key; undo the transaction, and give the table a unique key")
    }

    private func check(_ changes: [SQLName: SQLValue], _ values: [SQLValue]) throws(SQLHelperError) {
        guard values.count == key.count else {
            throw SQLHelperError("\(name) has \(key.count) key columns, and \(values.count) values were given")
        }
        let reserved = Set(key + [version.column] + (states.map { [$0.column] } ?? []))
        if let column = changes.keys.first(where: reserved.contains) {
            throw SQLHelperError(
                "\(name): \(column.parts.joined(separator: ".")) is the key, the version or the state, and is not changed like other columns"
            )
        }
    }

    private func writeVersion(to builder: inout SQLBuilder) {
        switch (version, builder.dialect) {
        case (.number(let column), _), (.time(let column), .sqlite): builder.write(column)
        // As text with every digit: what a driver makes of a time may have fewer.
        case (.time(let column), .postgres):
            builder.write("CAST(")
            builder.write(column)
            builder.write(" AS text)")
        case (.time(let column), .mysql):
            builder.write("CAST(")
            builder.write(column)
            builder.write(" AS CHAR)")
        }
    }

    private func writeExpected(_ expected: RowVersion, to builder: inout SQLBuilder) {
        switch (version, builder.dialect) {
        case (.number, _), (.time, .sqlite): builder.bind(expected.value)
        case (.time, .postgres):
            // A text of no declared type, and then a time.
            builder.write("CAST(CAST(")
            builder.bind(expected.value)
            builder.write(" AS text) AS timestamptz)")
        case (.time, .mysql):
            builder.write("CAST(")
            builder.bind(expected.value)
            builder.write(" AS DATETIME(6))")
        }
    }

    private func writeNextVersion(to builder: inout SQLBuilder) {
        let column = version.column.quoted(in: builder.dialect)
        let next: String =
            switch (version, builder.dialect) {
            case (.number, _): "\(column) + 1"
            case (.time, .sqlite): "max(\(SQLDialect.sqlite.now), \(column) + 1)"
            case (.time, .postgres): "GREATEST(clock_timestamp(), \(column) + interval '1 microsecond')"
            case (.time, .mysql): "GREATEST(NOW(6), \(column) + INTERVAL 1 MICROSECOND)"
            }
        builder.write("\(column) = \(next)")
    }

    private func nextVersion(after version: RowVersion, _ values: [SQLValue], _ dialect: SQLDialect) -> SQLDialogue<ChangeResult> {
        if case .number = self.version, let number = version.value.integer {
            return .done(.changed(RowVersion(value: .integer(number + 1))))
        }
        return current(values, dialect) { row in
            guard let row else { throw notOne(0) }
            return .changed(row.version)
        }
    }

    /// Why no row was changed.
    private func diagnosis(
        _ values: [SQLValue], _ expected: RowVersion, _ sources: [String], _ dialect: SQLDialect
    ) -> SQLDialogue<ChangeResult> {
        current(values, dialect) { row in
            guard let row else { return .missing }
            // The version first: of a row that has gone on, the state that was read means nothing any more.
            guard row.version == expected else { return .conflict(row) }
            if let state = row.state, !sources.contains(state) { return .forbidden(from: state) }
            return .conflict(row)
        }
    }

    private func current(
        _ values: [SQLValue], _ dialect: SQLDialect, _ conclude: @escaping (Row?) throws -> ChangeResult
    ) -> SQLDialogue<ChangeResult> {
        guard case .query(let statement, let answer) = read([], key: values, in: dialect) else { preconditionFailure("reading is a query") }
        return .query(SQLStatement(text: statement.text + dialect.readingLatest, values: statement.values)) { rows in
            guard case .done(let row) = try answer(rows) else { preconditionFailure("reading ends with its row") }
            return .done(try conclude(row))
        }
    }
}

/// A row's version as it was read. Keep it, hand it on, give it back; what is in it is the table's business.
public struct RowVersion: Hashable, Sendable {
    public let value: SQLValue

    public init(value: SQLValue) {
        self.value = value
    }

    /// Equal also when one driver gives a number and another its digits.
    public static func == (left: RowVersion, right: RowVersion) -> Bool {
        if left.value == right.value { return true }
        guard let first = left.value.integer, let second = right.value.integer else { return false }
        return first == second
    }

    public func hash(into hasher: inout Hasher) {
        if let number = value.integer { hasher.combine(number) } else { hasher.combine(value) }
    }
}

/// What came of a change under optimistic locking.
public enum ChangeResult: Hashable, Sendable {
    case changed(RowVersion)
    /// Somebody else changed the row since it was read; this is how it stands now.
    case conflict(VersionedTable.Row)
    /// From the row's state one may not go there.
    case forbidden(from: String)
    /// There is no such row.
    case missing

    /// The new version, or an ``OptimisticLockFailure``.
    public func get() throws(OptimisticLockFailure) -> RowVersion {
        switch self {
        case .changed(let version): return version
        case .conflict: throw OptimisticLockFailure(reason: .conflict, message: "the row was changed by somebody else since it was read")
        case .forbidden(let state):
            throw OptimisticLockFailure(reason: .forbidden, message: "the row's state is \(state), from which this change is not allowed")
        case .missing: throw OptimisticLockFailure(reason: .missing, message: "there is no such row")
        }
    }
}
