public import SemelCore

/// Semel's records in the caller's own database, written in the caller's own transaction: level `atomic`, with whatever
/// driver the caller has.
///
/// ```swift
/// let records = CallerRecords(.postgres)          // once, in a migration: records.schema
/// let result = try await database.transaction { transaction in
///     try await records.once("order-42", scene: "order", payload: order, inTransaction: transaction) {
///         try await transaction.run("UPDATE stock SET …")
///         return Confirmation(number: 7)
///     }
/// }
/// ```
///
/// **Guarantee.** The record and what the caller writes in the same transaction become durable together or not at all, and
/// at most one transaction per key is ever committed with its writes: the first statement is an insert under a unique key, at
/// which a second transaction waits for the first. A repeat finds the record and gets the outcome of before. A crash at any moment
/// leaves both or neither. When the answer to COMMIT was lost, saying the same again finds out.
///
/// Not guaranteed: anything done outside of the transaction, and anything if the caller rolls back after this returned:
/// then nothing happened, which is as good. A record that was purged before the last repeat is forgotten: keep keys longer
/// than requests are repeated (H22). Times are the database's own; one that is set forward ends retentions early.
///
/// The records are in a table of their own (``table``), apart from those of a store.
public struct CallerRecords: Sendable {
    public let dialect: SQLDialect
    public let table: SQLName

    public init(_ dialect: SQLDialect, table: SQLName = "semel_atomic") {
        self.dialect = dialect
        self.table = table
    }

    /// The statements that make the table; for a migration of the caller's.
    public var schema: [SQLStatement] {
        let (bytes, long, integer, end): (String, String, String, String) =
            switch dialect {
            case .sqlite: ("BLOB", "BLOB", "INTEGER", ") WITHOUT ROWID")
            case .postgres: ("BYTEA", "BYTEA", "BIGINT", ")")
            case .mysql: ("VARBINARY(1024)", "LONGBLOB", "BIGINT", ") ENGINE=InnoDB")
            }
        let name = table.quoted(in: dialect)
        let index = SQLName.index(of: table).quoted(in: dialect)
        return [
            SQLStatement(
                text: """
                    CREATE TABLE \(name) (
                        op_scope \(bytes) NOT NULL, op_key \(dialect == .mysql ? "VARBINARY(255)" : bytes) NOT NULL,
                        fingerprint \(bytes) NOT NULL, owner \(bytes) NOT NULL, epoch \(integer) NOT NULL,
                        policy \(bytes) NOT NULL, created_at \(integer) NOT NULL, changed_at \(integer) NOT NULL,
                        response_until \(integer) NOT NULL, key_until \(integer) NOT NULL, trace \(bytes), outcome \(long),
                        PRIMARY KEY (op_scope, op_key)\(end)
                    """),
            SQLStatement(text: "CREATE INDEX \(index) ON \(name) (key_until)"),
        ]
    }

    /// What came of it, within the caller's transaction.
    public enum Result<Value: Sendable>: Sendable {
        /// The body ran now. It counts once the caller has committed.
        case performed(Value, Receipt)
        /// It ran before, in a transaction that was committed; this is what came of it then.
        case replayed(Value, Receipt)
        /// It failed for good, now or before: what it wrote is undone and the failure is recorded, so commit.
        case failed(PermanentFailure, isReplay: Bool)
    }

    /// Runs the body once for this key, in the caller's open transaction. The caller then commits; what is thrown is for
    /// the caller to roll back.
    ///
    /// A ``PermanentFailure`` of the body undoes its writes (by a savepoint), is recorded and *returned*: thrown, it would
    /// take the record of itself away with it. Any other error is thrown, the caller rolls back, and the key is free.
    ///
    /// - Throws: ``OperationError`` when the key was used with another payload or its outcome is no longer kept; what the
    ///   body and the driver throw.
    public nonisolated(nonsending) func once<Value: Codable & Sendable>(
        _ key: String, in scope: Scope = Scope(), scene: String, payload: some Encodable, retention: Retention = .standard,
        traceID: TraceID? = nil, inTransaction transaction: some CallerTransaction, environment: Environment = .live,
        _ body: () async throws -> Value
    ) async throws -> Result<Value> {
        let id = OperationID(scope: scope, key: try OperationKey(key))
        let request = ClaimRequest(
            id: id, fingerprint: try Fingerprint(ofPayload: payload).of(scene), owner: environment.newOwner(), lease: .seconds(30),
            onLapse: .reclaim, policy: PinnedPolicy(scene: scene, text: "effect=localTransaction in the caller's own transaction"),
            retention: retention, traceID: traceID)
        switch try await claim(request).run(in: transaction) {
        case .granted(let grant):
            let receipt = Receipt(operation: OperationReference(id), epoch: grant.token.epoch, guarantee: .atomic)
            _ = try await transaction.execute(SQLStatement(text: "SAVEPOINT semel_body"))
            do {
                let value = try await body()
                try await complete(request, grant, with: .value(value)).run(in: transaction)
                return .performed(value, receipt)
            } catch let failure as PermanentFailure {
                _ = try await transaction.execute(SQLStatement(text: "ROLLBACK TO SAVEPOINT semel_body"))
                try await complete(request, grant, with: .failure(failure)).run(in: transaction)
                return .failed(failure, isReplay: false)
            }
        case .completed(let record):
            do {
                let value: Value = try record.replayedValue(of: id)
                return .replayed(value, Receipt(operation: OperationReference(id), epoch: record.epoch, guarantee: .atomic))
            } catch let failure as PermanentFailure {
                return .failed(failure, isReplay: true)
            }
        case .mismatch: throw OperationError(.mismatch, of: id)
        case .expired: throw OperationError(.expired, of: id)
        case .uncertain(let record): throw OperationError(.uncertain(reason: record.reason), of: id)
        case .inProgress(let lease): throw OperationError(.inProgress(lease), of: id)
        case .tooManyKeys: throw OperationError(.tooManyKeys, of: id)
        case .unreadable(let what): throw OperationError(.unreadable(what), of: id)
        }
    }

    // MARK: Steps

    /// The key's record, as the first statement of what is to happen once. *Granted* means that the caller goes on, and
    /// completes with ``complete(_:_:with:)`` before it commits.
    ///
    /// A transaction that was committed after a grant without completing leaves its key *uncertain*.
    public func claim(_ request: ClaimRequest) throws(SQLHelperError) -> SQLDialogue<ClaimResult> {
        if dialect == .mysql, request.id.scope.bytes.count > 1024 {
            throw SQLHelperError("the scope of \(OperationReference(request.id)) has more than the 1024 bytes that an index of MySQL takes")
        }
        var insert = SQLBuilder(dialect, "INSERT INTO ")
        insert.write(table)
        insert.write(
            " (op_scope, op_key, fingerprint, owner, epoch, policy, created_at, changed_at, response_until, key_until, trace, outcome) SELECT "
        )
        let now = dialect.now
        insert.write(
            [.blob(request.id.scope.bytes), .blob(request.id.key.bytes), .blob(request.fingerprint.bytes), .blob(request.owner.bytes)],
            separator: ", "
        ) { $0.bindTyped($1) }
        insert.write(", moment, ")
        insert.bindTyped(.blob(request.policy.hash.bytes))
        insert.write(", moment, moment, moment, moment + ")
        insert.bindTyped(.integer(request.retention.key.microseconds))
        insert.write(", ")
        insert.bindTyped(request.traceID.map { .blob($0.bytes) } ?? .null)
        insert.write(", NULL FROM (SELECT \(now) AS moment) AS clock")
        // SQLite would take ON for a join's without a condition before it.
        insert.write(" WHERE true")
        insert.writeIgnoringConflict(on: ["op_scope", "op_key"])
        return .execute(insert.statement) { _ in answer(request, tries: 3) }
    }

    /// What the row says, whoever wrote it. The caller's own nonce tells a first claim from a repeat in every engine.
    private func answer(_ request: ClaimRequest, tries: Int) -> SQLDialogue<ClaimResult> {
        var read = SQLBuilder(
            dialect,
            "SELECT fingerprint, owner, epoch, policy, created_at, changed_at, response_until, key_until, trace, outcome, \(dialect.now) FROM "
        )
        read.write(table)
        writeKey(of: request.id, to: &read)
        read.write(dialect.readingLatest)
        return .query(read.statement) { rows in
            guard let row = rows.first else {
                throw SQLHelperError(
                    "\(table.parts.joined(separator: ".")): the row of \(OperationReference(request.id)) was removed while it was claimed; try the transaction again"
                )
            }
            let found = try CallerRecord(row, of: request, in: table)
            let record = found.record
            if record.owner == request.owner, record.outcome == nil, !found.hasOutcome {
                return .done(.granted(grant(record, at: found.now)))
            }
            guard found.now < found.keyUntil else { return takeOver(request, found, tries: tries) }
            guard record.fingerprint == request.fingerprint else { return .done(.mismatch) }
            guard found.hasOutcome else {
                var open = record
                open.state = .uncertain
                open.reason = "committed-without-outcome"
                return .done(.uncertain(open))
            }
            return .done(found.now < found.responseUntil ? .completed(record) : .expired)
        }
    }

    /// The key's retention has ended: its row becomes the caller's, unless another one was faster.
    private func takeOver(_ request: ClaimRequest, _ found: CallerRecord, tries: Int) -> SQLDialogue<ClaimResult> {
        var update = SQLBuilder(dialect, "UPDATE ")
        update.write(table)
        update.write(
            " SET epoch = \(dialect.larger("epoch + 1", dialect.now)), created_at = \(dialect.now), changed_at = \(dialect.now), fingerprint = "
        )
        update.bindTyped(.blob(request.fingerprint.bytes))
        update.write(", policy = ")
        update.bindTyped(.blob(request.policy.hash.bytes))
        update.write(", response_until = 0, key_until = \(dialect.now) + ")
        update.bindTyped(.integer(request.retention.key.microseconds))
        update.write(", trace = ")
        update.bindTyped(request.traceID.map { .blob($0.bytes) } ?? .null)
        update.write(", outcome = NULL, owner = ")
        update.bindTyped(.blob(request.owner.bytes))
        writeKey(of: request.id, to: &update)
        update.write(" AND owner = ")
        update.bindTyped(.blob(found.record.owner.bytes))
        return .execute(update.statement) { _ in
            guard tries > 0 else {
                throw SQLHelperError("\(OperationReference(request.id)) changed hands again and again; try the transaction again")
            }
            return answer(request, tries: tries - 1)
        }
    }

    private func grant(_ record: Record, at now: Timestamp) -> Grant {
        Grant(
            kind: .first, token: record.token, leaseRemaining: .zero, attempt: 1, createdAt: record.createdAt, grantedAt: now,
            policy: record.policy, traceID: record.traceID)
    }

    /// Records what came of it, as the last statement before the caller commits.
    public func complete(_ request: ClaimRequest, _ grant: Grant, with outcome: Outcome) -> SQLDialogue<Void> {
        var writer = ByteWriter()
        writer.write(outcome)
        var update = SQLBuilder(dialect, "UPDATE ")
        update.write(table)
        update.write(" SET outcome = ")
        update.bindTyped(.blob(ChecksummedFrame.seal(version: 1, payload: writer.bytes)))
        update.write(", changed_at = \(dialect.now), response_until = \(dialect.now) + ")
        update.bindTyped(.integer(request.retention.response.microseconds))
        update.write(", key_until = \(dialect.now) + ")
        update.bindTyped(.integer(request.retention.key.microseconds))
        writeKey(of: request.id, to: &update)
        update.write(" AND owner = ")
        update.bindTyped(.blob(grant.token.owner.bytes))
        update.write(" AND epoch = ")
        update.bindTyped(.integer(Int64(bitPattern: grant.token.epoch.rawValue)))
        return .execute(update.statement) { rows in
            guard rows == 1 else {
                throw SQLHelperError("the claim of \(OperationReference(request.id)) is not in this transaction; roll it back")
            }
            return .done(())
        }
    }

    /// Forgets keys whose retention has ended, at most about so many.
    /// - Returns: how many.
    public func purge(limit: Int) -> SQLDialogue<Int> {
        var delete = SQLBuilder(dialect, "DELETE FROM ")
        delete.write(table)
        switch dialect {
        case .sqlite, .postgres:
            delete.write(" WHERE key_until <= \(dialect.now) AND (op_scope, op_key) IN (SELECT op_scope, op_key FROM ")
            delete.write(table)
            delete.write(" WHERE key_until <= \(dialect.now) ORDER BY key_until LIMIT \(max(0, limit)))")
        case .mysql:
            delete.write(" WHERE key_until <= \(dialect.now) ORDER BY key_until LIMIT \(max(0, limit))")
        }
        return .execute(delete.statement) { .done($0) }
    }

    private func writeKey(of id: OperationID, to builder: inout SQLBuilder) {
        builder.write(" WHERE op_scope = ")
        builder.bindTyped(.blob(id.scope.bytes))
        builder.write(" AND op_key = ")
        builder.bindTyped(.blob(id.key.bytes))
    }
}

/// A row of the table.
private struct CallerRecord {
    var record: Record
    var hasOutcome: Bool
    var responseUntil: Timestamp
    var keyUntil: Timestamp
    var now: Timestamp

    init(_ row: [SQLValue], of request: ClaimRequest, in table: SQLName) throws {
        func damaged(_ what: String) -> StoreError {
            StoreError(
                .damaged, "\(table.parts.joined(separator: ".")): the row of \(OperationReference(request.id)) cannot be read: \(what)")
        }
        guard row.count == 11, let fingerprint = row[0].bytes.flatMap({ Fingerprint(bytes: $0) }),
            let owner = row[1].bytes.flatMap(Owner.init(bytes:)),
            let policy = row[3].bytes.flatMap(PolicyHash.init(bytes:))
        else { throw damaged("its columns are not what was written") }
        func time(_ column: Int) throws -> Timestamp {
            guard let value = row[column].integer else { throw damaged("column \(column + 1) is no time") }
            return Timestamp(microseconds: value)
        }
        guard let epoch = row[2].integer else { throw damaged("it has no epoch") }
        (responseUntil, keyUntil, now) = (try time(6), try time(7), try time(10))
        var outcome: Outcome?
        if !row[9].isNull {
            guard let bytes = row[9].bytes else { throw damaged("its outcome is not bytes") }
            do {
                let frame = try ChecksummedFrame(opening: bytes)
                guard frame.version == 1 else {
                    throw StoreError(.newerSchema, "its outcome has the unknown format version \(frame.version)")
                }
                var reader = ByteReader(frame.payload)
                outcome = try reader.readOutcome()
                try reader.finish()
            } catch {
                throw damaged("\(error)")
            }
        }
        hasOutcome = outcome != nil
        let changed = try time(5)
        record = Record(
            state: .completed, epoch: Epoch(rawValue: UInt64(bitPattern: epoch)), owner: owner, fingerprint: fingerprint, policy: policy,
            mode: .enforce, onLapse: .reclaim, retention: Retention(response: responseUntil - changed, key: keyUntil - changed), attempt: 1,
            leaseUntil: .distantPast, createdAt: try time(4), changedAt: changed, traceID: row[8].bytes.flatMap(TraceID.init(bytes:)),
            outcome: outcome)
    }
}

extension SQLBuilder {
    /// A value whose type PostgreSQL could not guess where it stands.
    fileprivate mutating func bindTyped(_ value: SQLValue) {
        guard dialect == .postgres else { return bind(value) }
        write("CAST(")
        bind(value)
        switch value {
        case .integer: write(" AS bigint)")
        case .text: write(" AS text)")
        case .boolean: write(" AS boolean)")
        case .real: write(" AS double precision)")
        case .null, .blob: write(" AS bytea)")
        }
    }
}

extension SQLName {
    /// The name of the index over a table's retentions.
    fileprivate static func index(of table: SQLName) -> SQLName {
        let name = String(decoding: (table.parts.last ?? "").utf8.prefix(50), as: UTF8.self) + "_key_until"
        return (try? SQLName(name)) ?? "semel_atomic_key_until"
    }
}

// Pairs of numbers as bytes, most significant first.

private func bytes(_ high: UInt64, _ low: UInt64) -> [UInt8] {
    [high, low].flatMap { value in (0..<8).map { UInt8(truncatingIfNeeded: value >> UInt64(56 - 8 * $0)) } }
}

private func halves(_ bytes: [UInt8]) -> (UInt64, UInt64)? {
    guard bytes.count == 16 else { return nil }
    return (bytes[..<8].reduce(0) { $0 << 8 | UInt64($1) }, bytes[8...].reduce(0) { $0 << 8 | UInt64($1) })
}

extension Owner {
    fileprivate var bytes: [UInt8] { Semel.bytes(high, low) }
    fileprivate init?(bytes: [UInt8]) {
        guard let (high, low) = halves(bytes) else { return nil }
        self.init(high: high, low: low)
    }
}

extension PolicyHash {
    fileprivate var bytes: [UInt8] { Semel.bytes(high, low) }
    fileprivate init?(bytes: [UInt8]) {
        guard let (high, low) = halves(bytes) else { return nil }
        self.init(high: high, low: low)
    }
}

extension TraceID {
    fileprivate var bytes: [UInt8] { Semel.bytes(high, low) }
    fileprivate init?(bytes: [UInt8]) {
        guard let (high, low) = halves(bytes) else { return nil }
        self.init(high: high, low: low)
    }
}
