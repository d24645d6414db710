import Semel
import SemelTesting
import Testing

@testable import SemelServer

@Suite struct AuditTests {
    /// Makes so many decisions: forgets a finished operation each time.
    private static func decide(_ count: Int, _ plane: PlaneUnderTest) async throws {
        for index in 0..<count {
            let token = try await plane.granted("k\(index)")
            #expect(try await plane.complete("k\(index)", token))
            let answer = try await plane.post(
                "/v1/operations/\(plane.reference("k\(index)"))/forget", ["actor": "alice", "reason": "reason \(index)"])
            #expect(answer.status == 200)
        }
    }

    @Test("every decision is in the log with who, why, what and when, chained by hash", arguments: TriedStore.allCases)
    func entries(kind: TriedStore) async throws {
        try await withPlane(kind) { plane in
            let empty = try await plane.get("/v1/audit")
            #expect(empty["entries"] == [] && empty["intact"] == true)
            #expect(try await plane.get("/v1/audit/verify")["entries"] == 0)

            let token = try await plane.granted("lost")
            #expect(try await plane.apply("suspend", "lost", token, ["reason": "no answer"]))
            let path = "/v1/operations/\(plane.reference("lost"))"
            #expect(try await plane.post(path + "/resolve", ["resolution": "applied", "actor": "bob", "reason": "saw it"]).status == 200)
            #expect(try await plane.post(path + "/forget", ["actor": "carol", "reason": "charged back"]).status == 200)

            let log = try await plane.get("/v1/audit")
            let entries = try #require(log["entries"]?.array)
            #expect(entries.map { $0["sequence"]?.integer } == [1, 2])
            #expect(entries.map { $0["actor"]?.string } == ["bob", "carol"])
            #expect(entries.map { $0["reason"]?.string } == ["saw it", "charged back"])
            #expect(entries.map { $0["action"]?.string } == ["resolve-applied", "forget"])
            #expect(entries.allSatisfy { $0["operation"]?.string == plane.reference("lost") && $0["scene"] == "claims" })
            #expect(entries[0]["previous_hash"]?.string == String(repeating: "0", count: 64))
            #expect(entries[1]["previous_hash"] == entries[0]["hash"])
            #expect(log["intact"] == true && log["broken_at"] == .null)
            // Neither key nor token nor outcome is in the log.
            #expect(!log.text.contains("\"lost\"") && !log.text.contains(String(token.suffix(32))))
        }
    }

    @Test("the log is read page by page, each one checked against the entry before it", arguments: TriedStore.allCases)
    func pages(kind: TriedStore) async throws {
        try await withPlane(kind) { plane in
            try await Self.decide(7, plane)
            var after = 0
            var sequences: [Int] = []
            while true {
                let page = try await plane.get("/v1/audit?after=\(after)&limit=3")
                #expect(page["intact"] == true)
                let entries = page["entries"]?.array ?? []
                guard let last = entries.last?["sequence"]?.integer else { break }
                #expect(entries.count <= 3)
                sequences += entries.compactMap { $0["sequence"]?.integer }
                after = last
            }
            #expect(sequences == Array(1...7))
            let verification = try await plane.get("/v1/audit/verify")
            #expect(verification["intact"] == true && verification["entries"] == 7 && verification["broken_at"] == .null)
            for query in ["after=-1", "after=x", "limit=0", "limit=1001", "from=1"] {
                #expect(try await plane.get("/v1/audit?\(query)").status == 400, "\(query)")
            }
        }
    }

    /// Ways in which somebody may have changed a log of five entries, and where it shows.
    enum Tampering: String, CaseIterable, CustomTestStringConvertible {
        case reasonChanged, actorChanged, entryRemoved, entriesSwapped, entryInserted, hashReplaced, firstRemoved

        var testDescription: String { rawValue }

        func apply(_ entries: [AuditEntry]) -> [AuditEntry] {
            guard entries.count == 5 else { return entries }
            var entries = entries
            switch self {
            case .reasonChanged: entries[2].reason = "another"
            case .actorChanged: entries[2].actor = "mallory"
            case .entryRemoved: entries.remove(at: 2)
            case .entriesSwapped: entries.swapAt(2, 3)
            case .entryInserted: entries.insert(entries[1], at: 2)
            case .hashReplaced: entries[2].hash[0] ^= 1
            case .firstRemoved: entries.remove(at: 0)
            }
            return entries
        }
    }

    @Test("a changed, removed, inserted or swapped entry is found", arguments: Tampering.allCases)
    func tampering(_ tampering: Tampering) async throws {
        let isTampered = Locked(false)
        let store = StoreDouble { $0.audit = { entries in isTampered.withLock { $0 } ? tampering.apply(entries) : entries } }
        let plane = try ControlPlane.quiet(admin: AdminConfiguration(listen: ListenAddress(host: "127.0.0.1", port: 0)), store: store)
        try await PlaneUnderTest.run(plane) { plane in
            try await Self.decide(5, plane)
            #expect(try await plane.get("/v1/audit/verify")["intact"] == true)
            isTampered.withLock { $0 = true }
            let verification = try await plane.get("/v1/audit/verify")
            #expect(verification["intact"] == false)
            #expect(verification["broken_at"]?.integer != nil)
            #expect(try await plane.get("/v1/audit")["intact"] == false)
        }
    }

    @Test("a log that was cut off, or computed anew as a whole, shows against an exported entry")
    func exported() async throws {
        let isCut = Locked(false)
        let store = StoreDouble { $0.audit = { entries in isCut.withLock { $0 } ? Array(entries.dropLast()) : entries } }
        let plane = try ControlPlane.quiet(admin: AdminConfiguration(listen: ListenAddress(host: "127.0.0.1", port: 0)), store: store)
        try await PlaneUnderTest.run(plane) { plane in
            try await Self.decide(3, plane)
            let last = try await plane.get("/v1/audit/verify")
            let hash = try #require(last["last_hash"]?.string)
            let query = "/v1/audit/verify?sequence=3&hash=\(hash)"
            let same = try await plane.get(query)
            #expect(same["intact"] == true && same["expected_found"] == true)
            isCut.withLock { $0 = true }
            #expect(try await plane.get("/v1/audit/verify")["intact"] == true)
            let cut = try await plane.get(query)
            #expect(cut["intact"] == false && cut["expected_found"] == false)
            for query in ["sequence=3", "hash=\(hash)", "sequence=3&hash=abc", "sequence=0&hash=\(hash)"] {
                #expect(try await plane.get("/v1/audit/verify?\(query)").status == 400, "\(query)")
            }
        }
    }
}
