public import SemelCore

/// Which operations to list, oldest change first.
public struct OperationQuery: Hashable, Sendable {
    public var states: Set<RecordState>?
    public var scene: String?
    public var scope: Scope?
    public var key: OperationKey?
    /// Only those that entered their state at least this long ago.
    public var unchangedFor: Duration?
    public var limit: Int
    /// Where the page before ended.
    public var cursor: String?

    public init(
        states: Set<RecordState>? = nil, scene: String? = nil, scope: Scope? = nil, key: OperationKey? = nil,
        unchangedFor: Duration? = nil, limit: Int = 100, cursor: String? = nil
    ) {
        self.states = states
        self.scene = scene
        self.scope = scope
        self.key = key
        self.unchangedFor = unchangedFor
        self.limit = limit
        self.cursor = cursor
    }
}

public struct OperationPage: Sendable {
    public var operations: [StoredOperation]
    /// `nil` when there are no more.
    public var cursor: String?
    /// The store's time when the page was read.
    public var now: Timestamp

    public init(operations: [StoredOperation], cursor: String?, now: Timestamp) {
        self.operations = operations
        self.cursor = cursor
        self.now = now
    }
}

public struct StoredOperation: Hashable, Sendable {
    public var id: OperationID
    public var scene: String
    public var record: Record

    public init(id: OperationID, scene: String, record: Record) {
        self.id = id
        self.scene = scene
        self.record = record
    }

    public var reference: OperationReference { OperationReference(id) }
}
