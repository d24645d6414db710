public import Semel

/// A law at work on one subject: it makes the calls, writes down what was done and answered, and says what was expected.
public final class StoreTrial: Sendable {
    public let subject: StoreSubject
    private let law: String
    private let current: Locked<any OperationStore>
    private let steps = Locked([String]())
    private let begun = ContinuousClock.now
    private let waited = Locked(Duration.zero)

    init(_ subject: StoreSubject, law: String) {
        self.subject = subject
        self.law = law
        current = Locked(subject.store)
    }

    /// The store as it was opened last.
    public var store: any OperationStore { current.withLock { $0 } }

    // MARK: Doing

    /// Writes a line into the history.
    public func note(_ step: String) {
        steps.withLock { $0.append(step) }
    }

    /// Begins a new history.
    public func startAfresh(_ step: String) {
        steps.withLock { $0 = [step] }
    }

    /// A claim with the laws' usual values: the *reclaim* rule, a lease of one moment, retentions of 4 and 8 moments.
    public func request(
        _ id: OperationID, by owner: Owner, _ adjust: (inout ClaimRequest) -> Void = { _ in }
    ) -> ClaimRequest {
        var request = ClaimRequest(
            id: id, fingerprint: .sample("payload"), owner: owner, lease: subject.moment, onLapse: .reclaim, policy: .sample,
            retention: Retention(response: moments(4), key: moments(8)))
        adjust(&request)
        return request
    }

    @discardableResult
    public func claim(
        _ id: OperationID, by owner: Owner, _ adjust: (inout ClaimRequest) -> Void = { _ in }
    ) async throws -> ClaimResult {
        let request = request(id, by: owner, adjust)
        let result = try await store.claim(request)
        note("\(owner.name) claims \(id.name) with \(request.summary): \(result.summary)")
        return result
    }

    /// A claim that must be granted.
    @discardableResult
    public func grant(
        _ id: OperationID, by owner: Owner, _ adjust: (inout ClaimRequest) -> Void = { _ in }
    ) async throws -> Grant {
        let result = try await claim(id, by: owner, adjust)
        guard case .granted(let grant) = result else {
            throw violation("\(owner.name) is granted \(id.name)", actual: result.summary)
        }
        return grant
    }

    @discardableResult
    public func apply(_ change: Transition.Change, to id: OperationID, with token: FencingToken) async throws -> TransitionResult {
        let result = try await store.apply(change, to: id, token: token)
        note("\(token.owner.name), epoch \(token.epoch), asks to \(change.summary) \(id.name): \(result)")
        return result
    }

    /// A transition that must be applied.
    public func perform(_ change: Transition.Change, on id: OperationID, with token: FencingToken) async throws {
        let result = try await apply(change, to: id, with: token)
        try expect(result == .applied, "\(token.owner.name)'s \(change.summary) of \(id.name) is applied", actual: "\(result)")
    }

    public func record(of id: OperationID) async throws -> Record? {
        let record = try await store.record(of: id)
        note("the record of \(id.name): \(record?.summary ?? "absent")")
        return record
    }

    /// The record, which must be in `state`.
    @discardableResult
    public func record(of id: OperationID, in state: RecordState) async throws -> Record {
        let record = try await record(of: id)
        guard let record, record.state == state else {
            throw violation("\(id.name) is \(state)", actual: record?.summary ?? "absent")
        }
        return record
    }

    public func verify(_ id: OperationID, by owner: Owner) async throws -> Grant? {
        let grant = try await store.verify(id, owner: owner, lease: subject.moment)
        note("\(owner.name) asks to verify \(id.name): \(grant?.summary ?? "nothing to verify")")
        return grant
    }

    /// A verification that must be granted.
    public func verification(of id: OperationID, by owner: Owner) async throws -> Grant {
        guard let grant = try await verify(id, by: owner) else {
            throw violation("\(owner.name) is granted the verification of \(id.name)", actual: "nothing to verify")
        }
        return grant
    }

    public func resolve(
        _ id: OperationID, as resolution: Resolution, by act: OperatorAct = .sample, expecting epoch: Epoch? = nil
    ) async throws -> TransitionResult {
        let result = try await store.resolve(id, as: resolution, by: act, expecting: epoch)
        note("\(act.actor) resolves \(id.name)\(epoch.map { " at epoch \($0)" } ?? "") as \(resolution.summary): \(result)")
        return result
    }

    public func forget(
        _ id: OperationID, by act: OperatorAct = .sample, expecting epoch: Epoch? = nil
    ) async throws -> TransitionResult {
        let result = try await store.forget(id, by: act, expecting: epoch)
        note("\(act.actor) forgets \(id.name)\(epoch.map { " at epoch \($0)" } ?? ""): \(result)")
        return result
    }

    @discardableResult
    public func purge(limit: Int = 1000) async throws -> PurgeReport {
        let report = try await store.purge(limit: limit)
        note("a purge of at most \(limit) removes \(report.outcomes) outcomes and \(report.keys) keys")
        return report
    }

    /// Whole moments, or a part of one.
    public func moments(_ count: Double) -> Duration { subject.moment * count }

    /// Lets the store's time pass.
    public func elapse(_ count: Double) async throws {
        try await elapse(moments(count))
    }

    public func elapse(_ duration: Duration) async throws {
        note("\(duration) pass")
        waited.withLock { $0 += duration }
        try await subject.elapse(duration)
    }

    /// How much later it is, in real time, than the law took account of: what all calls took together, and what every wait
    /// took too long.
    var delay: Duration { ContinuousClock.now - begun - waited.withLock { $0 } }

    // What only some backends can do; a law that calls these requires the capability.

    public func reopen() async throws {
        let store = try await subject.reopen!()
        current.withLock { $0 = store }
        note("the store is closed and opened again")
    }

    public func connect() async throws -> any OperationStore {
        note("a second connection is made")
        return try await subject.connect!()
    }

    public func setWallClockBack(_ count: Double) async throws {
        note("somebody sets the wall clock back by \(moments(count))")
        try await subject.setWallClockBack!(moments(count))
    }

    public func corrupt(_ id: OperationID, state: UInt8 = 200) async throws {
        note("the stored state of \(id.name) becomes \(state)")
        try await subject.corrupt!(id, state)
    }

    // MARK: Expecting

    public func expect(
        _ condition: Bool, _ expected: @autoclosure () -> String, actual: @autoclosure () -> String = "it is not so"
    ) throws {
        if !condition { throw violation(expected(), actual: actual()) }
    }

    public func expect<Value: Equatable>(_ actual: Value, is value: Value, _ what: @autoclosure () -> String) throws {
        if actual != value { throw violation("\(what()) is \(clipped(value))", actual: clipped(actual)) }
    }

    public func violation(_ expected: String, actual: String) -> LawViolation {
        LawViolation(law: law, expected: expected, actual: actual, history: steps.withLock { $0 })
    }

    /// Runs calls that may hang in a broken store; they are cancelled, and the law is broken, when they outlast the
    /// subject's patience.
    public func withinPatience<Value: Sendable>(
        _ expected: String, _ body: @escaping @Sendable () async throws -> Value
    ) async throws -> Value {
        try await withThrowingTaskGroup(of: Value?.self) { group in
            group.addTask { try await body() }
            group.addTask {
                try await Task.sleep(for: self.subject.patience)
                return nil
            }
            defer { group.cancelAll() }
            if let value = try await group.next()! { return value }
            throw violation(expected, actual: "still not so after \(subject.patience)")
        }
    }

    private func clipped(_ value: some Any) -> String {
        let text = "\(value)"
        return text.count > 400 ? "\(text.prefix(400))… (\(text.count) characters)" : text
    }
}
