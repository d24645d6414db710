import SemelCore

/// Opened once; whoever waits goes on then.
final class Gate: Sendable {
    private let promise = Promise<Void>()

    func open() { promise.keep(()) }
    func wait() async { await promise.value }
}

/// A value that comes later.
final class Promise<Value: Sendable>: Sendable {
    private enum State {
        case waiting([CheckedContinuation<Value, Never>])
        case kept(Value)
    }

    private let state = Locked(State.waiting([]))

    func keep(_ value: Value) {
        let waiting = state.withLock { state -> [CheckedContinuation<Value, Never>] in
            guard case .waiting(let continuations) = state else { return [] }
            state = .kept(value)
            return continuations
        }
        for continuation in waiting { continuation.resume(returning: value) }
    }

    var value: Value {
        get async {
            await withCheckedContinuation { continuation in
                let kept = state.withLock { state -> Value? in
                    switch state {
                    case .kept(let value): return value
                    case .waiting(let continuations):
                        state = .waiting(continuations + [continuation])
                        return nil
                    }
                }
                if let kept { continuation.resume(returning: kept) }
            }
        }
    }
}

/// What several tasks saw, in order, and a way to wait for more of it.
final class Collected<Value: Sendable>: Sendable {
    private struct State {
        var values: [Value] = []
        var waiters: [(count: Int, CheckedContinuation<Void, Never>)] = []
    }

    private let state = Locked(State())

    var values: [Value] { state.withLock { $0.values } }

    func add(_ value: Value) {
        let ready = state.withLock { state in
            state.values.append(value)
            let ready = state.waiters.filter { $0.count <= state.values.count }.map { $0.1 }
            state.waiters.removeAll { $0.count <= state.values.count }
            return ready
        }
        for continuation in ready { continuation.resume() }
    }

    /// Waits until there are at least this many.
    func wait(for count: Int) async {
        await withCheckedContinuation { continuation in
            let isReady = state.withLock { state in
                if state.values.count >= count { return true }
                state.waiters.append((count, continuation))
                return false
            }
            if isReady { continuation.resume() }
        }
    }
}
