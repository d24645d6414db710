internal import Foundation
internal import Semel

extension RecordState {
    /// The state's name in the API.
    var name: String {
        switch self {
        case .claimed: "claimed"
        case .verifying: "verifying"
        case .streaming: "streaming"
        case .uncertain: "uncertain"
        case .completed: "completed"
        }
    }
}

extension StoredOperation {
    /// What a list shows: no token, no fingerprint, nothing of the result.
    func document(now: Timestamp) -> JSONValue {
        var document = summary
        document["age_ms"] = JSONValue(max(0, (now - record.changedAt).milliseconds))
        return .object(document)
    }

    /// What is shown of one operation. Never the token: it belongs to its owner alone.
    func details(policy: PinnedPolicy?, leaseRemaining: Duration, withOutcome: Bool) -> JSONValue {
        var document = summary
        switch record.state {
        case .claimed, .verifying, .streaming: document["lease_remaining_ms"] = JSONValue(leaseRemaining.roundedUpMilliseconds)
        case .uncertain: break
        case .completed:
            document["response_until"] = .string(record.responseUntil.rfc3339)
            document["key_until"] = .string(record.keyUntil.rfc3339)
        }
        document["mode"] = .string("\(record.mode)")
        document["on_lapse"] = .string("\(record.onLapse)")
        document["fingerprint"] = .string(record.fingerprint.description)
        document["policy"] = policy.map { .string($0.text) } ?? .null
        document["trace_id"] = record.traceID.map { .string($0.hexadecimal) } ?? .null
        document["parent"] = record.parent.map { .string($0.description) } ?? .null
        document["outcome"] = record.outcome.map { withOutcome ? $0.document : $0.summary } ?? .null
        return .object(document)
    }

    private var summary: JSONObject {
        var document: JSONObject = JSONObject()
        document["operation"] = .string(reference.description)
        document["scene"] = .string(scene)
        document["scope"] = .array(id.scope.parts.map(JSONValue.string))
        document["key"] = .string(id.key.text)
        // A key that is not text is given exactly, besides the text that people read.
        if String(validating: id.key.bytes, as: UTF8.self) == nil {
            document["key_base64"] = .string(Data(id.key.bytes).base64EncodedString())
        }
        document["state"] = .string(record.state.name)
        document["epoch"] = JSONValue(record.epoch.rawValue)
        // The same for clients whose numbers are doubles: from a store's second restore on, epochs are above 2^53.
        document["epoch_string"] = .string(record.epoch.description)
        document["attempt"] = JSONValue(record.attempt)
        document["created_at"] = .string(record.createdAt.rfc3339)
        document["changed_at"] = .string(record.changedAt.rfc3339)
        document["reason"] = record.reason.map(JSONValue.string) ?? .null
        return document
    }
}
