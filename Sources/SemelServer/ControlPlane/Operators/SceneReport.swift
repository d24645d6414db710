internal import HTTPTypes
package import Semel
internal import SemelHTTP

/// What a scene promises, and what that rests on.
package struct SceneReport: Hashable, Sendable {
    package var name: String
    package var mode: Mode
    package var level: Guarantee
    package var horizon: Duration
    package var reasons: [String]
    package var onLapse: LapseRule
    /// Whether the level rests on what the configuration says about the target. Otherwise it rests on nothing but what the
    /// store was found to do when it was opened.
    package var isDeclared: Bool
    /// What it covers; `nil` for the claims API.
    package var match: String?
    package var upstream: String?
    package var onStoreFailure: String

    package init(
        _ policy: Policy, _ assessment: Assessment, name: String? = nil, match: String? = nil, upstream: String? = nil, usesFallback: Bool = false
    ) {
        self.name = name ?? policy.scene
        mode = policy.mode
        level = assessment.level
        horizon = assessment.horizon
        reasons = assessment.reasons
        onLapse = assessment.onLapse
        isDeclared =
            switch policy.effect {
            case .deduplicates, .queryable: true
            case .localTransaction, .unknown: false
            }
        self.match = match
        self.upstream = upstream
        onStoreFailure = usesFallback ? "fallback" : "\(policy.onStoreFailure)"
    }

    package init(_ scene: SceneConfiguration) {
        let methods = scene.match.methods.map(\.rawValue).sorted().joined(separator: ", ")
        self.init(
            scene.http.policy, scene.assessment, match: "\(methods) \(scene.match.path.description)", upstream: scene.upstream.url,
            usesFallback: scene.usesFallback)
    }

    var document: JSONValue {
        var document: JSONObject = JSONObject()
        document["name"] = .string(name)
        document["mode"] = .string("\(mode)")
        document["level"] = .string(level.name)
        document["effectively_once"] = .bool(level.isEffectivelyOnce)
        document["horizon"] = .string(DurationText.format(horizon))
        document["basis"] = .string(isDeclared ? "declared" : "verified")
        document["reasons"] = .array(reasons.map(JSONValue.string))
        document["on_lapse"] = .string("\(onLapse)")
        document["match"] = match.map(JSONValue.string) ?? .null
        document["upstream"] = upstream.map(JSONValue.string) ?? .null
        document["on_store_failure"] = .string(onStoreFailure)
        return .object(document)
    }
}

extension ClaimsAPI {
    /// The two levels at which claims are kept.
    package var reports: [SceneReport] {
        [
            SceneReport(reclaiming.policy, reclaiming.assessment, name: "\(Self.scene) (onLapse: reclaim)"),
            SceneReport(uncertain.policy, uncertain.assessment, name: "\(Self.scene) (onLapse: uncertain)"),
        ]
    }
}
