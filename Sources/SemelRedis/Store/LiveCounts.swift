internal import Semel

/// How many live records the scopes hold, for the limit on them.
///
/// The records of a scope lie in all buckets, and in a cluster on all servers, so no script can count them. Far below the
/// limit a recent count of the whole index is enough, with what this process was granted since. Near the limit the scope
/// is counted anew for each claim, one claim after another. So within one process the limit is exact; several processes at
/// once may exceed it by what each is granted at the same moment.
final class LiveCounts: Sendable {
    private struct Sweep {
        var counts: [UInt64: Int]
        var until: Duration
    }

    private struct State {
        var sweep: Sweep?
        var sweeping: Task<Result<Void, StoreError>, Never>?
        /// Granted by this process since the last sweep began, and in the time before it: a claim under way may have passed it.
        var granted: [UInt64: Int] = [:]
        var grantedBefore: [UInt64: Int] = [:]
        /// Scopes found full, until when that may be taken as known.
        var full: [UInt64: Duration] = [:]
        var isGateTaken = false
        var atGate: [UnsafeContinuation<Void, Never>] = []
    }

    private let client: RedisClient
    private let keys: KeySpace
    private let environment: Environment
    private let state = Locked(State())

    init(_ client: RedisClient, _ keys: KeySpace, _ environment: Environment) {
        self.client = client
        self.keys = keys
        self.environment = environment
    }

    /// Whether so many more live records are surely within the limit. If so, they are counted.
    func admits(_ scope: UInt64, limit: Int, count: Int = 1) async throws(StoreError) -> Bool {
        let now = environment.uptime()
        if state.withLock({ $0.sweep.map { $0.until <= now } ?? true }) { try await sweep() }
        return state.withLock { state in
            let known = (state.sweep?.counts[scope] ?? 0) + (state.granted[scope] ?? 0) + (state.grantedBefore[scope] ?? 0)
            guard known + count <= limit else { return false }
            state.granted[scope, default: 0] += count
            return true
        }
    }

    /// Records may be made without a limit; those with one count them too.
    func note(_ scope: UInt64, count: Int = 1) {
        state.withLock { if $0.sweep != nil { $0.granted[scope, default: 0] += count } }
    }

    /// Runs a claim near the limit: alone, and told whether it may make a record.
    func nearLimit<Value: Sendable>(
        _ scope: UInt64, limit: Int, _ claim: (_ mayCreate: Bool) async throws(StoreError) -> Value
    ) async throws(StoreError) -> Value {
        let now = environment.uptime()
        if state.withLock({ ($0.full[scope] ?? .zero) > now }) { return try await claim(false) }
        await enterGate()
        defer { leaveGate() }
        let count = try await count(scope)
        if count >= limit {
            // A crowd that is refused must not count the whole store each time.
            let until = environment.uptime() + .milliseconds(50)
            state.withLock { state in
                if state.full.count > 1000 { state.full = [:] }
                state.full[scope] = until
            }
        }
        return try await claim(count < limit)
    }

    /// A live record of the scope has ended, by this process.
    func ended(_ scope: UInt64) {
        state.withLock { if !$0.full.isEmpty { $0.full[scope] = nil } }
    }

    /// Whether anybody was found full, so that an end is worth telling.
    var watchesEnds: Bool { state.withLock { !$0.full.isEmpty } }

    private func enterGate() async {
        await withUnsafeContinuation { continuation in
            let isFree = state.withLock { state in
                if state.isGateTaken {
                    state.atGate.append(continuation)
                    return false
                }
                state.isGateTaken = true
                return true
            }
            if isFree { continuation.resume() }
        }
    }

    private func leaveGate() {
        let next: UnsafeContinuation<Void, Never>? = state.withLock { state in
            if state.atGate.isEmpty {
                state.isGateTaken = false
                return nil
            }
            return state.atGate.removeFirst()
        }
        next?.resume()
    }

    private func count(_ scope: UInt64) async throws(StoreError) -> Int {
        let number = Array(String(scope).utf8)
        let replies = try await client.send(
            (0..<KeySpace.bucketCount).map { (RedisCommand("ZCOUNT", [keys.index($0), number, number]), keys.slot($0)) })
        var sum = 0
        for reply in replies {
            if case .error(let text) = reply { throw .refusal(text, by: "\(client.location)") }
            sum += Int(reply.integer ?? 0)
        }
        return sum
    }

    /// Counts the whole index, once for all who ask meanwhile.
    private func sweep() async throws(StoreError) {
        let task = state.withLock { state in
            if let task = state.sweeping { return task }
            let task = environment.detach { [self] () -> Result<Void, StoreError> in await sweepNow() }
            state.sweeping = task
            return task
        }
        try await task.value.get()
    }

    private func sweepNow() async -> Result<Void, StoreError> {
        let start = environment.uptime()
        state.withLock { state in
            state.grantedBefore = state.granted
            state.granted = [:]
        }
        defer { state.withLock { $0.sweeping = nil } }
        do throws(StoreError) {
            let replies = try await client.send(
                (0..<KeySpace.bucketCount).map {
                    (RedisCommand("ZRANGE", [keys.index($0), Array("0".utf8), Array("-1".utf8), Array("WITHSCORES".utf8)]), keys.slot($0))
                })
            var counts: [UInt64: Int] = [:]
            for reply in replies {
                if case .error(let text) = reply { throw .refusal(text, by: "\(client.location)") }
                for score in Self.scores(in: reply) { counts[score, default: 0] += 1 }
            }
            // A large index is counted more rarely: at most a twentieth of the time goes into it.
            let took = environment.uptime() - start
            let sweep = Sweep(counts: counts, until: environment.uptime() + max(.seconds(1), took * 20))
            state.withLock { $0.sweep = sweep }
            return .success(())
        } catch {
            return .failure(error)
        }
    }

    /// Members and scores in turn, or in pairs (RESP3).
    private static func scores(in reply: RESPValue) -> [UInt64] {
        let elements = reply.elements ?? []
        func number(_ value: RESPValue) -> UInt64? {
            switch value {
            case .double(let number): UInt64(exactly: number)
            default: value.text.flatMap { Double($0) }.flatMap { UInt64(exactly: $0) }
            }
        }
        if case .array = elements.first { return elements.compactMap { $0.elements?.last.flatMap(number) } }
        return stride(from: 1, to: elements.count, by: 2).compactMap { number(elements[$0]) }
    }
}
