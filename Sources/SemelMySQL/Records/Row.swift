#if MySQL
import Semel

/// A record as one row of `semel_record`.
///
/// What SQL compares, sorts or changes has a column of its own. The rest is the *head*, written when the key is claimed,
/// and the *outcome*, written when it completes. The head begins with scope and key in every format version, and each of
/// the two ends with a CRC-32C: what is damaged or written by a newer program fails closed, for its key alone (H19, H58).
///
/// A key that was forgotten leaves a *free* row for a while, with nothing but its last epoch (see ``Tables/freeTime``).
struct Row: Equatable {
    /// The number in the column `state` of a key that is absent.
    static let free: UInt8 = 0
    private static let version: UInt8 = 1

    var id: RowID
    var state: UInt8
    var rule: UInt8
    var epoch: UInt64
    var owner: Owner
    var lease: Int64
    var changed: Int64
    var response: Int64
    var retain: Int64
    /// The scope's digest while the record is live: what counts, lists and limits live records.
    var live: RowID?
    /// When housekeeping should look at it.
    var due: Int64?
    var head: [UInt8]
    var outcome: [UInt8]?

    /// Why a row is no record.
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    private struct Flags: OptionSet {
        let rawValue: UInt8
        static let trace = Flags(rawValue: 1)
        static let parent = Flags(rawValue: 2)
        static let reason = Flags(rawValue: 4)
        static let known: Flags = [.trace, .parent, .reason]
    }

    // MARK: From a record

    init(_ rowID: RowID, _ id: OperationID, _ record: Record) {
        self.id = rowID
        state = record.state.rawValue
        rule = record.onLapse.rawValue
        epoch = record.epoch.rawValue
        owner = record.owner
        lease = record.leaseUntil.microseconds
        changed = record.changedAt.microseconds
        response = Self.column(record.retention.response)
        retain = Self.column(record.retention.key)
        live = record.isLive ? RowID(id.scope) : nil
        due = record.isLive ? nil : changed + (record.outcome == nil ? retain : response)
        outcome = record.outcome.map { Self.encode($0) }

        var flags: Flags = []
        if record.traceID != nil { flags.insert(.trace) }
        if record.parent != nil { flags.insert(.parent) }
        if record.reason != nil { flags.insert(.reason) }
        var writer = ByteWriter(reservingCapacity: 96 + id.scope.bytes.count + id.key.bytes.count)
        writer.writeLengthPrefixed(id.scope.bytes)
        writer.writeLengthPrefixed(id.key.bytes)
        writer.write(Self.version)
        writer.write(flags.rawValue)
        writer.write(record.mode.rawValue)
        writer.writeRaw(record.fingerprint.bytes)
        writer.write(record.policy.high)
        writer.write(record.policy.low)
        writer.writeVarint(UInt64(record.attempt))
        writer.write(record.createdAt.microseconds)
        if let trace = record.traceID {
            writer.write(trace.high)
            writer.write(trace.low)
        }
        if let parent = record.parent {
            writer.write(parent.high)
            writer.write(parent.low)
        }
        if let reason = record.reason { writer.writeLengthPrefixed(reason) }
        writer.write(CRC32C.checksum(of: writer.bytes))
        head = writer.bytes
    }

    /// What remains of a key that was forgotten.
    static func free(_ id: RowID, after token: FencingToken, at now: Timestamp) -> Row {
        Row(
            id: id, state: free, rule: 0, epoch: token.epoch.rawValue, owner: token.owner, lease: 0, changed: now.microseconds,
            response: 0, retain: 0, live: nil, due: now.microseconds + Tables.freeTime.microseconds, head: [], outcome: nil)
    }

    private init(
        id: RowID, state: UInt8, rule: UInt8, epoch: UInt64, owner: Owner, lease: Int64, changed: Int64, response: Int64, retain: Int64,
        live: RowID?, due: Int64?, head: [UInt8], outcome: [UInt8]?
    ) {
        self.id = id
        self.state = state
        self.rule = rule
        self.epoch = epoch
        self.owner = owner
        self.lease = lease
        self.changed = changed
        self.response = response
        self.retain = retain
        self.live = live
        self.due = due
        self.head = head
        self.outcome = outcome
    }

    /// Whole microseconds; more than 70,000 years are kept as that, so that no sum in SQL overflows.
    static func column(_ duration: Duration) -> Int64 { min(max(duration.microseconds, 0), 1 << 61) }

    static func encode(_ outcome: Outcome) -> [UInt8] {
        var writer = ByteWriter()
        writer.write(outcome)
        writer.write(CRC32C.checksum(of: writer.bytes))
        return writer.bytes
    }

    // MARK: To a record

    var isFree: Bool { state == Self.free }
    var token: FencingToken { FencingToken(epoch: Epoch(rawValue: epoch), owner: owner) }

    /// Which key it is; every format version tells.
    func identity() throws(Failure) -> OperationID {
        var reader = ByteReader(head)
        return try Self.identity(&reader)
    }

    private static func identity(_ reader: inout ByteReader) throws(Failure) -> OperationID {
        do {
            let scope = Scope(bytes: Array(try reader.readLengthPrefixed()))
            return OperationID(scope: scope, key: try OperationKey(bytes: Array(try reader.readLengthPrefixed())))
        } catch {
            throw Failure(description: "its key cannot be read: \(error)")
        }
    }

    func decode() throws(Failure) -> (OperationID, Record) {
        do {
            return try decoded()
        } catch {
            throw error as? Failure ?? Failure(description: "the record is damaged: \(error)")
        }
    }

    private func decoded() throws -> (OperationID, Record) {
        var reader = ByteReader(try Self.checked(head, "head"))
        let id = try Self.identity(&reader)
        guard RowID(id) == self.id else { throw Failure(description: "the record is damaged: it is another key's") }
        let version: UInt8 = try reader.read()
        guard version == Self.version else {
            throw Failure(description: "the record has the format version \(version), this program knows up to \(Self.version)")
        }
        let flags = Flags(rawValue: try reader.read())
        guard flags.isSubset(of: .known) else {
            throw Failure(description: "the record has a part that this program does not know (\(flags.rawValue))")
        }
        guard let state = RecordState(rawValue: state), let rule = LapseRule(rawValue: rule), let mode = Mode(rawValue: try reader.read()) else {
            throw Failure(description: "the record has a state that this program does not know (\(self.state), \(self.rule))")
        }
        guard let fingerprint = Fingerprint(bytes: try reader.readRaw(count: Fingerprint.byteCount)) else {
            throw Failure(description: "the record has no fingerprint")
        }
        let policy = PolicyHash(high: try reader.read(), low: try reader.read())
        let attempt = UInt32(truncatingIfNeeded: try reader.readVarint())
        let createdAt: Int64 = try reader.read()
        let trace = flags.contains(.trace) ? TraceID(high: try reader.read(), low: try reader.read()) : nil
        let parent = flags.contains(.parent) ? OperationReference(high: try reader.read(), low: try reader.read()) : nil
        let reason = flags.contains(.reason) ? try reader.readLengthPrefixedText() : nil
        try reader.finish()
        var kept: Outcome?
        if let outcome {
            var reader = ByteReader(try Self.checked(outcome, "outcome"))
            kept = try reader.readOutcome()
            try reader.finish()
        }
        let isCompleted = state == .completed
        return (
            id,
            Record(
                state: state, epoch: Epoch(rawValue: epoch), owner: owner, fingerprint: fingerprint, policy: policy, mode: mode,
                onLapse: rule, retention: Retention(response: .microseconds(response), key: .microseconds(retain)), attempt: attempt,
                leaseUntil: isCompleted ? .distantPast : Timestamp(microseconds: lease), createdAt: Timestamp(microseconds: createdAt),
                changedAt: Timestamp(microseconds: changed), traceID: trace, parent: parent,
                // Completing changes no head, so it leaves the reason of an earlier uncertainty there.
                reason: isCompleted ? nil : reason, outcome: kept)
        )
    }

    private static func checked(_ bytes: [UInt8], _ what: String) throws(Failure) -> ArraySlice<UInt8> {
        guard bytes.count >= 4, bytes[(bytes.count - 4)...].reversed().reduce(0, { $0 << 8 | UInt32($1) }) == CRC32C.checksum(of: Array(bytes.dropLast(4)))
        else { throw Failure(description: "the record is damaged: the checksum of its \(what) does not match") }
        return bytes.dropLast(4)
    }
}

extension Row {
    /// The columns in the order of ``Tables/columns``.
    init(_ row: MySQLRow) throws(Failure) {
        guard let id = RowID(row[0].bytes), let state = row[1].integer, let rule = row[2].integer, let epoch = row[3].natural,
            let owner = Owner(row[4].bytes), let lease = row[5].integer, let changed = row[6].integer, let response = row[7].integer,
            let retain = row[8].integer, let head = row[11].bytes
        else { throw Failure(description: "a row of \(Tables.record) is not of the form of this program's") }
        self.init(
            id: id, state: UInt8(clamping: state), rule: UInt8(clamping: rule), epoch: epoch, owner: owner, lease: lease, changed: changed,
            response: response, retain: retain, live: RowID(row[9].bytes), due: row[10].integer, head: head, outcome: row[12].bytes)
    }

    func append(to parameters: inout Parameters) {
        parameters.append(id.bytes)
        parameters.append(Int64(state))
        parameters.append(Int64(rule))
        parameters.append(unsigned: epoch)
        parameters.append(owner.bytes)
        parameters.append(lease)
        parameters.append(changed)
        parameters.append(response)
        parameters.append(retain)
        parameters.append(live?.bytes)
        parameters.append(due)
        parameters.append(head)
        parameters.append(outcome)
    }
}

extension Owner {
    init?(_ bytes: [UInt8]?) {
        guard let bytes, bytes.count == 16 else { return nil }
        var reader = ByteReader(bytes)
        guard let high = try? reader.read(UInt64.self), let low = try? reader.read(UInt64.self) else { return nil }
        self.init(high: high, low: low)
    }

    var bytes: [UInt8] {
        var writer = ByteWriter(reservingCapacity: 16)
        writer.write(high)
        writer.write(low)
        return writer.bytes
    }
}
#endif
