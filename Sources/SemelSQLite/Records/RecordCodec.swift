import Semel

/// A record as one row's bytes.
///
/// Layout: scope, key (each length-prefixed) · CRC-32C of both · format version · body · CRC-32C of everything before.
/// The first part is the same in every version and has a checksum of its own, so that a record whose body is damaged or
/// written by a newer program still says which key it belongs to: that key fails closed, the others go on (H19, H58).
enum RecordCodec {
    static let version: UInt8 = 1

    /// Why stored bytes are no record.
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
        static let outcome = Flags(rawValue: 8)
        static let wholeSeconds = Flags(rawValue: 16)
        static let repeated = Flags(rawValue: 32)
        static let known: Flags = [.trace, .parent, .reason, .outcome, .wholeSeconds, .repeated]
    }

    /// - Parameter policy: the number under which the record's policy is kept.
    static func encode(_ id: OperationID, _ record: Record, policy: Int64) -> [UInt8] {
        var writer = ByteWriter(reservingCapacity: 192 + id.key.bytes.count + id.scope.bytes.count + bodyCount(record.outcome))
        writer.writeLengthPrefixed(id.scope.bytes)
        writer.writeLengthPrefixed(id.key.bytes)
        writer.write(CRC32C.checksum(of: writer.bytes))
        writer.write(version)

        writer.write(record.state.rawValue | record.onLapse.rawValue << 3 | record.mode.rawValue << 5)
        let retention = (response: record.retention.response.microseconds, key: record.retention.key.microseconds)
        let inSeconds = retention.response % 1_000_000 == 0 && retention.key % 1_000_000 == 0
        var flags: Flags = []
        if record.traceID != nil { flags.insert(.trace) }
        if record.parent != nil { flags.insert(.parent) }
        if record.reason != nil { flags.insert(.reason) }
        if record.outcome != nil { flags.insert(.outcome) }
        if inSeconds { flags.insert(.wholeSeconds) }
        if record.attempt != 1 { flags.insert(.repeated) }
        writer.write(flags.rawValue)
        writer.writeRaw(record.fingerprint.bytes)
        writer.write(record.owner.high)
        writer.write(record.owner.low)
        writer.writeVarint(UInt64(policy))
        writer.writeVarint(UInt64(bitPattern: record.createdAt.microseconds))
        writer.writeSigned(record.changedAt.microseconds &- record.createdAt.microseconds)
        writer.writeVarint(record.epoch.rawValue >> 52)
        writer.writeSigned(Int64(record.epoch.rawValue & Self.clockBits) &- record.createdAt.microseconds)
        if record.attempt != 1 { writer.writeVarint(UInt64(record.attempt)) }
        if record.state != .completed { writer.writeSigned(record.leaseUntil.microseconds) }
        let unit: Int64 = inSeconds ? 1_000_000 : 1
        writer.writeSigned(retention.response / unit)
        writer.writeSigned(retention.key / unit)
        if let trace = record.traceID {
            writer.write(trace.high)
            writer.write(trace.low)
        }
        if let parent = record.parent {
            writer.write(parent.high)
            writer.write(parent.low)
        }
        if let reason = record.reason { writer.writeLengthPrefixed(reason) }
        if let outcome = record.outcome { writer.write(outcome) }
        writer.write(CRC32C.checksum(of: writer.bytes))
        return writer.bytes
    }

    /// The key alone, which every format version tells.
    static func decodeIdentity(_ bytes: [UInt8]) throws(Failure) -> OperationID {
        var reader = ByteReader(bytes)
        return try decodeIdentity(&reader, of: bytes)
    }

    private static func decodeIdentity(_ reader: inout ByteReader, of bytes: [UInt8]) throws(Failure) -> OperationID {
        do {
            let scope = Scope(bytes: Array(try reader.readLengthPrefixed()))
            let key = try OperationKey(bytes: Array(try reader.readLengthPrefixed()))
            let computed = bytes[..<reader.offset].withUnsafeBytes { CRC32C.checksum(of: $0) }
            guard try reader.read(UInt32.self) == computed else { throw Failure.identity("its checksum does not match") }
            return OperationID(scope: scope, key: key)
        } catch {
            throw error as? Failure ?? .identity("\(error)")
        }
    }

    /// - Parameter policy: the hash of the policy kept under a number.
    static func decode(_ bytes: [UInt8], policy: (Int64) -> PolicyHash?) throws(Failure) -> (OperationID, Record) {
        var reader = ByteReader(bytes)
        let id = try decodeIdentity(&reader, of: bytes)
        do {
            let version: UInt8 = try reader.read()
            guard bytes.count >= 4, bytes[(bytes.count - 4)...].reversed().reduce(0, { $0 << 8 | UInt32($1) })
                == bytes.dropLast(4).withUnsafeBytes({ CRC32C.checksum(of: $0) })
            else { throw Failure.body("the record is damaged: its checksum does not match") }
            guard version == Self.version else {
                throw Failure.body("the record has the format version \(version), this program knows up to \(Self.version)")
            }
            let record = try decodeBody(&reader, policy: policy)
            _ = try reader.read(UInt32.self)
            try reader.finish()
            return (id, record)
        } catch {
            throw error as? Failure ?? .body("the record is damaged: \(error)")
        }
    }

    private static func decodeBody(_ reader: inout ByteReader, policy: (Int64) -> PolicyHash?) throws -> Record {
        let packed: UInt8 = try reader.read()
        guard let state = RecordState(rawValue: packed & 7), let onLapse = LapseRule(rawValue: packed >> 3 & 3),
            let mode = Mode(rawValue: packed >> 5 & 3), packed < 0x80
        else { throw Failure.body("the record has a state that this program does not know (\(packed))") }
        let flags = Flags(rawValue: try reader.read())
        guard flags.isSubset(of: .known) else {
            throw Failure.body("the record has a part that this program does not know (\(flags.rawValue))")
        }
        guard let fingerprint = Fingerprint(bytes: try reader.readRaw(count: Fingerprint.byteCount)) else {
            throw Failure.body("the record has no fingerprint")
        }
        let owner = Owner(high: try reader.read(), low: try reader.read())
        let number = Int64(truncatingIfNeeded: try reader.readVarint())
        guard let policy = policy(number) else { throw Failure.body("the record's policy \(number) is not kept") }
        let createdAt = Int64(bitPattern: try reader.readVarint())
        let changedAt = createdAt &+ (try reader.readSigned())
        let incarnation = try reader.readVarint()
        let clock = createdAt &+ (try reader.readSigned())
        let epoch = Epoch(rawValue: incarnation << 52 | UInt64(bitPattern: clock) & clockBits)
        let attempt = flags.contains(.repeated) ? UInt32(truncatingIfNeeded: try reader.readVarint()) : 1
        let leaseUntil = state == .completed ? 0 : try reader.readSigned()
        let unit: Int64 = flags.contains(.wholeSeconds) ? 1_000_000 : 1
        let response = try reader.readDuration(in: unit)
        let key = try reader.readDuration(in: unit)
        let trace = flags.contains(.trace) ? TraceID(high: try reader.read(), low: try reader.read()) : nil
        let parent = flags.contains(.parent) ? OperationReference(high: try reader.read(), low: try reader.read()) : nil
        let reason = flags.contains(.reason) ? try reader.readLengthPrefixedText() : nil
        let outcome = flags.contains(.outcome) ? try reader.readOutcome() : nil
        return Record(
            state: state, epoch: epoch, owner: owner, fingerprint: fingerprint, policy: policy, mode: mode, onLapse: onLapse,
            retention: Retention(response: response, key: key), attempt: attempt,
            leaseUntil: Timestamp(microseconds: leaseUntil), createdAt: Timestamp(microseconds: createdAt),
            changedAt: Timestamp(microseconds: changedAt), traceID: trace, parent: parent, reason: reason, outcome: outcome)
    }

    /// The bits of an epoch below its incarnation.
    private static let clockBits: UInt64 = 1 << 52 - 1

    private static func bodyCount(_ outcome: Outcome?) -> Int {
        if case .kept(let body) = outcome?.body { body.count } else { 0 }
    }
}

extension ByteReader {
    fileprivate mutating func readDuration(in unit: Int64) throws(ByteReaderError) -> Duration {
        let count = try readSigned()
        return unit == 1 ? .microseconds(count) : .seconds(count)
    }
}
