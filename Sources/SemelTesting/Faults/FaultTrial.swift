public import Semel

/// Loads a store while faults happen to its server, and holds it afterwards to what its callers were told.
///
/// Every operation has a key of its own, for which two callers compete; the one that is granted it completes it. Whoever is
/// not answered says the same again, as callers do. Every fourth caller is alone with its keys, believes an error that says that
/// nothing happened, and goes away. The ledger then demands:
///
/// - each key was granted to exactly one owner, and its completion was applied;
/// - every completion that was acknowledged is there, with its outcome, at its first attempt;
/// - what was said not to have happened is not there;
/// - nothing is left claimed;
/// - after the last fault, operations succeed again by themselves;
/// - no error but the expected ones was given.
public struct FaultTrial: Sendable {
    /// How many operations are under way at once.
    public var callers: Int
    /// How long a caller rests between two operations, so that a store that shares its machine with others leaves them room.
    public var pause: Duration
    /// About the size of each outcome: large ones fill a disk sooner.
    public var bodyBytes: Int
    /// What callers may be told. Anything else is a violation.
    public var expectedErrors: Set<StoreError.Code>
    /// How long the load waits for what must come before it says that it does not.
    public var patience: Duration

    public init(
        callers: Int = 8, pause: Duration = .milliseconds(3), bodyBytes: Int = 20,
        expectedErrors: Set<StoreError.Code> = [.unavailable, .indeterminate], patience: Duration = .seconds(120)
    ) {
        self.callers = callers
        self.pause = pause
        self.bodyBytes = bodyBytes
        self.expectedErrors = expectedErrors
        self.patience = patience
    }

    /// Runs the load until `faults` has returned and operations that began later have succeeded; then checks the ledger.
    /// - Parameters:
    ///   - store: holds nothing live but what this trial puts into it.
    ///   - faults: does harm to the server, and waits for its consequences by the load it is given.
    /// - Returns: the load, for what it counted.
    /// - Throws: ``LawViolation``, or what `faults` threw.
    @discardableResult
    public func run(_ store: any OperationStore, _ faults: @escaping @Sendable (FaultLoad) async throws -> Void) async throws -> FaultLoad {
        let load = FaultLoad(self, store)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for caller in 0..<callers { group.addTask { try await load.call(as: caller) } }
            group.addTask {
                try await faults(load)
                // Those under way began before the last fault was over.
                try await load.untilCompleted(callers + 50)
                load.finish()
            }
            while try await group.next() != nil {}
        }
        try await load.check()
        return load
    }
}

/// The load of a ``FaultTrial`` and its ledger.
public final class FaultLoad: Sendable {
    private struct State {
        var completed: [OperationID: Outcome] = [:]
        var last: (OperationID, Outcome)?
        /// What an error said had not happened, and nobody said again.
        var refused: [OperationID] = []
        var errors: [StoreError.Code: Int] = [:]
        var messages: [StoreError.Code: String] = [:]
        var isOver = false
    }

    private let trial: FaultTrial
    private let store: any OperationStore
    private let state = Locked(State())

    fileprivate init(_ trial: FaultTrial, _ store: any OperationStore) {
        self.trial = trial
        self.store = store
    }

    // MARK: What happened so far

    /// How many completions were acknowledged.
    public var completed: Int { state.withLock { $0.completed.count } }
    /// The errors that callers were given.
    public var errors: [StoreError.Code: Int] { state.withLock { $0.errors } }
    /// How many operations were given up because an error said that nothing had happened.
    public var refused: Int { state.withLock { $0.refused.count } }

    /// The last message of an error with this code.
    public func message(_ code: StoreError.Code) -> String? { state.withLock { $0.messages[code] } }

    /// Says the last completed operation once more, as its repeated request would: it must be replayed, also while nothing new
    /// can be recorded.
    public func replay() async throws {
        guard let (id, outcome) = state.withLock({ $0.last }) else {
            throw violation("what was acknowledged is replayed", "an operation that was completed", "there is none yet")
        }
        let result = try await store.claim(request(id, by: .cleo))
        guard result.replayed == outcome else { throw violation("what was acknowledged is replayed", "\(id.name) completed", result.summary) }
    }

    /// Waits until so many more completions were acknowledged.
    public func untilCompleted(_ count: Int) async throws {
        let before = completed
        try await until("\(count) operations more were completed") { self.completed >= before + count }
    }

    /// Waits until callers were given so many more errors.
    /// - Parameter code: only such; `nil` for any.
    public func untilErrors(_ count: Int = 1, _ code: StoreError.Code? = nil) async throws {
        func number() -> Int {
            let errors = errors
            return if let code { errors[code, default: 0] } else { errors.values.reduce(0, +) }
        }
        let before = number()
        try await until("callers were told \(code.map { "\"\($0)\"" } ?? "of an error")") { number() >= before + count }
    }

    private func until(_ what: String, _ holds: () -> Bool) async throws {
        let deadline = ContinuousClock.now + trial.patience
        while !holds() {
            guard ContinuousClock.now < deadline else {
                throw violation("under faults a store goes on by itself", what, "not within \(trial.patience)")
            }
            try await Task.sleep(for: .milliseconds(5))
        }
    }

    // MARK: The callers

    fileprivate func finish() { state.withLock { $0.isOver = true } }

    fileprivate func call(as caller: Int) async throws {
        var number = 0
        while !state.withLock({ $0.isOver }) {
            number += 1
            try await Task.sleep(for: trial.pause)
            let id = OperationID.sample("\(caller)-\(number)")
            if caller % 4 == 3 {
                try await believe(id)
            } else {
                async let rival = grant(id, to: .claimant(2 * caller + 1))
                let grants = try await [grant(id, to: .claimant(2 * caller)), rival].compactMap { $0 }
                guard grants.count == 1 else {
                    throw violation("a key is granted once", "one of two competing callers has \(id.name)", "\(grants.map(\.summary))")
                }
            }
        }
    }

    /// One caller, who goes away when it is told that nothing happened.
    private func believe(_ id: OperationID) async throws {
        let owner = Owner.claimant(0)
        let result: ClaimResult
        do throws(StoreError) {
            result = try await store.claim(request(id, by: owner))
        } catch {
            try note(error)
            if error.code == .indeterminate {
                _ = try await grant(id, to: owner)
            } else {
                state.withLock { $0.refused.append(id) }
                try await Task.sleep(for: .milliseconds(20))
            }
            return
        }
        _ = try await settle(result, id)
    }

    /// Claims until there is an answer, and completes what is granted.
    private func grant(_ id: OperationID, to owner: Owner) async throws -> Grant? {
        let request = request(id, by: owner)
        return try await settle(try await persisting { () async throws(StoreError) in try await self.store.claim(request) }, id)
    }

    /// Completes what was granted.
    private func settle(_ result: ClaimResult, _ id: OperationID) async throws -> Grant? {
        switch result {
        case .granted(let grant):
            try await complete(id, under: grant)
            return grant
        case .inProgress, .completed: return nil
        default: throw violation("a fresh key is granted to one of its callers", "granted, in progress or completed", result.summary)
        }
    }

    private func complete(_ id: OperationID, under grant: Grant) async throws {
        let outcome = outcome(of: id)
        let result = try await persisting { () async throws(StoreError) in
            try await self.store.apply(.complete(outcome), to: id, token: grant.token)
        }
        guard result == .applied else {
            throw violation("the holder of a claim can complete it", "\(id.name) is completed", "\(result)")
        }
        state.withLock { state in
            state.completed[id] = outcome
            state.last = (id, outcome)
        }
    }

    private func request(_ id: OperationID, by owner: Owner) -> ClaimRequest {
        ClaimRequest(id: id, fingerprint: .sample(id.key.text), owner: owner, lease: .seconds(3600), onLapse: .uncertain, policy: .sample)
    }

    private func outcome(of id: OperationID) -> Outcome {
        // What cannot be compressed, and is another key's only by mistake.
        var generator = SplitMix64(seed: id.key.bytes.reduce(0) { $0 &* 31 &+ UInt64($1) })
        return .sample(id.key.text + String(decoding: (0..<trial.bodyBytes).map { _ in UInt8.random(in: 33...126, using: &generator) }, as: UTF8.self))
    }

    private func note(_ error: StoreError) throws {
        state.withLock { state in
            state.errors[error.code, default: 0] += 1
            state.messages[error.code] = error.message
        }
        guard trial.expectedErrors.contains(error.code) else {
            throw violation(
                "a fault is told as what it is", "one of \(trial.expectedErrors.map(\.description).sorted())", "\(error.code): \(error.message)")
        }
    }

    /// Says the same again until it is answered.
    private func persisting<Value: Sendable>(_ body: () async throws(StoreError) -> Value) async throws -> Value {
        var first: ContinuousClock.Instant?
        while true {
            do throws(StoreError) {
                return try await body()
            } catch {
                try note(error)
                let begin = first ?? .now
                first = begin
                guard ContinuousClock.now < begin + trial.patience else {
                    throw violation("under faults a store goes on by itself", "an answer", "for \(trial.patience) only errors, at last \(error.message)")
                }
                try await Task.sleep(for: .milliseconds(20))
            }
        }
    }

    // MARK: The ledger

    fileprivate func check() async throws {
        let (completed, refused) = state.withLock { ($0.completed, $0.refused) }
        let ids = Array(completed.keys)
        for start in stride(from: 0, to: ids.count, by: 100) {
            let part = ids[start..<min(start + 100, ids.count)]
            let stranger = Owner.cleo
            let results = try await persisting { () async throws(StoreError) in
                try await self.store.claim(part.map { self.request($0, by: stranger) })
            }
            for (id, result) in zip(part, results) {
                guard case .completed(let record) = result, record.outcome == completed[id], record.attempt == 1 else {
                    throw violation("what was acknowledged is there", "\(id.name) completed at its first attempt", result.summary)
                }
            }
        }
        for id in refused {
            if let record = try await persisting({ () async throws(StoreError) in try await self.store.record(of: id) }) {
                throw violation("what is said not to have happened has not", "no record of \(id.name)", record.summary)
            }
        }
        let query = OperationQuery(states: [.claimed, .verifying, .streaming, .uncertain])
        let live = try await persisting { () async throws(StoreError) in try await self.store.operations(query).operations }
        guard live.isEmpty else {
            throw violation("nothing is left behind", "no live record", live.map { "\($0.id.name): \($0.record.summary)" }.joined(separator: "; "))
        }
    }

    private func violation(_ law: String, _ expected: String, _ actual: String) -> LawViolation {
        let (errors, messages, completed) = state.withLock { ($0.errors, $0.messages, $0.completed.count) }
        let told = errors.map { "told \"\($0)\" \($1) times, at last: \(messages[$0] ?? "")" }.sorted()
        return LawViolation(law: law, expected: expected, actual: actual, history: ["\(completed) operations completed"] + told)
    }
}
