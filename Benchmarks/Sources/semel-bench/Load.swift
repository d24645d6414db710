import Semel

/// What every store is loaded with: claims of fresh keys and their completions, with an outcome of 200 bytes.
enum Load {
    private static let policy = PinnedPolicy(scene: "bench", text: "bench")

    /// Claims and completes fresh keys one by one from so many tasks. Pairs a second.
    static func rate(of store: some OperationStore, callers: Int, pairs: Int) async throws -> Double {
        let start = ContinuousClock.now
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<callers {
                group.addTask {
                    var generator = Generator()
                    for _ in 0..<pairs / callers {
                        let request = Self.request(&generator)
                        guard case .granted(let grant) = try await store.claim(request),
                            try await store.apply(.complete(Self.outcome), to: request.id, token: grant.token) == .applied
                        else { throw BenchmarkError(description: "a fresh key was refused") }
                    }
                }
            }
            try await group.waitForAll()
        }
        return Double(pairs / callers * callers) / (ContinuousClock.now - start).seconds
    }

    /// Claims fresh keys in batches of so many, from two tasks, and completes them when the time is taken. Claims a second.
    static func claims(of store: some OperationStore, batch: Int, count: Int, retention: Retention? = nil) async throws -> Double {
        let start = ContinuousClock.now
        let claimed = try await withThrowingTaskGroup(of: [Transition].self) { group in
            for _ in 0..<2 {
                group.addTask {
                    var generator = Generator()
                    var claimed: [Transition] = []
                    for _ in 0..<count / batch / 2 {
                        let requests = (0..<batch).map { _ in Self.request(&generator) }
                        for (request, result) in zip(requests, try await store.claim(requests)) {
                            guard case .granted(let grant) = result else { throw BenchmarkError(description: "a fresh key was refused") }
                            claimed.append(Transition(id: request.id, token: grant.token, change: .complete(Self.outcome, retention: retention)))
                        }
                    }
                    return claimed
                }
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }
        let rate = Double(claimed.count) / (ContinuousClock.now - start).seconds
        for start in stride(from: 0, to: claimed.count, by: 2500) {
            _ = try await store.apply(Array(claimed[start..<min(start + 2500, claimed.count)]))
        }
        return rate
    }

    /// Fills a store in large batches.
    static func fill(_ store: some OperationStore, keys: Int, retention: Retention? = nil) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    var generator = Generator()
                    for start in stride(from: 0, to: keys / 4, by: 2500) {
                        let requests = (0..<min(2500, keys / 4 - start)).map { _ in Self.request(&generator) }
                        let transitions = zip(requests, try await store.claim(requests)).compactMap { request, result in
                            if case .granted(let grant) = result {
                                Transition(id: request.id, token: grant.token, change: .complete(Self.outcome, retention: retention))
                            } else {
                                nil
                            }
                        }
                        guard transitions.count == requests.count,
                            try await store.apply(transitions).allSatisfy({ $0 == .applied })
                        else { throw BenchmarkError(description: "a fresh key was refused") }
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    static let outcome = Outcome(status: 200, body: .kept(Array(repeating: 0x78, count: 200)))
    private static let scope = Scope("tenant/subject1")
    private static let fingerprint = Fingerprint(of: Array("body".utf8))

    /// A fresh key of 36 bytes in a scope of 16.
    static func request(_ generator: inout Generator) -> ClaimRequest {
        var key = [UInt8](repeating: 0x30, count: 36)
        key.withUnsafeMutableBytes { bytes in
            bytes.storeBytes(of: generator.next(), as: UInt64.self)
            bytes.storeBytes(of: generator.next(), toByteOffset: 8, as: UInt64.self)
        }
        guard let key = try? OperationKey(bytes: key) else { fatalError("36 bytes are a key") }
        return ClaimRequest(
            id: OperationID(scope: scope, key: key), fingerprint: fingerprint, owner: Owner(using: &generator),
            lease: .seconds(30), onLapse: .uncertain, policy: policy)
    }
}

func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }

/// SplitMix64 from a random start: drawing numbers must not cost what is measured a call into the kernel.
struct Generator: RandomNumberGenerator {
    private var state = UInt64.random(in: 0 ... .max)

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }
}
