internal import NIOCore
internal import SemelCore

/// Lets a bounded number in at one time; the others wait in line, each for a bounded time.
///
/// The HTTP client's own pool would make those that wait fail with its connect time-out, which is about something else.
final class Turnstile: Sendable {
    private struct Waiter {
        let number: UInt64
        let continuation: CheckedContinuation<Bool, Never>
        let expiry: Scheduled<Void>
    }

    private struct State {
        var free: Int
        var next: UInt64 = 0
        var line = CircularBuffer<Waiter>()
    }

    private let state: Locked<State>
    private let group: any EventLoopGroup

    init(places: Int, group: any EventLoopGroup) {
        state = Locked(State(free: places))
        self.group = group
    }

    /// A place inside; given back when it is let go of.
    final class Place: Sendable {
        private let turnstile: Turnstile
        private let hasLeft = Locked(false)

        fileprivate init(_ turnstile: Turnstile) { self.turnstile = turnstile }

        deinit { leave() }

        func leave() {
            let isFirst = hasLeft.withLock { hasLeft in
                defer { hasLeft = true }
                return !hasLeft
            }
            if isFirst { turnstile.leave() }
        }
    }

    /// Waits for a place; `nil` when there was none for `limit`. Cancelling the task does not end the wait.
    func enter(within limit: TimeAmount) async -> Place? {
        let isFree = state.withLock { state in
            guard state.free > 0 else { return false }
            state.free -= 1
            return true
        }
        if isFree { return Place(self) }
        let isIn = await withCheckedContinuation { continuation in
            let number = state.withLock { state in
                state.next += 1
                return state.next
            }
            let expiry = group.next().scheduleTask(in: limit) { [self] in turnAway(number) }
            let isIn = state.withLock { state in
                guard state.free == 0 else {
                    state.free -= 1
                    return true
                }
                state.line.append(Waiter(number: number, continuation: continuation, expiry: expiry))
                return false
            }
            if isIn {
                expiry.cancel()
                continuation.resume(returning: true)
            }
        }
        return isIn ? Place(self) : nil
    }

    private func leave() {
        let waiter = state.withLock { state -> Waiter? in
            if let waiter = state.line.popFirst() { return waiter }
            state.free += 1
            return nil
        }
        waiter?.expiry.cancel()
        waiter?.continuation.resume(returning: true)
    }

    private func turnAway(_ number: UInt64) {
        let waiter = state.withLock { state in
            state.line.firstIndex { $0.number == number }.map { state.line.remove(at: $0) }
        }
        waiter?.continuation.resume(returning: false)
    }
}
