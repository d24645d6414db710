#if Postgres
public import Semel

/// An open transaction of a driver that is not ours: all that the store needs of it to put a record into it.
///
/// Conform your connection, or a wrapper around it. Parameters are bound, never written into the text.
public protocol CallersTransaction {
    /// Runs one statement with `$1`, `$2` … bound, and returns its rows.
    ///
    /// A `bytea` must come back as `bytes`, integers as `integer`; everything else may come back as text.
    func run(_ sql: String, _ parameters: [PostgresValue]) async throws -> [[PostgresValue]]
}

/// What came of a claim in a caller's own transaction.
public enum CallersClaim: Sendable {
    /// Do the writes, complete the claim, commit. Rolling back undoes all of it, and the key is free.
    case granted(OpenClaim)
    /// Do nothing; this is what the claim was answered. Commit or roll back, it is the same.
    case notRun(ClaimResult)
}

/// A claim that is part of a transaction which its caller will commit.
public struct OpenClaim: Sendable {
    public let grant: Grant
    let id: OperationID
    let record: Record
    /// Where the record is: it stays there until the transaction ends.
    let segment: Segment
    let shared: Shared

    /// Records the outcome in the same transaction.
    /// - Throws: what the driver threw, or a `StoreError` when the claim is not in this transaction.
    public func complete(_ outcome: Outcome, in transaction: some CallersTransaction) async throws {
        let statements = CallersStatements(shared)
        let now = StoreTime(try await statements.now(transaction))
        let transition = Transition(id: id, token: grant.token, change: .complete(outcome))
        guard case (.applied, .put(let completed)) = RecordMachine.apply(transition, to: record, at: now),
            try await statements.put(id, completed, in: segment, onlyItsOwn: true, transaction)
        else { throw StoreError(.refused, "the claim of \(OperationReference(id)) is not in this transaction: complete it in the one it was made in") }
    }

    /// Wakes those who wait for the key, once the transaction is committed. Without it they look again about once a second.
    public func committed() { shared.signals.changed([OperationReference(id)]) }
}

extension PostgresStore {
    /// Claims a key in a transaction that the caller's own driver has begun, so that its writes and the record become durable
    /// together or not at all (level `atomic`).
    ///
    /// The transaction must be in the same database and at the isolation level READ COMMITTED; at a higher one a race ends in
    /// the driver's serialization error, to be tried again. When the answer to COMMIT is lost, claim again with the same
    /// request: *completed* with its own nonce in the record says that it was committed.
    ///
    /// Not guaranteed: anything when the claim is committed without being completed: then it is a claim like any other, and its
    /// lease runs.
    public func claim(_ request: ClaimRequest, in transaction: some CallersTransaction) async throws -> CallersClaim {
        try await keep(request.policy)
        let shared = internals
        let statements = CallersStatements(shared)
        let map = try await map(in: transaction, statements)
        if let limit = request.liveLimit, !shared.isFarBelow(limit), try await statements.countLive(request.id.scope, transaction) >= limit,
            try await statements.lock(request.id, map, transaction) == nil
        {
            return .notRun(.tooManyKeys)
        }
        while true {
            if let (grant, record) = try await statements.insert(request, map, transaction) {
                return .granted(OpenClaim(grant: grant, id: request.id, record: record, segment: map.current, shared: shared))
            }
            guard let (stored, segment) = try await statements.lock(request.id, map, transaction) else { continue }
            let record: Record
            do {
                let (id, found) = try stored.record { shared.policies.known($0)?.hash }
                guard id == request.id else { return .notRun(.unreadable("another key has the same hash")) }
                record = found
            } catch let failure as Row.Failure {
                // Its policy may be another process's.
                guard try await loadPolicies() else { return .notRun(.unreadable("\(failure)")) }
                continue
            }
            let now = StoreTime(try await statements.now(transaction))
            if RecordMachine.settled(record, at: now) == nil {
                try await statements.delete(request.id, in: segment, transaction)
                continue
            }
            let (result, change) = RecordMachine.claim(
                request, on: record, at: now, liveRecords: { 0 },
                nextEpoch: { shared.nextEpoch(after: max($0, record.epoch), at: now.retention) })
            guard case .granted(let grant) = result, grant.kind != .verify else { return .notRun(result) }
            var claimed = record
            if case .put(let next) = change {
                claimed = next
                _ = try await statements.put(request.id, next, in: segment, onlyItsOwn: false, transaction)
            }
            return .granted(OpenClaim(grant: grant, id: request.id, record: claimed, segment: segment, shared: shared))
        }
    }

    /// The map of the segments, which stays as it is until the transaction ends.
    private func map(in transaction: some CallersTransaction, _ statements: CallersStatements) async throws -> SegmentMap {
        let version = try await statements.shareMap(transaction)
        let map = internals.segments.map
        return map.version == version ? map : try await refreshMap()
    }
}

/// The store's statements for one row, in the form that any driver can run.
private struct CallersStatements {
    let shared: Shared

    init(_ shared: Shared) { self.shared = shared }

    /// Arrays become arrays of one, made in SQL of plain values.
    private func single(_ statement: Connection.Statement) -> String {
        statement.sql.replacing(#/(\$[0-9]+)::([a-z]+)\[\]/#) { "ARRAY[\($0.1)::\($0.2)]" }
    }

    func now(_ transaction: some CallersTransaction) async throws -> Timestamp {
        guard let now = try await transaction.run(shared.statements.now.sql, []).first?.first?.integer else { throw unexpected() }
        return Timestamp(microseconds: now)
    }

    /// Holds the map of the segments as it is until the transaction ends.
    ///
    /// The row is locked too: a transaction at a higher isolation level would read it as it was when the transaction began,
    /// and ends in a serialization error instead.
    /// - Returns: the map's version.
    func shareMap(_ transaction: some CallersTransaction) async throws -> Int64 {
        _ = try await transaction.run("\(shared.statements.share.sql)::text", [])
        guard let version = try await transaction.run("\(shared.statements.version.sql) FOR SHARE", []).first?.first?.integer else { throw unexpected() }
        return version
    }

    func countLive(_ scope: Scope, _ transaction: some CallersTransaction) async throws -> Int {
        guard let count = try await transaction.run(shared.statements.countLive.sql, [.bytes(scope.bytes)]).first?.first?.integer else {
            throw unexpected()
        }
        return Int(count)
    }

    func insert(_ request: ClaimRequest, _ map: SegmentMap, _ transaction: some CallersTransaction) async throws -> (Grant, Record)? {
        let (_, change) = RecordMachine.claim(
            request, on: nil, at: StoreTime(.distantPast), liveRecords: { .min }, nextEpoch: { _ in .zero })
        guard case .put(let blank) = change, let policy = shared.policies.number(of: request.policy.hash) else { throw unexpected() }
        let row = Row(request.id, OperationReference(request.id), blank, policy: policy)
        let lease = Session.bounded(request.lease)
        let (incarnation, floor) = shared.epochs
        let found = try await transaction.run(
            single(map.current.statements.insertProbing),
            [
                .integer(Int64(incarnation.rawValue) << 52), .integer(floor), .integer(map.version), .text(Self.uuid(row.id)), .integer(lease), .integer(Int64(row.response)),
                .integer(Int64(row.key)), .text(Self.uuid(row.owner)), .integer(Int64(row.state)), .bytes(row.head),
                .boolean(map.isMaybeSealed(row.id)),
            ])
        guard let answer = found.first else { return nil }
        guard answer.count == 4, var epoch = answer[1].integer, let due = answer[2].integer, let end = answer[3].integer else { throw unexpected() }
        if Batch.wasSlow(epoch: epoch, end: end) {
            let stamped = try await transaction.run(
                single(map.current.statements.restamp),
                [.integer(Int64(incarnation.rawValue) << 52), .text(Self.uuid(row.id)), .integer(epoch), .text(Self.uuid(row.owner))])
            epoch = stamped.first?.last?.integer ?? epoch
        }
        shared.gave(epoch)
        shared.segments.added(1)
        let number = Epoch(rawValue: UInt64(bitPattern: epoch))
        let (result, claim) = RecordMachine.claim(
            request, on: nil, at: StoreTime(Timestamp(microseconds: due - lease)), liveRecords: { .min }, nextEpoch: { _ in number })
        guard case .granted(let grant) = result, case .put(let record) = claim else { throw unexpected() }
        return (grant, record)
    }

    func lock(_ id: OperationID, _ map: SegmentMap, _ transaction: some CallersTransaction) async throws -> (row: Row, segment: Segment)? {
        let reference = OperationReference(id)
        for segment in map.places(of: reference) {
            guard let found = try await transaction.run(single(segment.statements.lock), [.text(Self.uuid(reference))]).first else { continue }
            guard let row = Row(found, reference) else { throw unexpected() }
            return (row, segment)
        }
        return nil
    }

    /// - Parameter onlyItsOwn: only while the row has the record's token; else the row must be locked.
    func put(_ id: OperationID, _ record: Record, in segment: Segment, onlyItsOwn: Bool, _ transaction: some CallersTransaction) async throws -> Bool {
        guard let policy = shared.policies.number(of: record.policy) else { throw unexpected() }
        let row = Row(id, OperationReference(id), record, policy: policy)
        let values: [PostgresValue] = [
            .text(Self.uuid(row.id)), .integer(row.epoch), .integer(row.due), .integer(Int64(row.response)), .integer(Int64(row.key)),
            .text(Self.uuid(row.owner)), .integer(Int64(row.state)), .bytes(row.head), row.outcome.map { .bytes($0) } ?? .null,
        ]
        let condition = onlyItsOwn ? " AND r.epoch = u.epoch AND r.owner = u.owner" : ""
        return try await transaction.run("\(single(segment.statements.put))\(condition) RETURNING r.id::text", values).count == 1
    }

    func delete(_ id: OperationID, in segment: Segment, _ transaction: some CallersTransaction) async throws {
        _ = try await transaction.run(single(segment.statements.delete), [.text(Self.uuid(OperationReference(id)))])
    }

    private func unexpected() -> StoreError {
        StoreError(.refused, "the driver's answer is not what CallersTransaction asks for: integers as integer, bytea as bytes")
    }

    fileprivate static func uuid(_ value: OperationReference) -> String {
        let digits = Array(value.description.dropFirst(3))
        return [0..<8, 8..<12, 12..<16, 16..<20, 20..<32].map { String(digits[$0]) }.joined(separator: "-")
    }

    fileprivate static func uuid(_ value: Owner) -> String { uuid(OperationReference(high: value.high, low: value.low)) }
}

extension Row {
    /// The columns as a caller's driver returned them.
    fileprivate init?(_ values: [PostgresValue], _ id: OperationReference) {
        guard values.count == 9, let epoch = values[1].integer, let due = values[2].integer,
            let response = values[3].integer.flatMap({ Int32(exactly: $0) }), let key = values[4].integer.flatMap({ Int32(exactly: $0) }),
            let owner = values[5].text.flatMap({ OperationReference("op_" + $0.lowercased().filter { $0 != "-" }) }),
            let state = values[6].integer.flatMap({ Int16(exactly: $0) }), case .bytes(let head) = values[7]
        else { return nil }
        self.id = id
        self.epoch = epoch
        self.due = due
        self.response = response
        self.key = key
        self.owner = Owner(high: owner.high, low: owner.low)
        self.state = state
        self.head = head
        if case .bytes(let bytes) = values[8] { outcome = bytes } else { outcome = nil }
    }
}
#endif
