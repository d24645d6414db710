internal import Crypto
public import SemelCore

/// Who does something to an operation by hand, and why. Both are required.
public struct OperatorAct: Hashable, Sendable {
    public var actor: String
    public var reason: String

    public init(actor: String, reason: String) {
        self.actor = actor
        self.reason = reason
    }
}

/// One line of the append-only audit log. Each carries the hash of the one before, so a changed, removed or inserted
/// line shows (``firstBreak(in:following:)``).
///
/// Not guaranteed: that nobody with write access to the whole log recomputed all of it. Export the last hash to notice that.
public struct AuditEntry: Hashable, Sendable {
    public var sequence: Int64
    public var time: Timestamp
    public var actor: String
    public var reason: String
    /// `resolve-applied`, `resolve-not-applied`, `forget` …
    public var action: String
    public var operation: OperationReference
    public var scene: String
    /// What the record was before and after, without outcome or key.
    public var detail: String
    public var previousHash: [UInt8]
    public var hash: [UInt8]

    /// Appends to a chain: computes the hash over all fields, length-prefixed, and the hash before.
    public init(
        sequence: Int64, time: Timestamp, act: OperatorAct, action: String, operation: OperationReference, scene: String,
        detail: String, following previousHash: [UInt8]
    ) {
        self.sequence = sequence
        self.time = time
        actor = act.actor
        reason = act.reason
        self.action = action
        self.operation = operation
        self.scene = scene
        self.detail = detail
        self.previousHash = previousHash
        hash = []
        hash = computedHash
    }

    /// An entry read back from storage, hash and all. Whether they agree, ``firstBreak(in:following:)`` tells.
    public init(
        sequence: Int64, time: Timestamp, act: OperatorAct, action: String, operation: OperationReference, scene: String,
        detail: String, previousHash: [UInt8], storedHash: [UInt8]
    ) {
        self.init(
            sequence: sequence, time: time, act: act, action: action, operation: operation, scene: scene, detail: detail,
            following: previousHash)
        hash = storedHash
    }

    public static let genesisHash = [UInt8](repeating: 0, count: 32)

    /// The first entry that does not follow from the one before it, or `nil` when the chain is whole.
    public static func firstBreak(in entries: [AuditEntry], following start: (sequence: Int64, hash: [UInt8])) -> AuditEntry? {
        var (sequence, hash) = start
        for entry in entries {
            guard entry.sequence == sequence + 1, entry.previousHash == hash, entry.hash == entry.computedHash else { return entry }
            (sequence, hash) = (entry.sequence, entry.hash)
        }
        return nil
    }

    private var computedHash: [UInt8] {
        var writer = ByteWriter()
        writer.writeLengthPrefixed(previousHash)
        for text in [String(sequence), String(time.microseconds), actor, reason, action, operation.description, scene, detail] {
            writer.writeLengthPrefixed(Array(text.utf8))
        }
        var digest = SHA256()
        digest.update(data: writer.bytes)
        return Array(digest.finalize())
    }
}
