public import Semel

/// Counts what the rules did, in the metrics of each scene.
public struct HTTPMetrics: HTTPObserver {
    private let metrics: SceneMetrics

    /// - Parameter scene: the name of the one scene it observes.
    public init(_ metrics: SemelMetrics, scene: String) {
        self.metrics = metrics.scene(scene)
    }

    public func observe(_ event: HTTPEvent, scene: Scene, operation: OperationID?) {
        switch event {
        case .started(let attempt): metrics.started(attempt: attempt.grant.attempt)
        case .recorded: metrics.ended(.completed)
        case .released: metrics.ended(.released)
        case .suspended: metrics.ended(.uncertain)
        case .unrecorded(_, let attempt):
            metrics.ended(.lost)
            if attempt.end == .leaseLost { metrics.loseLease() }
        case .replayed: metrics.replay()
        case .rejected(let code, _), .wouldReject(let code): metrics.reject(code.rawValue)
        case .wouldReplay: metrics.replay()
        case .degraded, .storeFailed: break
        }
    }
}
