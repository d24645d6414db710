internal import Foundation
package import HTTPTypes
package import SemelCore

/// A scene's rules as records pin them: everything needed to explain, verify and retain an operation after the scene was
/// changed or removed, and no secret.
///
/// Its text is JSON with sorted names, integers and strings only, so equal rules have equal text and one hash.
package struct PinnedScene: Hashable, Sendable, Codable {
    package struct Query: Hashable, Sendable, Codable {
        /// The URL, with placeholders (``EffectQuery/Placeholder``).
        package var url: String
        package var applied: [Int]
        package var absent: [Int]
        package var inFlightMilliseconds: Int64
        package var fence: String?
        package var outcome: EffectQuery.RecordedOutcome
        /// The field that says whose key is meant.
        package var scopeField: String?

        /// The URL to ask for one operation.
        package func url(for id: OperationID, derivedKey: String? = nil) -> String { EffectQuery.expand(url, for: id, derivedKey: derivedKey) }
    }

    package var format = 1
    package var scene: String
    package var level: String
    package var effect: String
    package var upstream: String
    package var mode: String
    package var onError: String
    package var onLapse: String
    package var leaseMilliseconds: Int64
    package var responseRetentionSeconds: Int64
    package var keyRetentionSeconds: Int64
    package var horizonSeconds: Int64
    package var query: Query?
    package var downstreamKeyField: String?
    /// ``DownstreamKey/secretMark``: with another secret the target would be asked for, or given, another key.
    package var downstreamKeySecretMark: String?

    package init(
        policy: Policy, assessment: Assessment, upstream: Upstream, query: EffectQuery?, scopeField: HTTPField.Name?, downstreamKey: DownstreamKey?
    ) {
        scene = policy.scene
        level = assessment.level.name
        effect =
            switch policy.effect {
            case .localTransaction: "localTransaction"
            case .deduplicates(let keeps): "deduplicates for \(DurationText.format(keeps))"
            case .queryable: "queryable"
            case .unknown: "unknown"
            }
        self.upstream = upstream.url
        mode = "\(policy.mode)"
        onError = "\(assessment.onError)"
        onLapse = "\(assessment.onLapse)"
        leaseMilliseconds = policy.lease.milliseconds
        responseRetentionSeconds = policy.retention.response.components.seconds
        keyRetentionSeconds = policy.retention.key.components.seconds
        horizonSeconds = policy.horizon.components.seconds
        self.query = query.map {
            Query(
                url: upstream.url + $0.path, applied: $0.applied.sorted(), absent: $0.absent.sorted(),
                inFlightMilliseconds: $0.inFlight.milliseconds, fence: $0.fence?.rawName, outcome: $0.outcome,
                scopeField: scopeField?.rawName)
        }
        downstreamKeyField = downstreamKey?.header.rawName
        downstreamKeySecretMark = downstreamKey?.secretMark
    }

    package var pinnedPolicy: PinnedPolicy { PinnedPolicy(scene: scene, text: text) }

    package var text: String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(self) else { preconditionFailure("strings and integers always encode") }
        return String(decoding: data, as: UTF8.self)
    }

    /// Reads a pinned policy back; `nil` when it was written by a library user or a newer version.
    package init?(_ policy: PinnedPolicy) {
        guard let read = try? JSONDecoder().decode(PinnedScene.self, from: Data(policy.text.utf8)), read.format == 1 else { return nil }
        self = read
    }
}

extension Duration {
    package var milliseconds: Int64 { microseconds / 1000 }
}
