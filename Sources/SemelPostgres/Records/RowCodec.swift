#if Postgres
import Semel

/// A record as one row of the table.
///
/// What SQL compares has a column of its own; the rest is the *head*, written when the key is claimed, and the *outcome*,
/// written when it completes. One column serves two states: `due` is the end of the lease while the record is live, and
/// the next time housekeeping has something to do once it is completed.
///
/// The head begins with the scope and the key in every format version, so that a record written by a newer program still
/// says which key it belongs to (H58). Damage on disk is for PostgreSQL's own checksums to find.
struct Row {
    static let version: Int16 = 1

    var id: OperationReference
    var epoch: Int64
    var due: Int64
    /// The retentions: whole seconds when not negative, else microseconds.
    var response: Int32
    var key: Int32
    var owner: Owner
    /// Bits 0–2 the state, 3–4 the lapse rule, 5–6 the mode, 7 whether the head has the exact retentions, 8–14 the format
    /// version.
    var state: Int16
    var head: [UInt8]
    var outcome: [UInt8]?

    /// Why a row is no record.
    enum Failure: Error, CustomStringConvertible {
        /// Not even the key can be read.
        case identity(String)
        case body(String)

        var description: String {
            switch self {
            case .identity(let text): "its key cannot be read: \(text)"
            case .body(let text): text
            }
        }
    }

    private struct Flags: OptionSet {
        let rawValue: UInt8
        static let trace = Flags(rawValue: 1)
        static let parent = Flags(rawValue: 2)
        static let reason = Flags(rawValue: 4)
        static let created = Flags(rawValue: 8)
        static let changed = Flags(rawValue: 16)
        static let repeated = Flags(rawValue: 32)
        static let retention = Flags(rawValue: 64)
        static let known: Flags = [.trace, .parent, .reason, .created, .changed, .repeated, .retention]
    }

    // MARK: Masks that SQL uses

    /// Format version, exact retention, state.
    static let exactMask: Int16 = 0x7F87
    /// Format version and state.
    static let stateMask: Int16 = 0x7F07
    static func pattern(_ state: RecordState) -> Int16 { version << 8 | Int16(state.rawValue) }

    // MARK: Durations in a column

    /// A duration in 32 bits; not exact, and then never shorter, where it has both a large size and a fraction.
    static func column(_ duration: Duration) -> (value: Int32, isExact: Bool) {
        let microseconds = max(0, duration.microseconds)
        let (seconds, rest) = microseconds.quotientAndRemainder(dividingBy: 1_000_000)
        if rest == 0, seconds <= Int32.max { return (Int32(seconds), duration >= .zero) }
        if microseconds <= Int64(Int32.max) { return (Int32(-microseconds), true) }
        return (Int32(clamping: seconds + 1), false)
    }

    static func microseconds(_ column: Int32) -> Int64 {
        column >= 0 ? Int64(column) * 1_000_000 : -Int64(column)
    }

    // MARK: From a record

    init(_ id: OperationID, _ reference: OperationReference, _ record: Record, policy: Int32) {
        self.id = reference
        epoch = Int64(bitPattern: record.epoch.rawValue)
        owner = record.owner
        let (response, responseIsExact) = Self.column(record.retention.response)
        let (key, keyIsExact) = Self.column(record.retention.key)
        (self.response, self.key) = (response, key)
        let isExact = responseIsExact && keyIsExact
        state = Self.version << 8 | Int16(record.state.rawValue) | Int16(record.onLapse.rawValue) << 3
            | Int16(record.mode.rawValue) << 5 | (isExact ? 0 : 0x80)
        outcome = record.outcome.map { outcome in
            var writer = ByteWriter()
            writer.write(outcome)
            return writer.bytes
        }
        due = record.state == .completed
            ? record.changedAt.microseconds &+ Self.microseconds(record.outcome == nil ? key : response)
            : record.leaseUntil.microseconds

        let epochTime = Self.time(of: epoch)
        var flags: Flags = []
        if record.traceID != nil { flags.insert(.trace) }
        if record.parent != nil { flags.insert(.parent) }
        if record.reason != nil { flags.insert(.reason) }
        if record.createdAt.microseconds != epochTime { flags.insert(.created) }
        if record.isLive, record.changedAt != record.createdAt { flags.insert(.changed) }
        if record.attempt != 1 { flags.insert(.repeated) }
        if !isExact { flags.insert(.retention) }
        var writer = ByteWriter(reservingCapacity: 64 + id.scope.bytes.count + id.key.bytes.count)
        Self.write(id, to: &writer)
        writer.write(flags.rawValue)
        writer.writeRaw(record.fingerprint.bytes)
        writer.writeVarint(UInt64(UInt32(bitPattern: policy)))
        if let trace = record.traceID {
            writer.write(trace.high)
            writer.write(trace.low)
        }
        if let parent = record.parent {
            writer.write(parent.high)
            writer.write(parent.low)
        }
        if let reason = record.reason { writer.writeLengthPrefixed(reason) }
        if flags.contains(.created) { writer.write(record.createdAt.microseconds) }
        if flags.contains(.changed) { writer.writeSigned(record.changedAt.microseconds &- record.createdAt.microseconds) }
        if record.attempt != 1 { writer.writeVarint(UInt64(record.attempt)) }
        if !isExact {
            writer.write(record.retention.response.microseconds)
            writer.write(record.retention.key.microseconds)
        }
        head = writer.bytes
    }

    private static func write(_ id: OperationID, to writer: inout ByteWriter) {
        // SQL reads the scope too, so its length is plain.
        writer.writeRaw([UInt8(id.scope.bytes.count >> 8 & 0xFF), UInt8(id.scope.bytes.count & 0xFF)])
        writer.writeRaw(id.scope.bytes)
        writer.write(UInt8(id.key.bytes.count))
        writer.writeRaw(id.key.bytes)
    }

    /// The longest scope a row can hold.
    static let scopeLimit = 65_535

    /// The time in an epoch.
    private static func time(of epoch: Int64) -> Int64 { epoch & (1 << 52 - 1) }

    // MARK: To a record

    func identity() throws(Failure) -> OperationID {
        var reader = ByteReader(head)
        return try Self.identity(&reader)
    }

    private static func identity(_ reader: inout ByteReader) throws(Failure) -> OperationID {
        do {
            let length = try reader.readRaw(count: 2)
            let scope = Scope(bytes: Array(try reader.readRaw(count: Int(length.first!) << 8 | Int(length.last!))))
            let key = try OperationKey(bytes: Array(try reader.readRaw(count: Int(try reader.read(UInt8.self)))))
            return OperationID(scope: scope, key: key)
        } catch {
            throw .identity("\(error)")
        }
    }

    /// - Parameter policy: the hash of the policy kept under a number.
    func record(policy: (Int32) throws -> PolicyHash?) throws -> (OperationID, Record) {
        var reader = ByteReader(head)
        let id = try Self.identity(&reader)
        guard state >> 8 == Self.version else {
            throw Failure.body("the record has the format version \(state >> 8), this program knows up to \(Self.version)")
        }
        guard let phase = RecordState(rawValue: UInt8(state & 7)), let onLapse = LapseRule(rawValue: UInt8(state >> 3 & 3)),
            let mode = Mode(rawValue: UInt8(state >> 5 & 3))
        else { throw Failure.body("the record has a state that this program does not know (\(state))") }
        do {
            let flags = Flags(rawValue: try reader.read())
            guard flags.isSubset(of: .known) else {
                throw Failure.body("the record has a part that this program does not know (\(flags.rawValue))")
            }
            guard let fingerprint = Fingerprint(bytes: try reader.readRaw(count: Fingerprint.byteCount)) else {
                throw Failure.body("the record has no fingerprint")
            }
            let number = Int32(truncatingIfNeeded: try reader.readVarint())
            guard let policy = try policy(number) else { throw Failure.body("the record's policy \(number) is not kept") }
            let trace = flags.contains(.trace) ? TraceID(high: try reader.read(), low: try reader.read()) : nil
            let parent = flags.contains(.parent) ? OperationReference(high: try reader.read(), low: try reader.read()) : nil
            let reason = flags.contains(.reason) ? try reader.readLengthPrefixedText() : nil
            let createdAt = flags.contains(.created) ? try reader.read(Int64.self) : Self.time(of: epoch)
            let changed = flags.contains(.changed) ? createdAt &+ (try reader.readSigned()) : createdAt
            let attempt = flags.contains(.repeated) ? UInt32(truncatingIfNeeded: try reader.readVarint()) : 1
            let retention = flags.contains(.retention)
                ? Retention(response: .microseconds(try reader.read(Int64.self)), key: .microseconds(try reader.read(Int64.self)))
                : Retention(response: .microseconds(Self.microseconds(response)), key: .microseconds(Self.microseconds(key)))
            try reader.finish()
            let isCompleted = phase == .completed
            var kept: Outcome?
            if let outcome {
                var reader = ByteReader(outcome)
                kept = try reader.readOutcome()
                try reader.finish()
            }
            let changedAt = isCompleted ? due &- Self.microseconds(outcome == nil ? key : response) : changed
            return (
                id,
                Record(
                    state: phase, epoch: Epoch(rawValue: UInt64(bitPattern: epoch)), owner: owner, fingerprint: fingerprint,
                    policy: policy, mode: mode, onLapse: onLapse, retention: retention, attempt: attempt,
                    leaseUntil: isCompleted ? .distantPast : Timestamp(microseconds: due),
                    createdAt: Timestamp(microseconds: createdAt), changedAt: Timestamp(microseconds: changedAt), traceID: trace,
                    parent: parent, reason: isCompleted ? nil : reason, outcome: kept)
            )
        } catch let error as ByteReaderError {
            throw Failure.body("the record is damaged: \(error)")
        } catch let error as OutcomeFormatError {
            throw Failure.body("the record is damaged: \(error)")
        }
    }
}

extension Row {
    /// The columns, in the order in which ``Statements`` selects them.
    init(_ rows: Rows, _ row: Int) {
        id = rows.reference(row, 0)
        epoch = rows.integer(row, 1)
        due = rows.integer(row, 2)
        response = rows.integer(row, 3)
        key = rows.integer(row, 4)
        let holder = rows.reference(row, 5)
        owner = Owner(high: holder.high, low: holder.low)
        state = rows.integer(row, 6)
        head = rows.bytes(row, 7)
        outcome = rows.optionalBytes(row, 8)
    }
}
#endif
