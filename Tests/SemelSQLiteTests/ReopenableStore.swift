import Foundation
import Semel
@testable import SemelSQLite

/// A store whose process "restarts" under its users: closed, perhaps changed on disk by a test, and opened again.
final class ReopenableStore: OperationStore {
    private let path: String
    private let configuration: SQLiteStore.Configuration
    private let clock: any StoreClock
    private let opened: Locked<SQLiteStore>
    private var store: SQLiteStore { opened.withLock { $0 } }

    init(path: String, configuration: SQLiteStore.Configuration, clock: any StoreClock) async throws(StoreError) {
        self.path = path
        self.configuration = configuration
        self.clock = clock
        opened = Locked(try await SQLiteStore(path: path, configuration: configuration, clock: clock))
    }

    func restart(_ whileClosed: () throws -> Void = {}) async throws {
        await store.close()
        try whileClosed()
        let store = try await SQLiteStore(path: path, configuration: configuration, clock: clock)
        opened.withLock { $0 = store }
    }

    func close() async { await store.close() }

    var capabilities: StoreCapabilities { store.capabilities }
    func claim(_ requests: [ClaimRequest]) async throws(StoreError) -> [ClaimResult] { try await store.claim(requests) }
    func apply(_ transitions: [Transition]) async throws(StoreError) -> [TransitionResult] { try await store.apply(transitions) }
    func record(of id: OperationID) async throws(StoreError) -> Record? { try await store.record(of: id) }
    func leaseRemaining(of record: Record) async throws(StoreError) -> Duration { try await store.leaseRemaining(of: record) }
    func observe(_ id: OperationID) -> Observation { store.observe(id) }
    func verify(_ id: OperationID, owner: Owner, lease: Duration) async throws(StoreError) -> Grant? {
        try await store.verify(id, owner: owner, lease: lease)
    }
    func operations(_ query: OperationQuery) async throws(StoreError) -> OperationPage { try await store.operations(query) }
    func operation(_ reference: OperationReference) async throws(StoreError) -> StoredOperation? { try await store.operation(reference) }
    func resolve(_ id: OperationID, as resolution: Resolution, by act: OperatorAct, expecting epoch: Epoch?) async throws(StoreError) -> TransitionResult {
        try await store.resolve(id, as: resolution, by: act, expecting: epoch)
    }
    func forget(_ id: OperationID, by act: OperatorAct, expecting epoch: Epoch?) async throws(StoreError) -> TransitionResult {
        try await store.forget(id, by: act, expecting: epoch)
    }
    func audit(after sequence: Int64, limit: Int) async throws(StoreError) -> [AuditEntry] {
        try await store.audit(after: sequence, limit: limit)
    }
    func policy(_ hash: PolicyHash) async throws(StoreError) -> PinnedPolicy? { try await store.policy(hash) }
    func purge(limit: Int) async throws(StoreError) -> PurgeReport { try await store.purge(limit: limit) }
    func health() async -> StoreHealth { await store.health() }
}

/// The rows of a closed database, for tests that look at or damage them.
struct RawDatabase {
    let path: String

    /// Rewrites every record's bytes in a table; `nil` leaves a row as it is.
    func rewrite(_ table: String, _ change: ([UInt8]) throws -> [UInt8]?) throws {
        let database = try Database(path: path, vfs: nil)
        let read = try database.prepare("SELECT id, record FROM \(table)", isPersistent: false)
        var rows: [(Int64, [UInt8])] = []
        while try read.step() { rows.append((read.integer(0), read.bytes(1))) }
        let write = try database.prepare("UPDATE \(table) SET record = ?2 WHERE id = ?1", isPersistent: false)
        for (row, bytes) in rows {
            if let changed = try change(bytes) { try write.run(row, changed) }
        }
    }

    func execute(_ sql: String) throws { try Database(path: path, vfs: nil).execute(sql) }
    func integer(_ sql: String) throws -> Int64? { try Database(path: path, vfs: nil).integer(sql) }

    /// Gives one operation's record a state that no version knows, with a right checksum.
    func plant(state: UInt8, in id: OperationID) throws {
        for table in ["semel_live", "semel_completed", "semel_tombstone"] {
            try rewrite(table) { bytes in
                guard try RecordCodec.decodeIdentity(bytes) == id else { return nil }
                return RecordBytes.withState(state, bytes)
            }
        }
    }
}

enum RecordBytes {
    /// Where the body begins: after both length-prefixed fields, their checksum and the version.
    static func bodyStart(_ bytes: [UInt8]) -> Int {
        var reader = ByteReader(bytes)
        _ = try? reader.readLengthPrefixed()
        _ = try? reader.readLengthPrefixed()
        return reader.offset + 5
    }

    static func withState(_ state: UInt8, _ bytes: [UInt8]) -> [UInt8] {
        var changed = bytes
        let start = bodyStart(bytes)
        // Three bits hold the state; a larger number takes the bit that no version uses.
        changed[start] = state > 7 ? changed[start] | 0x80 : changed[start] & ~7 | state
        return sealed(changed)
    }

    static func withVersion(_ version: UInt8, _ bytes: [UInt8]) -> [UInt8] {
        var changed = bytes
        changed[bodyStart(bytes) - 1] = version
        return sealed(changed)
    }

    private static func sealed(_ bytes: [UInt8]) -> [UInt8] {
        var writer = ByteWriter()
        writer.writeRaw(bytes.dropLast(4))
        writer.write(CRC32C.checksum(of: writer.bytes))
        return writer.bytes
    }
}
