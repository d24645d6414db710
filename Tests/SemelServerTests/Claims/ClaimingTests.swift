import NIOHTTP1
import Semel
import SemelSQLite
import SemelTesting
import Testing

@testable import SemelServer

/// Runs a control plane on a store, on loopback and without tokens.
func withPlane(
    _ kind: TriedStore = .memory, clock: any StoreClock = SystemStoreClock(), limits: ClaimsAPI.Limits = .init(),
    _ body: @escaping @Sendable (PlaneUnderTest) async throws -> Void
) async throws {
    try await kind.use(clock: clock) { store in
        let plane = try ControlPlane.quiet(
            admin: AdminConfiguration(listen: ListenAddress(host: "127.0.0.1", port: 0)), store: store,
            claimsAPI: ClaimsAPI(store: store, limits: limits))
        try await PlaneUnderTest.run(plane, body)
    }
}

@Suite struct ClaimingTests {
    @Test("the first claim is granted with a token and its level; the second meets it in progress", arguments: TriedStore.allCases)
    func firstAndSecond(kind: TriedStore) async throws {
        try await withPlane(kind) { plane in
            let first = try await plane.claim("k", lease: "30s")
            #expect(first.status == 200)
            #expect(first["result"] == "claimed")
            #expect(first["token"]?.string?.utf8.count == 48)
            #expect(first["epoch"]?.integer == FencingToken(first["token"]?.string ?? "").map { Int($0.epoch.rawValue) })
            #expect((29_000...30_000).contains(first["lease_remaining_ms"]?.integer ?? 0))
            #expect(first["guarantee"]?.string == kind.reclaimLevel)
            #expect(first["operation"]?.string == plane.reference("k"))

            let second = try await plane.claim("k")
            #expect(second["result"] == "in_progress")
            #expect((1...30_000).contains(second["lease_remaining_ms"]?.integer ?? 0))
            #expect(second["token"] == nil && second["epoch"] == nil)

            let careful = try await plane.claim("careful", onLapse: "uncertain")
            #expect(careful["guarantee"]?.string == kind.uncertainLevel)
        }
    }

    @Test("of 64 claims at once over HTTP exactly one is granted (H15, H40)", arguments: TriedStore.allCases)
    func race(kind: TriedStore) async throws {
        try await withPlane(kind) { plane in
            for round in 0..<3 {
                let results = try await withThrowingTaskGroup(of: String.self) { group in
                    for _ in 0..<64 {
                        group.addTask { try await plane.claim("race-\(round)")["result"]?.string ?? "none" }
                    }
                    return try await group.reduce(into: [:]) { $0[$1, default: 0] += 1 }
                }
                #expect(results == ["claimed": 1, "in_progress": 63])
            }
        }
    }

    @Test("a completed operation is answered with its outcome, byte for byte, falsy ones too (R16)", arguments: TriedStore.allCases)
    func outcomes(kind: TriedStore) async throws {
        let outcomes: [JSONValue] = [
            ["status": 201, "headers": [["content-type", "text/plain"], ["link", "a"], ["link", "b"]], "body": "b2s="],
            ["status": 204, "headers": [], "body": ""],
            ["status": 200, "headers": [], "body": "MA=="],
            ["status": 200, "headers": [], "body": "bnVsbA=="],
            ["status": 200, "headers": [], "body": "ZmFsc2U="],
            ["status": 200, "headers": [], "body": "W10="],
            ["status": 404, "headers": [["x-empty", ""]], "body": "AAEC/w=="],
        ]
        try await withPlane(kind) { plane in
            for (index, outcome) in outcomes.enumerated() {
                let token = try await plane.granted("k\(index)")
                #expect(try await plane.complete("k\(index)", token, outcome))
                for _ in 0..<2 {
                    let again = try await plane.claim("k\(index)")
                    #expect(again["result"] == "completed")
                    #expect(again["outcome"] == outcome)
                    #expect(again["token"] == nil)
                }
            }
            // What is not given has a default; it is answered in full.
            let token = try await plane.granted("bare")
            #expect(try await plane.complete("bare", token, [:]))
            #expect(try await plane.claim("bare")["outcome"] == ["status": 200, "headers": [], "body": ""])
        }
    }

    @Test("another fingerprint is a mismatch in every state, before anything else (H25)", arguments: TriedStore.allCases)
    func mismatch(kind: TriedStore) async throws {
        try await withPlane(kind) { plane in
            let token = try await plane.granted("k")
            #expect(try await plane.claim("k", fingerprint: "other")["result"] == "mismatch")
            #expect(try await plane.apply("suspend", "k", token, ["reason": "lost"]))
            #expect(try await plane.claim("k", fingerprint: "other")["result"] == "mismatch")
            #expect(try await plane.complete("k", token))
            #expect(try await plane.claim("k", fingerprint: "other")["result"] == "mismatch")
            #expect(try await plane.claim("k")["result"] == "completed")
        }
    }

    @Test("a claim repeated with the same owner gets its own token again, through another server too; others do not (H14)", arguments: TriedStore.allCases)
    func owner(kind: TriedStore) async throws {
        try await kind.use { store in
            func server() throws -> ControlPlane {
                try ControlPlane.quiet(admin: AdminConfiguration(listen: ListenAddress(host: "127.0.0.1", port: 0)), store: store)
            }
            let other = try server()
            try await PlaneUnderTest.run(try server()) { plane in
                let first = try await plane.claim("k", owner: "nonce-1")
                let again = try await plane.claim("k", owner: "nonce-1")
                #expect(again["result"] == "claimed")
                #expect(again["token"] == first["token"])
                #expect(try await plane.claim("k", owner: "nonce-2")["result"] == "in_progress")
                #expect(try await plane.claim("k")["result"] == "in_progress")
                try await PlaneUnderTest.run(other) { second in
                    let through = try await second.claim("k", owner: "nonce-1")
                    #expect(through["token"] == first["token"])
                    #expect(try await second.claim("k", owner: "nonce-2")["result"] == "in_progress")
                }
                // One name on two operations makes two owners.
                let elsewhere = try await plane.claim("k2", owner: "nonce-1")
                let tokens = [first, elsewhere].compactMap { FencingToken($0["token"]?.string ?? "")?.owner }
                #expect(tokens.count == 2 && tokens[0] != tokens[1])
            }
        }
    }

    @Test("after a restart of the server an owner goes on: late complete accepted, or its name claims again under a higher epoch")
    func restart() async throws {
        try await withTemporaryFolder { folder in
            func serving(_ body: @escaping @Sendable (PlaneUnderTest) async throws -> Void) async throws {
                let store = try await SQLiteFile.open(folder)
                let plane = try ControlPlane.quiet(admin: AdminConfiguration(listen: ListenAddress(host: "127.0.0.1", port: 0)), store: store)
                try await PlaneUnderTest.run(plane, body)
                await store.close()
            }
            let tokens = Locked([String]())
            try await serving { plane in
                let careful = try await plane.granted("careful", onLapse: "uncertain", owner: "a")
                let eager = try await plane.granted("eager", owner: "a")
                tokens.withLock { $0 = [careful, eager] }
            }
            let (careful, eager) = tokens.withLock { ($0[0], $0[1]) }
            try await serving { plane in
                // Leases do not outlive the process that measured them.
                #expect(try await plane.claim("careful", onLapse: "uncertain", owner: "a")["result"] == "uncertain")
                #expect(try await plane.complete("careful", careful))
                let again = try await plane.claim("eager", owner: "a")
                #expect(again["result"] == "reclaimed")
                #expect(again["token"]?.string ?? "" > eager)
                #expect(try await plane.complete("eager", eager) == false)
                #expect(try await plane.complete("eager", again["token"]?.string ?? ""))
            }
        }
    }

    @Test("a claim whose answer the store lost is said again by the server and recognised (H14)")
    func lostAnswer() async throws {
        let store = StoreDouble { $0.lostAnswers = [StoreError(.indeterminate, "The answer was lost.")] }
        let plane = try ControlPlane.quiet(admin: AdminConfiguration(listen: ListenAddress(host: "127.0.0.1", port: 0)), store: store)
        try await PlaneUnderTest.run(plane) { plane in
            let answer = try await plane.claim("k")
            #expect(answer["result"] == "claimed")
        }
    }

    @Test("a store that cannot answer is a 503 with what to do; a release whose answer was lost is said to be unknown (H13, R2)")
    func storeDown() async throws {
        let lost = StoreError(.indeterminate, "The answer was lost.")
        let store = StoreDouble { $0.lostAnswers = [StoreError(.unavailable, "The store is away."), lost, StoreError(.full, "No space is left.")] }
        let plane = try ControlPlane.quiet(admin: AdminConfiguration(listen: ListenAddress(host: "127.0.0.1", port: 0)), store: store)
        try await PlaneUnderTest.run(plane) { plane in
            let down = try await plane.claim("k", owner: "a")
            #expect(down.status == 503 && down.code == "store-unavailable")
            #expect(down.fields.first(name: "Retry-After") == "1")
            let token = OperationReference(OperationID(scope: Scope("claims", "orders"), key: try OperationKey("k")))
            let record = try #require(try await store.operation(token)?.record)
            var release = JSONValue.item("k")
            release["token"] = .string(record.token.description)
            let unknown = try await plane.post("/v1/release", .object(release))
            #expect(unknown.status == 503 && unknown.code == "store-indeterminate")
            let full = try await plane.claim("k2")
            #expect(full.status == 507 && full.code == "store-full")
        }
    }
}
