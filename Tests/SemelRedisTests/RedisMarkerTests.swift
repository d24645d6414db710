import Foundation
import Semel
@testable import SemelRedis
import TestProxy
import Testing

/// A table with a unique key; `insert` is one step, as a constraint makes it.
private final class Users: UniqueRows {
    struct Row: Sendable, Equatable {
        var name: String
        var operation: Owner
    }

    private let rows = Locked([String: Row]())
    let reads = Locked(0)

    func row(_ key: String) async throws -> Row? {
        reads.withLock { $0 += 1 }
        return rows.withLock { $0[key] }
    }

    func operation(of row: Row) -> Owner { row.operation }

    func insert(_ name: String, _ operation: Owner) throws {
        try rows.withLock { rows in
            guard rows[name] == nil else { throw UniqueViolation() }
            rows[name] = Row(name: name, operation: operation)
        }
    }

    var count: Int { rows.withLock { $0.count } }
}

@Suite("A mark in Redis before a unique constraint")
struct RedisMarkerTests {
    private let users = Users()

    /// Patient, so that a busy machine is not taken for a Redis that is gone.
    private func marker(
        _ location: RedisLocation, floor: Duration = .seconds(600), jitter: Duration = .seconds(5), patience: Duration = .seconds(60)
    ) throws -> RedisMarker<Users> {
        try RedisMarker(
            "\(location.prefix)pending:", in: location, database: users,
            configuration: .init(floor: floor, jitter: jitter, patience: patience), allowsShortMarks: floor < .seconds(600))
    }

    private func client(_ location: RedisLocation) throws -> RedisClient {
        RedisClient(try RedisDialing(location, patience: .seconds(60), environment: .live))
    }

    private func begun(_ beginning: RedisMarker<Users>.Beginning) throws -> RedisMarker<Users>.Ticket {
        guard case .begun(let ticket) = beginning else { throw ServerFailure(description: "\(beginning)") }
        return ticket
    }

    @Test("of 64 requests at once one begins; a repeat meets it pending, and later the row", arguments: [false, true])
    func oneBegins(cluster: Bool) async throws {
        let marker = try marker(try await SharedRedis.location(cluster: cluster))
        let beginnings = try await withThrowingTaskGroup(of: RedisMarker<Users>.Beginning.self) { group in
            for _ in 0..<64 { group.addTask { try await marker.begin("ada") } }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        let tickets = beginnings.compactMap { if case .begun(let ticket) = $0 { ticket } else { nil } }
        #expect(tickets.count == 1)
        guard case .written = try await marker.write("ada", tickets[0], { try users.insert("ada", tickets[0].operation) }) else {
            Issue.record("not written")
            return
        }
        guard case .exists = try await marker.begin("ada") else {
            Issue.record("begun again")
            return
        }
        #expect(users.count == 1)
    }

    @Test("a mark stands ten minutes and up to five seconds, is prolonged by nobody, and is removed when the work is done (R9)")
    func life() async throws {
        let location = try await SharedRedis.location()
        let (marker, client) = (try marker(location), try client(location))
        var lives: Set<Int64> = []
        for number in 0..<20 {
            let start = ContinuousClock.now
            let ticket = try begun(try await marker.begin("\(number)"))
            let name = "\(location.prefix)pending:\(number)"
            let life = try await client.send(RedisCommand("PTTL", name), HashSlot(of: name)).integer ?? 0
            // What it had at first is no less than what it has, and no more than what went by since.
            let passed = Int64((ContinuousClock.now - start) / .milliseconds(1)) + 1
            #expect(life + passed >= 600_000 && life <= 605_000)
            lives.insert(life / 100)
            _ = try await client.send(RedisCommand("PEXPIRE", name, "50000"), HashSlot(of: name))
            guard case .pending = try await marker.begin("\(number)") else { throw ServerFailure(description: "begun twice") }
            #expect(try await client.send(RedisCommand("PTTL", name), HashSlot(of: name)).integer ?? 0 <= 50_000)
            _ = try await marker.write("\(number)", ticket) { try users.insert("\(number)", ticket.operation) }
            #expect(try await client.send(RedisCommand("EXISTS", name), HashSlot(of: name)).integer == 0)
        }
        #expect(lives.count > 5, "chance spreads the ends")
        #expect(throws: StoreError.self) {
            _ = try RedisMarker("x", in: location, database: users, configuration: .init(floor: .seconds(60)))
        }
    }

    @Test("a mark that has expired is no reason to drop an accepted request, nor to write it twice (R10, R11, R13)")
    func expired() async throws {
        let location = try await SharedRedis.location()
        let marker = try marker(location, floor: .milliseconds(30), jitter: .zero)
        let slow = try begun(try await marker.begin("ada"))
        try await Task.sleep(for: .milliseconds(80))
        // Redis has forgotten: another one begins, and marks for itself.
        let patient = try self.marker(location)
        let second = try begun(try await patient.begin("ada"))
        // The slow one writes all the same; the constraint decides.
        guard case .written = try await marker.write("ada", slow, { try users.insert("ada", slow.operation) }) else {
            throw ServerFailure(description: "an accepted request was dropped")
        }
        // Its late clean-up did not take the mark of the second.
        guard case .pending = try await patient.begin("ada") else { throw ServerFailure(description: "the successor's mark was removed") }
        // Redelivered, it finds its own row: success.
        guard case .wasWritten = try await marker.write("ada", slow, { throw UniqueViolation() }) else {
            throw ServerFailure(description: "its own write was a failure")
        }
        guard case .conflict(let row) = try await patient.write("ada", second, { try users.insert("ada", second.operation) }) else {
            throw ServerFailure(description: "two operations wrote")
        }
        #expect(row.operation == slow.operation)
        #expect(users.count == 1)
    }

    @Test("without Redis the database decides, and when it is back marks are used again (R2)")
    func degraded() async throws {
        var location = try await SharedRedis.location()
        let proxy = try TestProxy(to: location.endpoints[0].port)
        location.endpoints = [.init(host: "127.0.0.1", port: proxy.port)]
        let marker = try marker(location, patience: .milliseconds(500))
        _ = try begun(try await marker.begin("before"))
        proxy.mode = .refuse
        proxy.cut()
        let ticket = try begun(try await marker.begin("ada"))
        #expect(!ticket.isMarked && marker.isDegradedNow)
        let other = try begun(try await marker.begin("ada"))
        guard case .written = try await marker.write("ada", ticket, { try users.insert("ada", ticket.operation) }),
            case .conflict = try await marker.write("ada", other, { try users.insert("ada", other.operation) }),
            case .exists = try await marker.begin("ada")
        else { throw ServerFailure(description: "the database did not decide") }
        proxy.mode = .forward
        var isMarked = false
        for number in 0..<200 where !isMarked {
            isMarked = try begun(try await marker.begin("after \(number)")).isMarked
            if !isMarked { try await Task.sleep(for: .milliseconds(20)) }
        }
        #expect(isMarked && !marker.isDegradedNow)
    }
}
