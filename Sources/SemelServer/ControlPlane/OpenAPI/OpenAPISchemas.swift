internal import Semel

/// The shapes of requests and answers. They are true, not permissive: an object with any other member does not fit.
enum OpenAPISchemas {
    static func reference(_ name: String) -> JSONValue { ["$ref": .string("#/components/schemas/\(name)")] }

    /// One, or many: the request's form of every claims route.
    static func oneOrMany(_ name: String) -> JSONValue {
        ["oneOf": [reference(name), object(["items": ["type": "array", "items": reference(name)]])]]
    }

    /// The answer's form: one, or in their order, each with a problem of its own where it was not understood.
    static func oneOrManyAnswers(_ name: String) -> JSONValue {
        [
            "oneOf": [
                reference(name),
                object(["items": ["type": "array", "items": ["oneOf": [reference(name), object(["problem": reference("Problem")])]]]]),
            ]
        ]
    }

    static var components: JSONValue {
        var schemas: JSONObject = JSONObject()
        for (name, schema) in basic { schemas[name] = schema }
        for (name, schema) in claims { schemas[name] = schema }
        for (name, schema) in operators { schemas[name] = schema }
        return .object(schemas)
    }

    private static let text: JSONValue = ["type": "string"]
    private static let optionalText: JSONValue = ["type": ["string", "null"]]
    private static let whole: JSONValue = ["type": "integer", "minimum": 0]
    private static let epochText: JSONValue = [
        "type": "string", "description": "The epoch in decimal digits, for clients that cannot hold a whole number of 64 bits.",
    ]
    private static let flag: JSONValue = ["type": "boolean"]
    private static let time: JSONValue = ["type": "string", "format": "date-time"]
    private static let base64: JSONValue = ["type": "string", "contentEncoding": "base64"]

    private static func bounded(_ limit: Int) -> JSONValue { ["type": "string", "minLength": 1, "maxLength": JSONValue(limit)] }

    private static func choice(_ names: String...) -> JSONValue { ["enum": .array(names.map(JSONValue.string))] }

    private static func list(_ item: JSONValue) -> JSONValue { ["type": "array", "items": item] }

    /// An object with these members, all of them but the optional ones required.
    private static func object(_ members: KeyValuePairs<String, JSONValue>, optional: KeyValuePairs<String, JSONValue> = [:]) -> JSONValue {
        var properties: JSONObject = JSONObject()
        for (name, schema) in members { properties[name] = schema }
        for (name, schema) in optional { properties[name] = schema }
        return [
            "type": "object", "additionalProperties": false, "properties": .object(properties),
            "required": .array(members.map { .string($0.key) }),
        ]
    }

    private static let basic: KeyValuePairs<String, JSONValue> = [
        "Duration": [
            "type": "string", "description": "A number and its unit: 250ms, 30s, 10m, 24h, 30d. A bare number is refused.",
        ],
        "OperationReference": ["type": "string", "minLength": 35, "maxLength": 35, "description": "op_ and 32 hexadecimal digits."],
        "Token": [
            "type": "string", "minLength": 48, "maxLength": 48,
            "description": "The fencing token: it carries the epoch, and belongs to the owner alone.",
        ],
        "Problem": object(
            ["type": text, "title": text, "status": whole, "detail": text, "code": text],
            optional: ["pointer": text, "line": whole, "column": whole]),
        "Headers": list(["type": "array", "items": text, "minItems": 2, "maxItems": 2]),
        "GivenOutcome": object(
            [:], optional: ["status": ["type": "integer", "minimum": 200, "maximum": 599], "headers": reference("Headers"), "body": base64]),
        "Outcome": object(
            ["status": ["type": ["integer", "null"]], "headers": reference("Headers"), "body": ["type": ["string", "null"], "contentEncoding": "base64"]],
            optional: ["trailers": reference("Headers"), "body_length": whole, "body_sha256": text]),
        "OutcomeSummary": object(["status": ["type": ["integer", "null"]], "body_length": ["type": ["integer", "null"]], "body_kept": flag]),
    ]

    private static let claims: KeyValuePairs<String, JSONValue> = [
        "Claim": object(
            ["scope": bounded(255), "key": bounded(255), "fingerprint": bounded(1024), "lease": reference("Duration")],
            optional: [
                "onLapse": choice("reclaim", "uncertain"),
                "owner": [
                    "type": "string", "minLength": 1, "maxLength": 255,
                    "description": "A nonce drawn for this attempt. A claim repeated with it gets its own token again; whoever in the scope knows it is the owner.",
                ],
            ]),
        "ClaimAnswer": [
            "oneOf": [
                object([
                    "result": choice("claimed", "reclaimed"), "operation": reference("OperationReference"), "epoch": whole, "epoch_string": epochText,
                    "token": reference("Token"), "attempt": whole, "lease_remaining_ms": whole,
                    "guarantee": choice("bestEffort", "atLeastOnce", "atMostOnce"),
                ]),
                reference("Standing"),
                object(["result": choice("mismatch", "too_many_keys"), "operation": reference("OperationReference")]),
            ]
        ],
        "Standing": [
            "oneOf": [
                object(["result": choice("in_progress"), "operation": reference("OperationReference"), "lease_remaining_ms": whole]),
                object([
                    "result": choice("completed"), "operation": reference("OperationReference"), "completed_at": time,
                    "outcome": reference("Outcome"),
                ]),
                object(
                    ["result": choice("uncertain"), "operation": reference("OperationReference"), "reason": text],
                    optional: ["since": time]),
                object(["result": choice("expired"), "operation": reference("OperationReference")]),
            ]
        ],
        "Complete": object(
            ["scope": bounded(255), "key": bounded(255), "token": reference("Token"), "outcome": reference("GivenOutcome")],
            optional: ["retention": object([:], optional: ["response": reference("Duration"), "key": reference("Duration")])]),
        "Suspend": object(["scope": bounded(255), "key": bounded(255), "token": reference("Token"), "reason": bounded(1000)]),
        "Renew": object(["scope": bounded(255), "key": bounded(255), "token": reference("Token"), "lease": reference("Duration")]),
        "Release": object(["scope": bounded(255), "key": bounded(255), "token": reference("Token")]),
        "Applied": object(["applied": flag]),
        "Wait": object(["scope": bounded(255), "key": bounded(255), "timeout": reference("Duration")]),
        "WaitAnswer": [
            "oneOf": [reference("Standing"), object(["result": choice("absent"), "operation": reference("OperationReference")])]
        ],
    ]

    private static let operators: KeyValuePairs<String, JSONValue> = {
        let state = choice("claimed", "verifying", "streaming", "uncertain", "completed")
        let summary: KeyValuePairs<String, JSONValue> = [
            "operation": reference("OperationReference"), "scene": text, "scope": list(text), "key": text, "state": state, "epoch": whole,
            "epoch_string": epochText, "attempt": whole, "created_at": time, "changed_at": time, "reason": optionalText,
        ]
        func with(_ more: KeyValuePairs<String, JSONValue>, optional: KeyValuePairs<String, JSONValue>) -> JSONValue {
            var schema = object(more, optional: optional).object ?? JSONObject()
            var properties = schema["properties"]?.object ?? JSONObject()
            for (name, value) in summary { properties[name] = value }
            schema["properties"] = .object(properties)
            schema["required"] = .array((schema["required"]?.array ?? []) + summary.map { .string($0.key) })
            return .object(schema)
        }
        return [
            "ListedOperation": with(["age_ms": whole], optional: ["key_base64": base64]),
            "OperationList": object(["operations": list(reference("ListedOperation")), "cursor": optionalText, "now": time, "degraded": flag]),
            "Operation": with(
                [
                    "mode": choice("off", "observe", "enforce"), "on_lapse": choice("reclaim", "verify", "uncertain"),
                    "fingerprint": text, "policy": optionalText, "trace_id": optionalText, "parent": optionalText,
                    "outcome": ["oneOf": [reference("Outcome"), reference("OutcomeSummary"), ["type": "null"]]],
                ],
                optional: ["key_base64": base64, "lease_remaining_ms": whole, "response_until": time, "key_until": time]),
            "Resolve": object(
                ["resolution": choice("applied", "not-applied"), "reason": bounded(1000)],
                optional: ["outcome": reference("GivenOutcome"), "actor": bounded(200), "epoch": whole, "epoch_string": epochText]),
            "Forget": object(["reason": bounded(1000)], optional: ["actor": bounded(200), "epoch": whole, "epoch_string": epochText]),
            "Decision": object(["applied": ["const": true], "operation": ["oneOf": [reference("Operation"), ["type": "null"]]]]),
            "Scene": object([
                "name": text, "mode": choice("off", "observe", "enforce"),
                "level": choice("bestEffort", "atLeastOnce", "atMostOnce", "verified", "fencedAndVerified", "deduplicatedByTarget", "atomic"),
                "effectively_once": flag, "horizon": text, "basis": choice("declared", "verified"), "reasons": list(text),
                "on_lapse": choice("reclaim", "verify", "uncertain"), "match": optionalText, "upstream": optionalText,
                "on_store_failure": choice("closed", "open", "fallback"),
            ]),
            "SceneList": object(["scenes": list(reference("Scene"))]),
            "AuditEntry": object([
                "sequence": whole, "time": time, "actor": text, "reason": text, "action": text, "operation": reference("OperationReference"),
                "scene": text, "detail": text, "previous_hash": text, "hash": text,
            ]),
            "AuditPage": object(["entries": list(reference("AuditEntry")), "intact": flag, "broken_at": ["type": ["integer", "null"]]]),
            "AuditVerification": object(
                ["intact": flag, "entries": whole, "last_hash": text, "broken_at": ["type": ["integer", "null"]]],
                optional: ["expected_found": flag]),
            "Health": object(["alive": ["const": true]]),
            "Readiness": object([
                "ready": flag,
                "components": list(object(["name": text, "state": choice("ready", "degraded", "down"), "needed": flag], optional: ["detail": text])),
            ]),
        ]
    }()
}
