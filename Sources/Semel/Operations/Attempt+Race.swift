extension Attempt {
    /// Runs `body` in a task of its own and returns what it gives, or throws as soon as the attempt ends before it does.
    ///
    /// The body's task is then cancelled; a body that does not heed that goes on, and whatever it finishes with is
    /// refused, because its attempt has ended.
    func race<Value: Sendable>(_ body: @escaping @Sendable (Attempt) async throws -> Value) async throws -> Value {
        if let end { throw OperationError(end, of: reference) }
        let race = Race<Value>()
        let task = scene.operations.environment.detach { [self] in
            do {
                race.finish(.success(try await body(self)))
            } catch {
                race.finish(.failure(error))
            }
        }
        onEnd { [reference] end in
            guard end != .finished else { return }
            task.cancel()
            race.finish(.failure(OperationError(end, of: reference)))
        }
        return try await withTaskCancellationHandler {
            try await race.value()
        } onCancel: {
            task.cancel()
        }
    }
}

extension OperationError {
    /// Why an attempt ended before its work did.
    fileprivate init(_ end: Attempt.End, of reference: OperationReference) {
        self.init(
            code: end == .hung ? .hung : .superseded, operation: reference,
            message: end == .hung
                ? "Operation \(reference) made no progress for as long as its policy allows; its lease is given up."
                : "Operation \(reference) was taken over by somebody else while it ran.")
    }
}

/// A result that several try to give; the first counts.
private final class Race<Value: Sendable>: Sendable {
    private enum State {
        case waiting(CheckedContinuation<Value, any Error>?)
        case finished(Result<Value, any Error>)
    }

    private let state = Locked(State.waiting(nil))

    func finish(_ result: Result<Value, any Error>) {
        let continuation = state.withLock { state -> CheckedContinuation<Value, any Error>? in
            guard case .waiting(let continuation) = state else { return nil }
            state = .finished(result)
            return continuation
        }
        continuation?.resume(with: result)
    }

    func value() async throws -> Value {
        try await withCheckedThrowingContinuation { continuation in
            let finished = state.withLock { state -> Result<Value, any Error>? in
                if case .finished(let result) = state { return result }
                state = .waiting(continuation)
                return nil
            }
            if let finished { continuation.resume(with: finished) }
        }
    }
}
