internal import Foundation

/// What came of performing an operation once.
public enum Performance<Value: Sendable>: Sendable {
    /// It ran now.
    case performed(Value, Receipt)
    /// It ran before; this is what came of it then.
    case replayed(Value, Receipt)

    public var value: Value {
        switch self {
        case .performed(let value, _), .replayed(let value, _): value
        }
    }

    public var receipt: Receipt {
        switch self {
        case .performed(_, let receipt), .replayed(_, let receipt): receipt
        }
    }
}

/// What a finished operation can be found by, and what is promised about it.
public struct Receipt: Hashable, Sendable {
    public var operation: OperationReference
    public var epoch: Epoch
    public var guarantee: Guarantee
}

/// An error that will be the same however often the operation is tried: it is recorded, and replayed like a result.
public struct PermanentFailure: Error, Hashable, Codable, CustomStringConvertible {
    /// For programs; stable.
    public var code: String
    /// For people.
    public var message: String

    public init(code: String, message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { "\(code): \(message)" }
}

/// An error that *proves* that the effect did not happen (a refused connection, a failed check before the first write).
/// The claim is released, at every level: the operation may be tried again.
public protocol NotApplied: Error {}

/// Why an operation did not give a value.
public struct OperationError: Error, CustomStringConvertible {
    public enum Code: Hashable, Sendable {
        case refused(Refusal)
        /// There was no progress for as long as the policy allows; the closure may still be at work, fenced off.
        case hung
        /// Somebody else took the operation over while this attempt ran; what it did is not recorded.
        case superseded
        /// The recorded outcome is not of the type asked for, or was not kept.
        case notReplayable
        /// The scene's policy is not for this way of performing.
        case misused
    }

    public var code: Code
    public var operation: OperationReference
    public var message: String

    package init(code: Code, operation: OperationReference, message: String) {
        self.code = code
        self.operation = operation
        self.message = message
    }

    /// Whether trying the same again may give a value.
    public var isRetryable: Bool {
        switch code {
        case .refused(.inProgress), .refused(.tooManyKeys), .superseded, .hung: true
        case .refused, .notReplayable, .misused: false
        }
    }

    public var description: String { message }
}

extension Scene {
    /// Performs `body` once for this key, however often and from wherever it is called.
    ///
    /// The first caller runs the closure, under a lease that a heartbeat keeps alive; its value is durable in the store
    /// before this returns. Every later caller with the same key gets that value, whatever it is: `nil`, `0`, `""` and
    /// empty collections are values (R16). A second caller during the run is refused or waits, as the policy says.
    ///
    /// - Errors: ``PermanentFailure`` is recorded and thrown again to every later caller. ``NotApplied`` releases the key.
    ///   Any other error proves nothing about the effect: by the policy's `onError` it releases the key (for effects that
    ///   bear a second run), is recorded, or leaves the operation *uncertain*.
    /// - Not guaranteed: that the closure runs at most once, unless ``guarantee`` says so. Pass ``Attempt/reference`` or
    ///   ``Attempt/epoch`` on to a target that deduplicates or fences.
    /// - Cancelling the caller cancels the closure's task; what the closure then throws is treated as above.
    /// - On a crash the lease lapses, and the next caller runs, verifies or is told *uncertain*, by the level.
    ///
    /// - Parameters:
    ///   - verify: for an effect that can be asked: whether it happened. Called before a lost operation is run again.
    public func perform<Value: Codable & Sendable>(
        _ key: OperationKey, in scope: Scope, fingerprint: Fingerprint,
        verify: (@Sendable (Attempt) async throws -> Verification<Value>)? = nil,
        _ body: @escaping @Sendable (Attempt) async throws -> Value
    ) async throws -> Performance<Value> {
        let call = OperationCall(id: OperationID(scope: scope, key: key), fingerprint: fingerprint.of(policy.scene))
        try checkMode(call.id)
        guard policy.effect != .localTransaction else {
            throw OperationError(
                code: .misused, operation: OperationReference(call.id),
                message: "The effect of \(policy.scene) is declared to share the record's transaction, and a closure without one was given. Use perform(_:in:payload:inTransactionOf:_:), or declare what the effect's target can do.")
        }
        switch try await begin(call) {
        case .run(let attempt):
            return try await run(attempt, body)
        case .verify(let attempt):
            return try await verifyThenRun(attempt, verify, body)
        case .completed(let record):
            return try replay(record, of: call.id)
        case .refused(let refusal):
            throw OperationError(refusal, of: call.id)
        }
    }

    /// Performs `body` once for this key, with the fingerprint taken over the payload's canonical JSON.
    ///
    /// See ``perform(_:in:fingerprint:verify:_:)`` for what is guaranteed.
    /// - Throws: ``OperationKeyError`` for a key that is empty or longer than 255 bytes.
    public func perform<Value: Codable & Sendable>(
        _ key: String, in scope: Scope = Scope(), payload: some Encodable,
        verify: (@Sendable (Attempt) async throws -> Verification<Value>)? = nil,
        _ body: @escaping @Sendable (Attempt) async throws -> Value
    ) async throws -> Performance<Value> {
        try await perform(try OperationKey(key), in: scope, fingerprint: try Fingerprint(ofPayload: payload), verify: verify, body)
    }

    private func run<Value: Codable & Sendable>(
        _ attempt: Attempt, _ body: @escaping @Sendable (Attempt) async throws -> Value
    ) async throws -> Performance<Value> {
        let value: Value
        let outcome: Outcome
        do {
            value = try await attempt.race(body)
            outcome = try .value(value)
        } catch {
            throw try await conclude(attempt, failedWith: error)
        }
        try await record(outcome, of: attempt)
        return .performed(value, receipt(of: attempt))
    }

    private func record(_ outcome: Outcome, of attempt: Attempt) async throws {
        guard try await attempt.complete(outcome) == .applied else {
            throw OperationError(
                code: .superseded, operation: attempt.reference,
                message: "Operation \(attempt.reference) was taken over by somebody else while it ran; its result was not recorded. Ask again with the same key for the result that counts.")
        }
    }

    /// Records what an error means, and returns the error to throw.
    private func conclude(_ attempt: Attempt, failedWith error: any Error) async throws -> any Error {
        switch error {
        case let failure as PermanentFailure:
            try await record(.failure(failure), of: attempt)
        case is any NotApplied:
            _ = try await attempt.release()
        // Its own end; that of another operation, performed inside the closure, is an error like any other.
        case let error as OperationError where error.operation == attempt.reference && (error.code == .hung || error.code == .superseded):
            break
        default:
            switch active.assessment.onError {
            case .rerun: _ = try await attempt.release()
            case .replay: try await record(.failure(PermanentFailure(code: "error", message: String(describing: error))), of: attempt)
            case .uncertain: _ = try await attempt.suspend(reason: "error")
            }
        }
        return error
    }

    private func verifyThenRun<Value: Codable & Sendable>(
        _ attempt: Attempt, _ verify: (@Sendable (Attempt) async throws -> Verification<Value>)?,
        _ body: @escaping @Sendable (Attempt) async throws -> Value
    ) async throws -> Performance<Value> {
        guard let verify else {
            _ = try await attempt.suspend(reason: "no-verification")
            throw uncertain(attempt, reason: "no-verification", "its last holder was lost, and no way to ask the target was given")
        }
        do {
            try await waitOutFlight(of: attempt)
        } catch {
            _ = try await attempt.suspend(reason: "verification-cancelled")
            throw error
        }
        operations.environment.failpoints.pass(.whileVerifying)
        let verification: Verification<Value>
        do {
            verification = try await verify(attempt)
        } catch {
            _ = try await attempt.suspend(reason: "verification-failed")
            throw error
        }
        switch verification {
        case .applied(let value):
            try await record(.value(value), of: attempt)
            return .replayed(value, receipt(of: attempt))
        case .notApplied:
            guard try await attempt.proceed() == .applied else {
                throw OperationError(code: .superseded, operation: attempt.reference, message: "Operation \(attempt.reference) was taken over by somebody else while it was verified.")
            }
            return try await run(attempt, body)
        case .unknown:
            _ = try await attempt.suspend(reason: "verification-unknown")
            throw uncertain(attempt, reason: "verification-unknown", "the target could not tell whether it was applied")
        }
    }

    /// Waits until nothing that the last holder sent can still be under way. A target that fences needs no waiting: once it
    /// was asked under the raised epoch, it refuses whatever comes late.
    ///
    /// How long that is, the policy says that the operation was claimed under, whatever is configured now (H57): as far as
    /// its text is the library's own (``Operations/scene(_:text:)``); otherwise this scene's policy.
    /// - Throws: `CancellationError`, or ``StoreError``; then the target must not be asked.
    public func waitOutFlight(of attempt: Attempt) async throws {
        var effect = policy.effect
        if attempt.grant.policy != active.pinned.hash, let pinned = try await store.policy(attempt.grant.policy) {
            effect = pinned.queryableEffect ?? effect
        }
        guard case .queryable(let inFlight, isFenced: false) = effect else { return }
        try await attempt.waitOut(inFlight)
    }

    /// Only the gateway and the middleware know what to do with requests that are let through.
    func checkMode(_ id: OperationID) throws {
        guard policy.mode == .enforce else {
            throw OperationError(
                code: .misused, operation: OperationReference(id),
                message: "The mode of \(policy.scene) is \(policy.mode); a function is performed once, or called directly. Use mode: enforce.")
        }
    }

    private func uncertain(_ attempt: Attempt, reason: String, _ why: String) -> OperationError {
        OperationError(
            code: .refused(.uncertain(reason: reason)), operation: attempt.reference,
            message: "Operation \(attempt.reference) is uncertain: \(why).")
    }

    func replay<Value: Codable & Sendable>(_ record: Record, of id: OperationID) throws -> Performance<Value> {
        .replayed(try record.replayedValue(of: id), Receipt(operation: OperationReference(id), epoch: record.epoch, guarantee: guarantee))
    }

    private func receipt(of attempt: Attempt) -> Receipt {
        Receipt(operation: attempt.reference, epoch: attempt.epoch, guarantee: guarantee)
    }
}

/// What a target said about an operation whose last holder was lost.
public enum Verification<Value: Sendable>: Sendable {
    case applied(Value)
    case notApplied
    case unknown
}

extension OperationError {
    init(_ refusal: Refusal, of id: OperationID) {
        self.init(code: .refused(refusal), operation: OperationReference(id), message: refusal.explanation)
    }
}

extension Fingerprint {
    /// The same payload under one key in two scenes is a key used twice, not a repeat: the second must not be answered with
    /// the first one's result.
    func of(_ scene: String) -> Fingerprint {
        var writer = ByteWriter()
        writer.writeLengthPrefixed(Array(scene.utf8))
        writer.writeLengthPrefixed(digest.bytes)
        return Fingerprint(of: writer.bytes)
    }

    /// Over the payload's JSON with its names in order, so that the order of fields does not matter.
    init(ofPayload payload: some Encodable) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        self.init(of: try encoder.encode(payload))
    }
}

extension Record {
    /// The value that was recorded.
    /// - Throws: the ``PermanentFailure`` that was recorded instead; ``OperationError`` when there is no such value.
    func replayedValue<Value: Decodable>(of id: OperationID) throws -> Value {
        let reference = OperationReference(id)
        guard let outcome, case .kept(let body) = outcome.body else {
            throw OperationError(
                code: .notReplayable, operation: reference, message: "Operation \(reference) was applied, but what came of it was not kept.")
        }
        if outcome.status >= 400, let failure = try? JSONDecoder().decode(PermanentFailure.self, from: Data(body)) { throw failure }
        guard let value = try? JSONDecoder().decode(Value.self, from: Data(body)) else {
            throw OperationError(
                code: .notReplayable, operation: reference,
                message: "Operation \(reference) was applied, but what was recorded is no \(Value.self). Was its type changed since?")
        }
        return value
    }
}

extension Outcome {
    static func value(_ value: some Encodable) throws -> Outcome {
        Outcome(status: 200, fields: [.init("content-type", "application/json")], body: .kept(Array(try JSONEncoder().encode(value))))
    }

    static func failure(_ failure: PermanentFailure) throws -> Outcome {
        Outcome(status: 500, fields: [.init("content-type", "application/json")], body: .kept(Array(try JSONEncoder().encode(failure))))
    }
}

extension Refusal {
    var explanation: String {
        switch self {
        case .inProgress(let lease): "The operation is running; its lease ends in \(DurationText.format(lease)) unless it is renewed. Ask again later."
        case .mismatch: "The key was used before with another payload. Use a new key for a new operation."
        case .uncertain(let reason): "Whether the operation was applied is unknown (\(reason ?? "no reason given")). Resolve it before it may run again."
        case .expired: "The operation was applied; what came of it is no longer kept."
        case .tooManyKeys: "The scope holds as many unfinished keys as it may. Finish or resolve some first."
        case .unreadable(let what): "The operation's record cannot be read by this version (\(what)); nothing runs on it."
        }
    }
}
