internal import CoreMetrics
public import Metrics
internal import SemelCore

/// Semel's metrics by name, over whatever backend the application uses.
///
/// Labels are scenes, stores and fixed words, never keys: how many series there are is bounded by the configuration. Each
/// handle is made once for its labels; counting with it is one call into the backend.
public final class SemelMetrics: Sendable {
    private struct State {
        var scenes: [String: SceneMetrics] = [:]
        var stores: [String: StoreMetrics] = [:]
        var degraded: [String: Meter] = [:]
        var lockFailures: [String: Counter] = [:]
    }

    private let factory: any MetricsFactory
    private let state = Locked(State())

    public init(factory: any MetricsFactory = MetricsSystem.factory) {
        self.factory = factory
    }

    /// The metrics of one scene. Keep it: finding it takes a lock.
    public func scene(_ name: String) -> SceneMetrics {
        state.withLock { state in
            if let found = state.scenes[name] { return found }
            let made = SceneMetrics(scene: name, factory: factory)
            state.scenes[name] = made
            return made
        }
    }

    /// The metrics of one store, by its engine's name. Keep it: finding it takes a lock.
    public func store(_ engine: String) -> StoreMetrics {
        state.withLock { state in
            if let found = state.stores[engine] { return found }
            let made = StoreMetrics(store: engine, factory: factory)
            state.stores[engine] = made
            return made
        }
    }

    /// `semel_degraded{component}`: 1 while a component keeps less than its promise.
    public func setDegraded(_ isDegraded: Bool, component: String) {
        let meter = state.withLock { state in
            if let found = state.degraded[component] { return found }
            let made = Meter(label: "semel_degraded", dimensions: [("component", component)], factory: factory)
            state.degraded[component] = made
            return made
        }
        meter.set(isDegraded ? 1 : 0)
    }

    /// `semel_optimistic_lock_failures_total{operation,reason}`; the operation is one of a fixed set of names.
    public func optimisticLockFailed(operation: String, reason: OptimisticLockFailure.Reason) {
        let counter = state.withLock { state in
            let label = "\(operation) \(reason.rawValue)"
            if let found = state.lockFailures[label] { return found }
            let made = Counter(
                label: "semel_optimistic_lock_failures_total", dimensions: [("operation", operation), ("reason", reason.rawValue)],
                factory: factory)
            state.lockFailures[label] = made
            return made
        }
        counter.increment()
    }

    /// `semel_telemetry_dropped_total{reason}`
    package func droppedSpans(_ reason: String) -> Counter {
        Counter(label: "semel_telemetry_dropped_total", dimensions: [("reason", reason)], factory: factory)
    }

    /// What each metric is, for backends that tell.
    public static let descriptions = [
        "semel_claims_total": "Claims by what they were answered.",
        "semel_operations_total": "Operations by how they ended.",
        "semel_rejected_total": "Requests refused, by the code of the problem.",
        "semel_replayed_total": "Requests answered with a recorded outcome.",
        "semel_in_progress": "Operations that run now in this process.",
        "semel_uncertain": "Operations whose outcome is unknown until they are resolved.",
        "semel_claim_duration_seconds": "How long the store took to answer a claim.",
        "semel_store_batch_size": "Items that shared one transaction of the store.",
        "semel_store_errors_total": "Calls that the store could not answer, by kind.",
        "semel_lease_lost_total": "Operations whose lease lapsed while they ran.",
        "semel_retries_total": "Further attempts at an operation, by their number.",
        "semel_optimistic_lock_failures_total": "Changes under optimistic locking that were not made, by operation and reason.",
        "semel_telemetry_dropped_total": "Spans that were never sent, by why.",
        "semel_degraded": "1 while a component keeps less than its promise.",
    ]
}

/// The metrics of one scene.
public final class SceneMetrics: Sendable {
    /// How a claim was answered.
    public enum ClaimAnswer: String, Sendable, CaseIterable {
        case claimed, reclaimed, verify, again, completed, mismatch, uncertain, expired, unreadable
        case inProgress = "in_progress"
        case tooManyKeys = "too_many_keys"
    }

    /// How an operation ended.
    public enum Ending: String, Sendable, CaseIterable {
        /// Its outcome is recorded.
        case completed
        /// Nothing was applied; the key may run again.
        case released
        /// Nobody knows whether it was applied.
        case uncertain
        /// Its end could not be recorded: it was superseded, or the store was away.
        case lost
    }

    private let name: String
    private let factory: any MetricsFactory
    private let claims: [ClaimAnswer: Counter]
    private let endings: [Ending: Counter]
    private let replayed: Counter
    private let inProgress: Meter
    private let uncertain: Meter
    private let leaseLost: Counter
    private let retries: [Counter]
    private let rejected = Locked<[String: Counter]>([:])

    fileprivate init(scene: String, factory: any MetricsFactory) {
        func counter(_ label: String, _ dimensions: (String, String)...) -> Counter {
            Counter(label: label, dimensions: [("scene", scene)] + dimensions, factory: factory)
        }
        name = scene
        self.factory = factory
        claims = Dictionary(uniqueKeysWithValues: ClaimAnswer.allCases.map { ($0, counter("semel_claims_total", ("result", $0.rawValue))) })
        endings = Dictionary(uniqueKeysWithValues: Ending.allCases.map { ($0, counter("semel_operations_total", ("outcome", $0.rawValue))) })
        replayed = counter("semel_replayed_total")
        inProgress = Meter(label: "semel_in_progress", dimensions: [("scene", scene)], factory: factory)
        uncertain = Meter(label: "semel_uncertain", dimensions: [("scene", scene)], factory: factory)
        leaseLost = counter("semel_lease_lost_total")
        // The tenth stands for all further ones, so that an endless retry does not make endless series.
        retries = (2...10).map { counter("semel_retries_total", ("attempt", $0 == 10 ? "10+" : "\($0)")) }
    }

    /// `semel_claims_total{scene,result}`
    public func claimed(_ answer: ClaimAnswer) { claims[answer]?.increment() }

    /// An operation starts to run. `semel_in_progress{scene}`, and from the second attempt on
    /// `semel_retries_total{scene,attempt}`.
    public func started(attempt: UInt32) {
        inProgress.increment()
        if attempt >= 2 { retries[min(Int(attempt), 10) - 2].increment() }
    }

    /// An operation that had started is over. `semel_operations_total{scene,outcome}`, `semel_in_progress{scene}`
    public func ended(_ ending: Ending) {
        inProgress.decrement()
        endings[ending]?.increment()
    }

    /// An operation that ran outside of this process is over. `semel_operations_total{scene,outcome}` alone.
    public func endedElsewhere(_ ending: Ending) { endings[ending]?.increment() }

    /// `semel_replayed_total{scene}`
    public func replay() { replayed.increment() }

    /// `semel_rejected_total{scene,reason}`; the reason is a problem code, one of a fixed set.
    public func reject(_ reason: String) {
        let counter = rejected.withLock { counters in
            if let found = counters[reason] { return found }
            let made = Counter(label: "semel_rejected_total", dimensions: [("scene", name), ("reason", reason)], factory: factory)
            counters[reason] = made
            return made
        }
        counter.increment()
    }

    /// `semel_lease_lost_total{scene}`
    public func loseLease() { leaseLost.increment() }

    /// `semel_uncertain{scene}`, as counted in the store.
    public func setUncertain(_ count: Int) { uncertain.set(count) }
}

/// The metrics of one store.
public final class StoreMetrics: Sendable {
    private let name: String
    private let factory: any MetricsFactory
    private let claimDuration: Metrics.Timer
    private let batchSize: Recorder
    private let errors: Locked<[String: Counter]>

    fileprivate init(store: String, factory: any MetricsFactory) {
        name = store
        self.factory = factory
        claimDuration = Metrics.Timer(label: "semel_claim_duration_seconds", dimensions: [("store", store)], factory: factory)
        batchSize = Recorder(label: "semel_store_batch_size", dimensions: [("store", store)], aggregate: true, factory: factory)
        // There from the beginning, so that the first error is a change and not a new series.
        let kinds: [StoreError.Code] = [.unavailable, .stopped, .refused, .indeterminate, .full, .damaged]
        errors = Locked(Dictionary(uniqueKeysWithValues: kinds.map { ($0.description, Self.errors(store, $0.description, factory)) }))
    }

    private static func errors(_ store: String, _ kind: String, _ factory: any MetricsFactory) -> Counter {
        Counter(label: "semel_store_errors_total", dimensions: [("store", store), ("kind", kind)], factory: factory)
    }

    /// `semel_claim_duration_seconds{store}`
    public func claim(took duration: Duration) {
        claimDuration.record(duration: duration)
    }

    /// `semel_store_batch_size{store}`: items that were made durable together. Only a store that gathers them knows.
    public func batch(of size: Int) { batchSize.record(size) }

    /// `semel_store_errors_total{store,kind}`; the kind is a store error's code, one of a fixed set.
    public func failed(_ kind: String) {
        let counter = errors.withLock { counters in
            if let found = counters[kind] { return found }
            let made = Self.errors(name, kind, factory)
            counters[kind] = made
            return made
        }
        counter.increment()
    }
}
