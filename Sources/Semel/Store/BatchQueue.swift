package import Dispatch

/// What waits for one thread that does it in batches.
///
/// Natural batching: whatever was queued while one batch was under way is the next one. There is no timer, so a lone job
/// waits for nothing; under load hundreds share one transaction.
package final class BatchQueue<Job: Sendable>: Sendable {
    private struct State {
        var jobs: [Job] = []
        var isAsleep = false
        var isClosing = false
        var isOver = false
        var whenOver: [UnsafeContinuation<Void, Never>] = []
    }

    package enum Next {
        case jobs([Job])
        /// Nothing came in the time given.
        case nothing
        /// Nothing is left, and nothing more will come.
        case end
    }

    private let state = Locked(State())
    private let wake = DispatchSemaphore(value: 0)

    package init() {}

    /// - Returns: `false` when the queue is closed.
    package func enqueue(_ job: Job) -> Bool {
        let (isTaken, wakes) = state.withLock { state in
            if state.isClosing { return (false, false) }
            state.jobs.append(job)
            defer { state.isAsleep = false }
            return (true, state.isAsleep)
        }
        if wakes { wake.signal() }
        return isTaken
    }

    /// Refuses new jobs; what was queued is still handed out.
    package func close() {
        let wakes = state.withLock { state in
            state.isClosing = true
            defer { state.isAsleep = false }
            return state.isAsleep
        }
        if wakes { wake.signal() }
    }

    /// The thread has done everything, and let go of what it held: whoever waits for that is told.
    package func announceEnd() {
        let callers = state.withLock { state in
            state.isOver = true
            defer { state.whenOver = [] }
            return state.whenOver
        }
        for caller in callers { caller.resume() }
    }

    /// Returns when the end was announced.
    package func end() async {
        await withUnsafeContinuation { (caller: UnsafeContinuation<Void, Never>) in
            let isOver = state.withLock { state in
                if !state.isOver { state.whenOver.append(caller) }
                return state.isOver
            }
            if isOver { caller.resume() }
        }
    }

    /// Everything that waits; blocks the calling thread until there is something, or the time is over.
    package func next(within time: DispatchTimeInterval) -> Next {
        while true {
            let next: Next = state.withLock { state in
                if !state.jobs.isEmpty {
                    defer {
                        state.jobs = []
                        state.jobs.reserveCapacity(64)
                    }
                    state.isAsleep = false
                    return .jobs(state.jobs)
                }
                if state.isClosing { return .end }
                state.isAsleep = true
                return .nothing
            }
            if case .nothing = next {
                if wake.wait(timeout: .now() + time) == .timedOut {
                    let isStillAsleep = state.withLock { state in
                        defer { state.isAsleep = false }
                        return state.isAsleep
                    }
                    if isStillAsleep { return .nothing }
                    // Somebody signals just now: that signal is taken, so that it wakes nobody later.
                    wake.wait()
                }
                continue
            }
            return next
        }
    }
}
