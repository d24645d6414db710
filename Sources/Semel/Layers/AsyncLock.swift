/// One at a time, in the order of arrival, also across suspensions. Not cancelled with its task, and not recursive.
final class AsyncLock: Sendable {
    private let state = Locked((isHeld: false, waiting: [CheckedContinuation<Void, Never>]()))

    func acquire() async {
        await withCheckedContinuation { continuation in
            let isFree = state.withLock { state in
                if state.isHeld {
                    state.waiting.append(continuation)
                    return false
                }
                state.isHeld = true
                return true
            }
            if isFree { continuation.resume() }
        }
    }

    func release() {
        let next: CheckedContinuation<Void, Never>? = state.withLock { state in
            if state.waiting.isEmpty {
                state.isHeld = false
                return nil
            }
            return state.waiting.removeFirst()
        }
        next?.resume()
    }
}
