package import SemelCore

/// A watch on one key, from ``OperationStore/observe(_:)``.
///
/// A signal means "look again", not what changed; signals may come together or for nothing. The watch ends when the
/// value is released.
public final class Observation: Sendable {
    private let stream: AsyncStream<Void>
    private let onEnd: @Sendable () -> Void

    /// A watch that a store of your own keeps.
    ///
    /// - Parameters:
    ///   - stream: one element for every change of the key's record since this was made; buffer no more than the newest.
    ///   - onEnd: called once, when the watch is released.
    public init(stream: AsyncStream<Void>, onEnd: @escaping @Sendable () -> Void) {
        self.stream = stream
        self.onEnd = onEnd
    }

    deinit { onEnd() }

    /// Returns at the next signal, or at once when there was one since the last call; also when the task is cancelled.
    public func signalled() async {
        for await _ in stream { return }
    }
}

/// The observations of one process, woken by whoever commits a change.
package typealias ObservationRegistry = Observations<OperationID>

/// Observations by whatever a store is told of changes by: a name that several keys share wakes too many, never too few.
package final class Observations<Name: Hashable & Sendable>: Sendable {
    private struct State {
        var next: UInt64 = 0
        var watchers: [Name: [UInt64: AsyncStream<Void>.Continuation]] = [:]
    }

    private let state = Locked(State())

    package init() {}

    package func observe(_ id: Name) -> Observation {
        let (stream, continuation) = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
        let number = state.withLock { state in
            state.next += 1
            state.watchers[id, default: [:]][state.next] = continuation
            return state.next
        }
        return Observation(stream: stream) { [weak self] in
            self?.state.withLock { state in
                state.watchers[id]?[number] = nil
                if state.watchers[id]?.isEmpty == true { state.watchers[id] = nil }
            }
        }
    }

    package var isEmpty: Bool { state.withLock { $0.watchers.isEmpty } }

    package func isObserved(_ id: Name) -> Bool { state.withLock { $0.watchers[id] != nil } }

    package func signal(_ id: Name) {
        let continuations = state.withLock { $0.watchers.isEmpty ? [] : $0.watchers[id].map { Array($0.values) } ?? [] }
        for continuation in continuations { continuation.yield() }
    }

    /// For when nobody can say what changed.
    package func signalAll() {
        let continuations = state.withLock { $0.watchers.values.flatMap(\.values) }
        for continuation in continuations { continuation.yield() }
    }
}
