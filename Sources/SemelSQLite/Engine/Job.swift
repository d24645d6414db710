import Semel

/// Work for the writer's thread, and the caller who waits for it.
class Job: @unchecked Sendable {
    // Sendable is unchecked because a job is touched by one thread at a time: it is handed over through the writer's
    // queue, and back by resuming the caller.

    /// Runs in an open transaction. A thrown `StoreError` fails this job alone; any other error undoes the
    /// transaction, and fails the others only where it is the disk's.
    func run(_ engine: Engine) throws {}
    /// How many claims, transitions or other calls it is.
    var items: Int { 1 }
    func fail(_ error: StoreError) {}
    func resume() {}
}

final class ValueJob<Value: Sendable>: Job, @unchecked Sendable {
    private let body: @Sendable (Engine) throws -> Value
    private let caller: UnsafeContinuation<Result<Value, StoreError>, Never>
    private var result: Result<Value, StoreError>?

    init(_ caller: UnsafeContinuation<Result<Value, StoreError>, Never>, _ body: @escaping @Sendable (Engine) throws -> Value) {
        self.caller = caller
        self.body = body
    }

    override func run(_ engine: Engine) throws { result = .success(try body(engine)) }
    override func fail(_ error: StoreError) { result = .failure(error) }

    override func resume() {
        guard let result else { preconditionFailure("a caller is answered when its job has run") }
        caller.resume(returning: result)
    }
}

/// Claims, as a class of its own: there are so many of them that a generic one shows.
final class ClaimJob: Job, @unchecked Sendable {
    typealias Answer = Result<[ClaimResult], StoreError>
    private let requests: [ClaimRequest]
    private let references: [OperationReference]
    private let caller: UnsafeContinuation<Answer, Never>
    private var answer = Answer.success([])

    init(_ requests: [ClaimRequest], _ references: [OperationReference], _ caller: UnsafeContinuation<Answer, Never>) {
        self.requests = requests
        self.references = references
        self.caller = caller
    }

    override func run(_ engine: Engine) throws { answer = .success(try engine.claim(requests, references)) }
    override var items: Int { requests.count }
    override func fail(_ error: StoreError) { answer = .failure(error) }
    override func resume() { caller.resume(returning: answer) }
}

/// Transitions, likewise.
final class TransitionJob: Job, @unchecked Sendable {
    typealias Answer = Result<[TransitionResult], StoreError>
    private let transitions: [Transition]
    private let caller: UnsafeContinuation<Answer, Never>
    private var answer = Answer.success([])

    init(_ transitions: [Transition], _ caller: UnsafeContinuation<Answer, Never>) {
        self.transitions = transitions
        self.caller = caller
    }

    override func run(_ engine: Engine) throws { answer = .success(try engine.apply(transitions)) }
    override var items: Int { transitions.count }
    override func fail(_ error: StoreError) { answer = .failure(error) }
    override func resume() { caller.resume(returning: answer) }
}
