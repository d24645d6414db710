/// The right to run an operation, kept alive by a heartbeat until it is finished.
///
/// Finish it with ``complete(_:retention:)``, ``release()`` or ``suspend(reason:)``; each answers *superseded* when somebody else
/// holds the operation now, and then nothing was changed. An attempt that is dropped unfinished lapses with its lease.
public final class Attempt: Sendable {
    public enum End: Hashable, Sendable {
        case finished
        /// Somebody else holds the operation: whatever this attempt still does must not count (H5).
        case leaseLost
        /// There was no sign of progress for as long as the policy allows; the lease is no longer renewed (H8).
        case hung
    }

    private struct State {
        var end: End?
        /// The last word was said and its answer is awaited: a renewal that crosses it means nothing.
        var isFinishing = false
        var lastProgress: Duration
        var handlers: [@Sendable (End) -> Void] = []
    }

    public let scene: Scene
    public let id: OperationID
    public let grant: Grant
    private let start: Duration
    private let state: Locked<State>

    init(_ scene: Scene, _ id: OperationID, _ grant: Grant) {
        self.scene = scene
        self.id = id
        self.grant = grant
        start = scene.operations.environment.uptime()
        state = Locked(State(lastProgress: start))
        scene.operations.keeper.keep(self)
    }

    deinit { scene.operations.keeper.letGo(self) }

    public var token: FencingToken { grant.token }
    public var epoch: Epoch { grant.token.epoch }
    public var reference: OperationReference { OperationReference(id) }
    /// How long ago it was granted, on this process's clock.
    public var age: Duration { scene.operations.environment.uptime() - start }
    /// How it ended, or `nil` while it is held.
    public var end: End? { state.withLock { $0.end } }

    /// Tells that work is going on, for a policy with a progress deadline.
    public func progressed() {
        let now = scene.operations.environment.uptime()
        state.withLock { $0.lastProgress = now }
    }

    /// Calls `handler` once, when the attempt ends, however it does; at once if it has ended.
    public func onEnd(_ handler: @escaping @Sendable (End) -> Void) {
        let ended = state.withLock { state in
            if state.end == nil { state.handlers.append(handler) }
            return state.end
        }
        if let ended { handler(ended) }
    }

    // MARK: Transitions

    /// Records what came of the operation. Durable when it returns. Safe to repeat.
    /// - Parameter retention: in place of the policy's; the key is kept at least for the policy's horizon.
    public func complete(_ outcome: Outcome, retention: Retention? = nil) async throws(StoreError) -> TransitionResult {
        let kept = retention.map { Retention(response: $0.response, key: max($0.key, scene.policy.horizon)) }
        let result = try await finish(.complete(outcome, retention: kept))
        scene.operations.environment.failpoints.pass(.afterRecord)
        return result
    }

    /// Forgets the claim: only when it is proven that nothing was applied.
    public func release() async throws(StoreError) -> TransitionResult {
        try await finish(.release)
    }

    /// Leaves the operation uncertain: nothing runs until it is resolved.
    public func suspend(reason: String) async throws(StoreError) -> TransitionResult {
        try await finish(.suspend(reason: reason))
    }

    /// Marks durably that the response is too large to keep and is about to be sent.
    public func stream() async throws(StoreError) -> TransitionResult {
        try await say(.stream)
    }

    /// After a verification that found nothing applied: run the operation, under this attempt's epoch.
    public func proceed() async throws(StoreError) -> TransitionResult {
        try await say(.proceed(lease: scene.policy.lease))
    }

    private func finish(_ change: Transition.Change) async throws(StoreError) -> TransitionResult {
        state.withLock { $0.isFinishing = true }
        let result = try await say(change)
        conclude(result == .applied ? .finished : .leaseLost)
        return result
    }

    private func say(_ change: Transition.Change) async throws(StoreError) -> TransitionResult {
        let start = scene.operations.environment.uptime()
        do {
            return try await scene.store.apply(change, to: id, token: token)
        } catch where error.isTransient {
            return try await say(change, after: error, until: start + scene.policy.lease)
        }
    }

    /// Says a transition again while the store cannot be reached, for as long as one lease: the effect may have
    /// happened, and a record that could not be written becomes uncertain.
    private func say(_ change: Transition.Change, after first: StoreError, until deadline: Duration) async throws(StoreError) -> TransitionResult {
        let environment = scene.operations.environment
        var error = first
        var pause = Duration.milliseconds(20)
        var mayHaveBeenApplied = false
        while error.isTransient, environment.uptime() + pause < deadline {
            if error.code == .indeterminate { mayHaveBeenApplied = true }
            // Whoever cancels the caller does not want the store hammered.
            let time = pause
            await environment.detach { _ = try? await environment.clock.sleep(for: time) }.value
            pause = min(pause * 2, .seconds(1))
            do throws(StoreError) {
                let result = try await scene.store.apply(change, to: id, token: token)
                // What is released leaves no record that could recognise the same release said again.
                if case .release = change, result == .superseded, mayHaveBeenApplied, try await scene.store.record(of: id) == nil {
                    return .applied
                }
                return result
            } catch let next {
                error = next
            }
        }
        throw error
    }

    /// Waits until `time` has passed since the last holder's right ended, and counts that as progress.
    package func waitOut(_ time: Duration) async throws {
        guard let since = grant.previousChange else { return }
        var left = time - (grant.grantedAt - since)
        while left > .zero {
            let slice = min(left, scene.policy.progress.map { $0 / 2 } ?? left)
            try await scene.operations.environment.clock.sleep(for: slice)
            progressed()
            left -= slice
        }
    }

    // MARK: Keeping

    /// Whether there was no progress for longer than the policy allows.
    func isHung(at now: Duration) -> Bool {
        guard let limit = scene.policy.progress else { return false }
        return state.withLock { now - $0.lastProgress >= limit }
    }

    /// A renewal was refused.
    func renewalRefused() async {
        guard state.withLock({ !$0.isFinishing && $0.end == nil }) else { return }
        let record: Record?
        do {
            record = try await scene.store.record(of: id)
        } catch {
            // A store that cannot be read says nothing about the lease; the next renewal asks again.
            return
        }
        // A lapsed claim that nobody took over is uncertain and still carries our token: its late result counts.
        if let record, record.token == token {
            scene.operations.keeper.letGo(self)
        } else if state.withLock({ !$0.isFinishing }) {
            conclude(.leaseLost)
        }
    }

    func conclude(_ end: End) {
        scene.operations.keeper.letGo(self)
        let handlers = state.withLock { state -> [@Sendable (End) -> Void] in
            guard state.end == nil else { return [] }
            state.end = end
            defer { state.handlers = [] }
            return state.handlers
        }
        for handler in handlers { handler(end) }
    }
}

extension StoreError {
    /// Whether saying the same again may succeed.
    public var isTransient: Bool { code == .unavailable || code == .indeterminate }
}
