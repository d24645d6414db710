#if Postgres
import Semel
@testable import SemelPostgres
import Testing

@Suite("A record's row")
struct RowCodecTests {
    private static let records: [Record] = {
        func record(_ state: RecordState, _ change: (inout Record) -> Void = { _ in }) -> Record {
            var record = Record(
                state: state, epoch: Epoch(rawValue: 3 << 52 | 1_767_225_600_000_123), owner: Owner(high: 1, low: .max),
                fingerprint: Fingerprint(of: [1]), policy: pinned.hash, mode: .enforce, onLapse: .verify, retention: .standard,
                attempt: 1, leaseUntil: .distantPast, createdAt: Timestamp(microseconds: 1_767_225_600_000_100),
                changedAt: Timestamp(microseconds: 1_767_225_600_004_000))
            change(&record)
            return record
        }
        return [
            record(.claimed) { $0.leaseUntil = Timestamp(microseconds: 77) },
            record(.claimed) { $0.createdAt = Timestamp(microseconds: 1_767_225_600_000_123); $0.changedAt = $0.createdAt },
            record(.verifying) { $0.attempt = 9; $0.mode = .observe },
            record(.streaming) { $0.traceID = TraceID(high: 1, low: 2); $0.parent = OperationReference(high: 3, low: 4) },
            record(.uncertain) { $0.reason = "löst"; $0.changedAt = Timestamp(microseconds: 1) },
            record(.completed),
            record(.completed) { $0.outcome = Outcome(status: 0, body: .kept([])) },
            record(.completed) {
                $0.outcome = Outcome(status: 599, fields: [.init("a", ""), .init("a", "ü")], body: .kept(Array(repeating: 7, count: 1000)), trailers: [.init("t", "1")])
                $0.retention = Retention(response: .microseconds(1), key: .microseconds(3))
            },
            record(.completed) {
                $0.outcome = .unknownButApplied
                $0.retention = Retention(response: .microseconds(5_000_000_001), key: .seconds(100_000))
            },
            record(.completed) { $0.retention = Retention(response: .zero, key: .microseconds(7_000_000_000_001)) },
        ]
    }()

    private let id = OperationID(scope: Scope("tenant", ""), key: try! OperationKey(bytes: [0, 255, 10]))

    private func row(_ record: Record, policy: Int32 = 5) -> Row { Row(id, OperationReference(id), record, policy: policy) }

    @Test("every record comes back as it was", arguments: records.indices)
    func roundTrip(_ index: Int) throws {
        let (readID, read) = try row(Self.records[index]).record { $0 == 5 ? pinned.hash : nil }
        #expect(readID == id)
        #expect(read == Self.records[index])
    }

    @Test("a head cut short at any byte is not taken for a record (H19)", arguments: records.indices)
    func truncation(_ index: Int) {
        var row = row(Self.records[index])
        let head = row.head
        for count in 0..<head.count {
            row.head = Array(head[..<count])
            #expect(throws: Row.Failure.self, "cut to \(count) bytes") { try row.record { _ in pinned.hash } }
        }
    }

    @Test("a state, a format or a part that nobody knows is refused, and the key can still be read (H58)", arguments: [0, 6, 7, 200, 0x201, 0x101 | 0x60, -1])
    func unknown(state: Int16) throws {
        var row = row(Self.records[0])
        row.state = state
        #expect(throws: Row.Failure.self) { try row.record { _ in pinned.hash } }
        #expect(try row.identity() == id)
    }

    @Test("a retention in 32 bits is exact, or said not to be and never shorter (R3)")
    func retentions() {
        let exact: [Duration] = [.zero, .microseconds(1), .milliseconds(1500), .seconds(1), .seconds(2147), .seconds(30 * 24 * 3600), .seconds(Int32.max)]
        for duration in exact {
            let column = Row.column(duration)
            #expect(column.isExact)
            #expect(Row.microseconds(column.value) == duration.microseconds)
        }
        for duration in [Duration.milliseconds(86_400_001), .microseconds(Int64(Int32.max) + 2)] {
            let column = Row.column(duration)
            #expect(!column.isExact)
            #expect(Row.microseconds(column.value) >= duration.microseconds)
        }
    }

    @Test("a completed key of 36 bytes in a scope of 16 with an outcome of 200 takes at most 384 bytes of a page")
    func size() throws {
        let id = OperationID(scope: Scope("tenant/subject1"), key: try OperationKey(bytes: Array(repeating: 0x30, count: 36)))
        var record = Self.records[1]
        record.state = .completed
        record.outcome = Outcome(status: 200, body: .kept(Array(repeating: 0x78, count: 200)))
        let row = Row(id, OperationReference(id), record, policy: 5)
        // Fixed columns, the head with a length of one byte, to a multiple of four; the outcome with a length of four.
        let columns = 8 + 8 + 4 + 4 + 16 + 16 + 2 + 1 + row.head.count
        let data = (columns + 3) / 4 * 4 + 4 + (row.outcome?.count ?? 0)
        #expect((24 + data + 7) / 8 * 8 <= 384)
    }
}
#endif
