package import Semel

/// Counts what the claims API did, under the scene `claims`. Claims by their answer are counted by the store.
package struct ClaimsMetrics: ClaimsObserver {
    private let scene: SceneMetrics

    package init(_ metrics: SemelMetrics) {
        scene = metrics.scene(ClaimsAPI.scene)
    }

    package func claimAnswered(_ result: String) {
        if result == "completed" { scene.replay() }
    }

    package func changeAnswered(_ change: String, applied: Bool) {
        switch (change, applied) {
        case ("complete", true): scene.endedElsewhere(.completed)
        case ("release", true): scene.endedElsewhere(.released)
        case ("suspend", true): scene.endedElsewhere(.uncertain)
        case ("renew", true): break
        // Somebody else holds the operation now, or nobody does.
        case ("renew", false): scene.loseLease()
        default: scene.endedElsewhere(.lost)
        }
    }

    package func refused(_ code: String) { scene.reject(code) }
}
