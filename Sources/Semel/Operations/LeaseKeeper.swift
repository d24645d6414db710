/// The heartbeat of every attempt of this process: one task renews, in one batch, each lease of which a third is over.
///
/// Attempts are held weakly: one that was dropped is no longer renewed.
final class LeaseKeeper: Sendable {
    private struct Entry {
        weak var attempt: Attempt?
        let lease: Duration
        var due: Duration
    }

    private struct State {
        var entries: [ObjectIdentifier: Entry] = [:]
        /// When the task wakes next; `nil` while there is none.
        var wakesAt: Duration?
        var sleeper: Task<Void, Never>?
    }

    private let store: any OperationStore
    private let environment: Environment
    private let state = Locked(State())

    init(store: any OperationStore, environment: Environment) {
        self.store = store
        self.environment = environment
    }

    func keep(_ attempt: Attempt) {
        let lease = attempt.scene.policy.lease
        // A policy with a progress deadline is looked at at least that often.
        let due = environment.uptime() + min(lease / 3, attempt.scene.policy.progress ?? lease)
        enum Step { case none, wake(Task<Void, Never>?), start }
        let step: Step = state.withLock { state in
            state.entries[ObjectIdentifier(attempt)] = Entry(attempt: attempt, lease: lease, due: due)
            guard let wakesAt = state.wakesAt else {
                state.wakesAt = due
                return .start
            }
            return due < wakesAt ? .wake(state.sleeper) : .none
        }
        switch step {
        case .none: break
        case .wake(let sleeper): sleeper?.cancel()
        case .start: environment.detach { [self] in await run() }
        }
    }

    /// An attempt says it again when it goes, so its identity is free for another one.
    func letGo(_ attempt: Attempt) {
        let identity = ObjectIdentifier(attempt)
        state.withLock { state in _ = state.entries.removeValue(forKey: identity) }
    }

    /// Runs until a wake-up finds nothing to keep. So operations that come one after the other share one task.
    private func run() async {
        while let due = nextWake() {
            let pause = max(due - environment.uptime(), .zero)
            let sleeper = environment.detach { [environment] in _ = try? await environment.clock.sleep(for: pause) }
            let woken = state.withLock { state -> Bool in
                state.sleeper = sleeper
                // A lease that was added meanwhile may be due earlier.
                return state.entries.values.contains { $0.due < due }
            }
            if woken { sleeper.cancel() }
            await sleeper.value
            await renewDue()
        }
    }

    private func nextWake() -> Duration? {
        state.withLock { state in
            state.wakesAt = state.entries.values.lazy.map(\.due).min()
            state.sleeper = nil
            return state.wakesAt
        }
    }

    private func renewDue() async {
        let now = environment.uptime()
        let due: [Attempt] = state.withLock { state in
            var due: [Attempt] = []
            for (identity, entry) in state.entries where entry.due <= now {
                // One that is going takes its entry out itself.
                guard let attempt = entry.attempt else { continue }
                state.entries[identity]?.due = now + min(entry.lease / 3, attempt.scene.policy.progress ?? entry.lease)
                due.append(attempt)
            }
            return due
        }
        let hung = due.filter { $0.isHung(at: now) }
        for attempt in hung { attempt.conclude(.hung) }
        let working = due.filter { $0.end == nil }
        guard !working.isEmpty else { return }
        environment.failpoints.pass(.whileRenewing)
        let renewals = working.map { Transition(id: $0.id, token: $0.token, change: .renew($0.scene.policy.lease)) }
        // While the store cannot be reached, the next turn tries again; the store decides when a lease has lapsed.
        guard let results = try? await store.apply(renewals) else { return }
        for (attempt, result) in zip(working, results) where result == .superseded { await attempt.renewalRefused() }
    }
}
