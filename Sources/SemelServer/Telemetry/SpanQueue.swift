internal import Foundation
internal import CoreMetrics
package import Semel

/// One attempt at an operation, as OpenTelemetry sees it. It names the operation by reference, never by its key.
struct OperationSpan: Sendable {
    var trace: TraceContext
    var scene: String
    var operation: OperationReference
    var attempt: UInt32
    var epoch: Epoch
    var ending: SceneMetrics.Ending
    var status: Int?
    var reason: String?
    /// In nanoseconds since 1970.
    var start: UInt64
    var end: UInt64
}

/// The spans that wait to be sent: bounded, so that a collector that is away costs some memory and nothing else.
package final class SpanQueue: Sendable {
    private struct State {
        var waiting: [OperationSpan] = []
    }

    private let limit: Int
    private let batch: Int
    private let state = Locked(State())
    private let dropped: Counter
    private let now: @Sendable () -> UInt64
    private let (fills, fill) = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))

    /// - Parameters:
    ///   - limit: the most that wait; further ones are dropped and counted.
    ///   - batch: how many make it worth sending at once.
    init(
        limit: Int, batch: Int, dropped: Counter,
        now: @escaping @Sendable () -> UInt64 = { UInt64(max(0, Date().timeIntervalSince1970) * 1e9) }
    ) {
        self.limit = limit
        self.batch = batch
        self.dropped = dropped
        self.now = now
    }

    /// An attempt is over. Takes a lock for a moment and waits for nobody; a trace that nobody records is left out.
    package func add(_ ending: SceneMetrics.Ending, of attempt: Attempt, status: Int?, reason: String?) {
        guard let trace = TraceContext.current, trace.isSampled else { return }
        let end = now()
        let age = UInt64(max(0, attempt.age.microseconds)) * 1000
        add(
            OperationSpan(
                trace: trace, scene: attempt.scene.policy.scene, operation: attempt.reference, attempt: attempt.grant.attempt,
                epoch: attempt.epoch, ending: ending, status: status, reason: reason, start: end > age ? end - age : 0, end: end))
    }

    func add(_ span: OperationSpan) {
        let (isDropped, isFull) = state.withLock { state in
            guard state.waiting.count < limit else { return (true, false) }
            state.waiting.append(span)
            return (false, state.waiting.count == batch)
        }
        if isDropped { dropped.increment() }
        if isFull { fill.yield() }
    }

    /// The oldest that wait, at most one batch of them.
    func take() -> [OperationSpan] {
        state.withLock { state in
            let spans = Array(state.waiting.prefix(batch))
            state.waiting.removeFirst(spans.count)
            return spans
        }
    }

    var isEmpty: Bool { state.withLock { $0.waiting.isEmpty } }

    /// Whether a whole batch waits.
    var isFull: Bool { state.withLock { $0.waiting.count >= batch } }

    /// Returns when there is a batch to send, perhaps one that was taken since; also when the task is cancelled.
    func filled() async { for await _ in fills { return } }
}
