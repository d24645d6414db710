internal import Semel

/// Reads records as ``Scripts`` lays them out, and writes the parts that the scripts put together.
enum RecordCodec {
    static let version: UInt8 = 1

    struct Failure: Error, CustomStringConvertible {
        let description: String

        init(_ description: String) { self.description = description }
    }

    private enum Flag {
        static let trace: UInt8 = 1
        static let parent: UInt8 = 2
        static let seconds: UInt8 = 4
        static let outcome: UInt8 = 8
        static let changedInFull: UInt8 = 32
        static let epoch: UInt8 = 64
        static let attempt: UInt8 = 128
    }

    /// The longest duration that a script can count with.
    static let longest = Duration.microseconds(1 << 52)

    /// Whole microseconds, as a script takes them.
    static func microseconds(_ duration: Duration) -> UInt64 { UInt64(min(max(0, duration.microseconds), longest.microseconds)) }

    // MARK: Writing

    /// The first 55 bytes of a record that a claim makes.
    static func head(_ request: ClaimRequest, policy: PolicyNumber) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(55)
        bytes.append(version)
        bytes.append(RecordState.claimed.rawValue | request.onLapse.rawValue << 3 | request.mode.rawValue << 5)
        bytes.append(
            (request.traceID == nil ? 0 : Flag.trace) | (request.parent == nil ? 0 : Flag.parent)
                | (inSeconds(request.retention) ? Flag.seconds : 0))
        bytes.appendNumber(request.owner.high, bytes: 8)
        bytes.appendNumber(request.owner.low, bytes: 8)
        bytes.append(contentsOf: request.fingerprint.bytes)
        bytes.appendNumber(UInt64(policy.rawValue), bytes: 4)
        return bytes
    }

    /// The part that a record keeps to its end, with its length; the identity is the last of it.
    static func kept(_ request: ClaimRequest, identity: [UInt8]) -> [UInt8] {
        var bytes: [UInt8] = [0, 0]
        bytes.reserveCapacity(48 + identity.count)
        append(request.retention, to: &bytes)
        if let trace = request.traceID {
            bytes.appendNumber(trace.high, bytes: 8)
            bytes.appendNumber(trace.low, bytes: 8)
        }
        if let parent = request.parent {
            bytes.appendNumber(parent.high, bytes: 8)
            bytes.appendNumber(parent.low, bytes: 8)
        }
        bytes.append(contentsOf: identity)
        let count = bytes.count - 2
        bytes[0] = UInt8(truncatingIfNeeded: count >> 8)
        bytes[1] = UInt8(truncatingIfNeeded: count)
        return bytes
    }

    /// Scope and key, whole. A key that is the text of a UUID in small letters, as most are, takes 16 bytes instead of 36.
    static func identity(_ id: OperationID) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(id.scope.bytes.count + id.key.bytes.count + 4)
        if id.scope.bytes.count < 255 {
            bytes.append(UInt8(id.scope.bytes.count))
        } else {
            bytes.append(255)
            bytes.appendNumber(UInt64(id.scope.bytes.count), bytes: 2)
        }
        bytes.append(contentsOf: id.scope.bytes)
        if let packed = UUIDText.pack(id.key.bytes) {
            bytes.append(0)
            bytes.append(contentsOf: packed)
        } else {
            bytes.append(UInt8(id.key.bytes.count))
            bytes.append(contentsOf: id.key.bytes)
        }
        return bytes
    }

    /// The longest scope that a record has room for.
    static let scopeLimit = 32_768

    /// A completion's own retentions, after the flag that says how they are written.
    static func override(_ retention: Retention?) -> [UInt8] {
        guard let retention else { return [] }
        var bytes = [inSeconds(retention) ? Flag.seconds : 0]
        append(retention, to: &bytes)
        return bytes
    }

    private static func inSeconds(_ retention: Retention) -> Bool {
        let (response, key) = (microseconds(retention.response), microseconds(retention.key))
        return response % 1_000_000 == 0 && key % 1_000_000 == 0 && key / 1_000_000 <= UInt64(UInt32.max)
    }

    private static func append(_ retention: Retention, to bytes: inout [UInt8]) {
        let (response, key) = (microseconds(retention.response), microseconds(retention.key))
        if inSeconds(retention) {
            bytes.appendNumber(response / 1_000_000, bytes: 4)
            bytes.appendNumber(key / 1_000_000, bytes: 4)
        } else {
            bytes.appendNumber(response, bytes: 7)
            bytes.appendNumber(key, bytes: 7)
        }
    }

    private enum OutcomePart {
        static let fields: UInt8 = 1
        static let trailers: UInt8 = 2
        static let omitted: UInt8 = 4
        static let length: UInt8 = 8
        static let digest: UInt8 = 16
    }

    static func encode(_ outcome: Outcome) -> [UInt8] {
        var writer = ByteWriter()
        var parts = (outcome.fields.isEmpty ? 0 : OutcomePart.fields) | (outcome.trailers.isEmpty ? 0 : OutcomePart.trailers)
        if case .omitted(let length, let digest) = outcome.body {
            parts |= OutcomePart.omitted | (length == nil ? 0 : OutcomePart.length) | (digest == nil ? 0 : OutcomePart.digest)
        }
        writer.write(parts)
        writer.write(outcome.status)
        for fields in [outcome.fields, outcome.trailers] where !fields.isEmpty {
            writer.writeVarint(UInt64(fields.count))
            for field in fields {
                writer.writeLengthPrefixed(field.name)
                writer.writeLengthPrefixed(field.value)
            }
        }
        switch outcome.body {
        case .kept(let bytes): writer.writeRaw(bytes)
        case .omitted(let length, let digest):
            if let length { writer.writeVarint(length) }
            if let digest { writer.writeRaw(digest) }
        }
        return writer.bytes
    }

    // MARK: Reading

    /// - Parameter policy: the hash of the policy kept under a number.
    static func decode(_ bytes: ArraySlice<UInt8>, policy: (PolicyNumber) -> PolicyHash?) throws(Failure) -> (
        id: OperationID, record: Record
    ) {
        do {
            var reader = ByteReader(bytes)
            let version: UInt8 = try reader.read()
            guard version == Self.version else {
                throw Failure("the record has the format version \(version), this program knows up to \(Self.version)")
            }
            return try decodeBody(&reader, policy)
        } catch {
            throw error as? Failure ?? Failure("the record is damaged: \(error)")
        }
    }

    /// The number of the policy that a record is pinned to; `nil` when it is too short to say so.
    static func policyNumber(_ bytes: ArraySlice<UInt8>) -> PolicyNumber? {
        guard bytes.count >= 55 else { return nil }
        return PolicyNumber(rawValue: bytes.dropFirst(51).prefix(4).reduce(0) { $0 << 8 | UInt32($1) })
    }

    private static func decodeBody(_ reader: inout ByteReader, _ policy: (PolicyNumber) -> PolicyHash?) throws -> (OperationID, Record) {
        let packed: UInt8 = try reader.read()
        guard let state = RecordState(rawValue: packed & 7), let onLapse = LapseRule(rawValue: packed >> 3 & 3),
            let mode = Mode(rawValue: packed >> 5 & 3), packed < 0x80
        else { throw Failure("the record has a state that this program does not know (\(packed))") }
        let flags: UInt8 = try reader.read()
        let owner = Owner(high: try reader.readNumber(bytes: 8), low: try reader.readNumber(bytes: 8))
        guard let fingerprint = Fingerprint(bytes: try reader.readRaw(count: Fingerprint.byteCount)) else {
            throw Failure("the record has no fingerprint")
        }
        let number = PolicyNumber(rawValue: UInt32(truncatingIfNeeded: try reader.readNumber(bytes: 4)))
        guard let policy = policy(number) else { throw Failure("the record's policy \(number) is not kept") }
        let createdAt = Int64(try reader.readNumber(bytes: 7))

        let epoch: Epoch
        let changedAt: Int64
        var leaseUntil: Int64 = 0
        let attempt: UInt32
        if state == .completed {
            changedAt =
                flags & Flag.changedInFull != 0
                ? Int64(try reader.readNumber(bytes: 7)) : createdAt + Int64(try reader.readNumber(bytes: 4))
            epoch = flags & Flag.epoch != 0 ? try reader.readEpoch() : Epoch(rawValue: UInt64(createdAt))
            attempt = flags & Flag.attempt != 0 ? UInt32(truncatingIfNeeded: try reader.readNumber(bytes: 3)) : 1
        } else {
            epoch = try reader.readEpoch()
            changedAt = Int64(try reader.readNumber(bytes: 7))
            leaseUntil = Int64(try reader.readNumber(bytes: 7))
            attempt = UInt32(truncatingIfNeeded: try reader.readNumber(bytes: 3))
        }
        var kept = ByteReader(try reader.readRaw(count: Int(try reader.readNumber(bytes: 2))))
        let (width, unit): (Int, Int64) = flags & Flag.seconds != 0 ? (4, 1_000_000) : (7, 1)
        let response = Duration.microseconds(Int64(try kept.readNumber(bytes: width)) * unit)
        let key = Duration.microseconds(Int64(try kept.readNumber(bytes: width)) * unit)
        let trace = flags & Flag.trace != 0 ? TraceID(high: try kept.readNumber(bytes: 8), low: try kept.readNumber(bytes: 8)) : nil
        let parent =
            flags & Flag.parent != 0 ? OperationReference(high: try kept.readNumber(bytes: 8), low: try kept.readNumber(bytes: 8)) : nil
        let id = try readIdentity(&kept)
        try kept.finish()

        var reason: String?
        var outcome: Outcome?
        if state == .completed {
            if flags & Flag.outcome != 0 { outcome = try reader.readOutcome() }
        } else if reader.remaining > 0 {
            _ = try reader.readRaw(count: 1)
            reason = String(decoding: try reader.readRaw(count: reader.remaining), as: UTF8.self)
        }
        try reader.finish()
        let record = Record(
            state: state, epoch: epoch, owner: owner, fingerprint: fingerprint, policy: policy, mode: mode, onLapse: onLapse,
            retention: Retention(response: response, key: key), attempt: attempt, leaseUntil: Timestamp(microseconds: leaseUntil),
            createdAt: Timestamp(microseconds: createdAt), changedAt: Timestamp(microseconds: changedAt), traceID: trace, parent: parent,
            reason: reason, outcome: outcome)
        return (id, record)
    }

    static func decodeIdentity(_ bytes: [UInt8]) throws(Failure) -> OperationID {
        do {
            var reader = ByteReader(bytes)
            let id = try readIdentity(&reader)
            try reader.finish()
            return id
        } catch {
            throw error as? Failure ?? Failure("\(error)")
        }
    }

    private static func readIdentity(_ reader: inout ByteReader) throws -> OperationID {
        var length = Int(try reader.read(UInt8.self))
        if length == 255 { length = Int(try reader.readNumber(bytes: 2)) }
        let scope = Scope(bytes: Array(try reader.readRaw(count: length)))
        let count: UInt8 = try reader.read()
        let key = count == 0 ? UUIDText.unpack(Array(try reader.readRaw(count: 16))) : Array(try reader.readRaw(count: Int(count)))
        return OperationID(scope: scope, key: try OperationKey(bytes: key))
    }
}

/// The text of a UUID in small letters, as 16 bytes.
enum UUIDText {
    private static let hyphens: Set<Int> = [8, 13, 18, 23]

    static func pack(_ text: [UInt8]) -> [UInt8]? {
        guard text.count == 36 else { return nil }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(16)
        var high: UInt8?
        for index in 0..<36 {
            let letter = text[index]
            if index == 8 || index == 13 || index == 18 || index == 23 {
                guard letter == UInt8(ascii: "-") else { return nil }
                continue
            }
            let value: UInt8
            switch letter {
            case 0x30...0x39: value = letter - 0x30
            case 0x61...0x66: value = letter - 0x61 + 10
            default: return nil
            }
            if let first = high {
                bytes.append(first << 4 | value)
                high = nil
            } else {
                high = value
            }
        }
        return bytes
    }

    static func unpack(_ bytes: [UInt8]) -> [UInt8] {
        let digits = Array("0123456789abcdef".utf8)
        var text: [UInt8] = []
        text.reserveCapacity(36)
        for byte in bytes {
            if hyphens.contains(text.count) { text.append(UInt8(ascii: "-")) }
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        return text
    }
}

extension [UInt8] {
    /// Appends a number with its most significant byte first, as the scripts read it.
    mutating func appendNumber(_ number: UInt64, bytes count: Int) {
        for shift in stride(from: (count - 1) * 8, through: 0, by: -8) { append(UInt8(truncatingIfNeeded: number >> UInt64(shift))) }
    }

    /// An epoch as records hold it: its incarnation, then the rest.
    mutating func appendEpoch(_ epoch: Epoch) {
        appendNumber(epoch.rawValue >> 52, bytes: 2)
        appendNumber(epoch.rawValue & (1 << 52 - 1), bytes: 7)
    }
}

extension ByteReader {
    mutating func readNumber(bytes count: Int) throws(ByteReaderError) -> UInt64 {
        try readRaw(count: count).reduce(0) { $0 << 8 | UInt64($1) }
    }

    mutating func readEpoch() throws(ByteReaderError) -> Epoch {
        let incarnation = try readNumber(bytes: 2)
        return Epoch(rawValue: incarnation << 52 | (try readNumber(bytes: 7)))
    }

    fileprivate mutating func readOutcome() throws -> Outcome {
        let parts: UInt8 = try read()
        guard parts < 32 else { throw RecordCodec.Failure("the outcome has a part that this program does not know (\(parts))") }
        let status: UInt16 = try read()
        let fields = parts & 1 != 0 ? try readFields() : []
        let trailers = parts & 2 != 0 ? try readFields() : []
        let body: Outcome.Body
        if parts & 4 == 0 {
            body = .kept(Array(try readRaw(count: remaining)))
        } else {
            let length = parts & 8 != 0 ? try readVarint() : nil
            let digest = parts & 16 != 0 ? Array(try readRaw(count: remaining)) : nil
            body = .omitted(length: length, digest: digest)
        }
        return Outcome(status: status, fields: fields, body: body, trailers: trailers)
    }

    private mutating func readFields() throws(ByteReaderError) -> [Outcome.Field] {
        var fields: [Outcome.Field] = []
        // Not reserved ahead: the count is only claimed by the input.
        for _ in 0..<(try readVarint()) {
            fields.append(Outcome.Field(try readLengthPrefixedText(), try readLengthPrefixedText()))
        }
        return fields
    }
}
