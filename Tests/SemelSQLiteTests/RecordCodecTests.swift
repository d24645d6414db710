import Semel
@testable import SemelSQLite
import Testing

@Suite("A record's bytes")
struct RecordCodecTests {
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
            record(.verifying) { $0.attempt = 9; $0.mode = .observe },
            record(.streaming) { $0.traceID = TraceID(high: 1, low: 2); $0.parent = OperationReference(high: 3, low: 4) },
            record(.uncertain) { $0.reason = "löst"; $0.changedAt = Timestamp(microseconds: 1) },
            record(.completed),
            record(.completed) { $0.outcome = Outcome(status: 0, body: .kept([])) },
            record(.completed) {
                $0.outcome = Outcome(
                    status: 599, fields: [.init("a", ""), .init("a", "ü")], body: .kept(Array(repeating: 7, count: 1000)), trailers: [.init("t", "1")])
                $0.retention = Retention(response: .microseconds(1), key: .microseconds(3))
            },
            record(.completed) { $0.outcome = Outcome(body: .omitted(length: .max, digest: Array(repeating: 1, count: 32))) },
            record(.completed) { $0.outcome = .unknownButApplied; $0.epoch = Epoch(rawValue: .max) },
            record(.claimed) { $0.epoch = .zero; $0.createdAt = Timestamp(microseconds: -5); $0.leaseUntil = .distantFuture },
        ]
    }()

    private let id = OperationID(scope: Scope("tenant", ""), key: try! OperationKey(bytes: [0, 255, 10]))
    private func decode(_ bytes: [UInt8]) throws -> (OperationID, Record) {
        try RecordCodec.decode(bytes) { $0 == 5 ? pinned.hash : nil }
    }

    @Test("every record comes back as it was", arguments: records.indices)
    func roundTrip(_ index: Int) throws {
        let record = Self.records[index]
        let (readID, read) = try decode(RecordCodec.encode(id, record, policy: 5))
        #expect(readID == id)
        #expect(read == record)
    }

    @Test("cut short at any byte it is not taken for a record (H19)", arguments: records.indices)
    func truncation(_ index: Int) {
        let bytes = RecordCodec.encode(id, Self.records[index], policy: 5)
        for count in 0..<bytes.count {
            #expect(throws: RecordCodec.Failure.self, "cut to \(count) bytes") { try decode(Array(bytes[..<count])) }
        }
        #expect(throws: RecordCodec.Failure.self) { try decode(bytes + [0]) }
    }

    @Test("with any bit turned it is not taken for a record, and never for another key's (H18)", arguments: records.indices)
    func bitFlips(_ index: Int) throws {
        let bytes = RecordCodec.encode(id, Self.records[index], policy: 5)
        for position in bytes.indices {
            for bit in 0..<8 {
                var changed = bytes
                changed[position] ^= 1 << bit
                #expect(throws: RecordCodec.Failure.self, "byte \(position), bit \(bit)") { try decode(changed) }
                if let identity = try? RecordCodec.decodeIdentity(changed) { #expect(identity == id) }
            }
        }
    }

    @Test("a record of a newer format tells its key, and nothing else (H58)")
    func newerFormat() throws {
        let bytes = RecordBytes.withVersion(2, RecordCodec.encode(id, Self.records[0], policy: 5))
        #expect(try RecordCodec.decodeIdentity(bytes) == id)
        let failure = #expect(throws: RecordCodec.Failure.self) { try decode(bytes) }
        #expect(failure?.description.contains("format version 2") == true)
    }

    @Test("a completed key of 36 bytes in a scope of 16 with an outcome of 200 takes 342 bytes")
    func size() throws {
        let start = Timestamp(microseconds: 1_767_225_600_000_100)
        let record = Record(
            state: .completed, epoch: Epoch(rawValue: UInt64(start.microseconds) + 20), owner: Owner(high: 1, low: 2),
            fingerprint: Fingerprint(of: [1]), policy: pinned.hash, mode: .enforce, onLapse: .uncertain, retention: .standard,
            attempt: 1, leaseUntil: .distantPast, createdAt: start, changedAt: start + .milliseconds(20),
            outcome: Outcome(body: .kept(Array(repeating: 1, count: 200))))
        let id = key(String(repeating: "k", count: 36), scope: String(repeating: "s", count: 16))
        #expect(RecordCodec.encode(id, record, policy: 1).count == 342)
    }
}
