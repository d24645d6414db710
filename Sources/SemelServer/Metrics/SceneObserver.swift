package import Logging
package import Semel
package import SemelHTTP

/// Counts and logs what the rules did with requests. The log names operations by reference; the key is added only for
/// `log.keys: plain`, which the log's handler decides.
package struct SceneObserver: HTTPObserver {
    private let metrics: SemelMetrics
    private let logger: Logger
    private let spans: SpanQueue?
    private let degradation: (@Sendable (OperationID) -> String?)?

    /// - Parameters:
    ///   - spans: where each attempt is told as a span; `nil` for nowhere.
    ///   - degradation: why an operation is decided by a second store, and `nil` where it is not.
    package init(
        metrics: SemelMetrics, logger: Logger, spans: SpanQueue? = nil, degradation: (@Sendable (OperationID) -> String?)? = nil
    ) {
        self.degradation = degradation
        self.metrics = metrics
        self.logger = logger
        self.spans = spans
    }

    package func observe(_ event: HTTPEvent, scene: Scene, operation: OperationID?) {
        let counted = metrics.scene(scene.policy.scene)
        func log(_ level: Logger.Level, _ message: Logger.Message, step: String, _ attempt: Attempt? = nil, status: Int? = nil, reason: String? = nil, isDegraded: Bool = false) {
            guard level >= logger.logLevel else { return }
            var metadata: Logger.Metadata = ["scene": .string(scene.policy.scene), "step": .string(step)]
            if let operation {
                metadata["operation"] = .stringConvertible(OperationReference(operation))
                metadata["key"] = .string(operation.key.text)
            }
            if let attempt {
                metadata["attempt"] = .stringConvertible(attempt.grant.attempt)
                metadata["epoch"] = .stringConvertible(attempt.epoch)
                metadata["duration_ms"] = .stringConvertible(attempt.age.microseconds / 1000)
            }
            if let status { metadata["status"] = .stringConvertible(status) }
            if let reason { metadata["reason"] = .string(reason) }
            if isDegraded { metadata["degraded"] = .stringConvertible(true) }
            logger.log(level: level, message, metadata: metadata)
        }
        func end(_ ending: SceneMetrics.Ending, _ attempt: Attempt, status: Int? = nil, reason: String? = nil) {
            counted.ended(ending)
            spans?.add(ending, of: attempt, status: status, reason: reason)
        }
        switch event {
        case .started(let attempt):
            counted.started(attempt: attempt.grant.attempt)
            if let why = operation.flatMap({ degradation?($0) }) {
                log(.warning, "An operation starts on the word of the second store.", step: "start", attempt, reason: why, isDegraded: true)
            } else {
                log(.debug, "An operation starts.", step: "start", attempt)
            }
        case .recorded(let status, let attempt):
            end(.completed, attempt, status: status)
            log(.debug, "The outcome is recorded.", step: "complete", attempt, status: status)
        case .released(let status, let attempt):
            end(.released, attempt, status: status)
            log(.info, "The key may run again.", step: "release", attempt, status: status)
        case .suspended(let reason, let attempt):
            end(.uncertain, attempt, reason: reason)
            log(.warning, "Nobody knows whether the operation was applied.", step: "suspend", attempt, reason: reason)
        case .unrecorded(let reason, let attempt):
            end(.lost, attempt, reason: reason)
            if attempt.end == .leaseLost { counted.loseLease() }
            log(.warning, "The end of the operation could not be recorded.", step: "complete", attempt, reason: reason)
        case .replayed(let status):
            counted.replay()
            let isDegraded = operation.map { degradation?($0) != nil } ?? false
            log(.debug, "A recorded outcome is replayed.", step: "replay", status: status, isDegraded: isDegraded)
        case .rejected(let code, let status):
            counted.reject(code.rawValue)
            log(.info, "A request is answered with a problem.", step: "reject", status: status, reason: code.rawValue)
        case .wouldReject(let code):
            log(.info, "Enforcing would have refused this request.", step: "observe", reason: code.rawValue)
        case .wouldReplay:
            log(.info, "Enforcing would have replayed a recorded outcome.", step: "observe")
        case .degraded(let error):
            metrics.setDegraded(true, component: "store")
            log(.warning, "A request runs unprotected: the store cannot be reached.", step: "claim", reason: error.message, isDegraded: true)
        case .storeFailed(let error):
            metrics.setDegraded(true, component: "store")
            log(.error, "The store did not answer.", step: "claim", reason: error.message)
        }
    }
}
