internal import Foundation
internal import HTTPTypes
internal import Semel

// An outcome as JSON: {"status": 201, "headers": [["name", "value"], …], "body": "<base64>"}.

extension Outcome {
    /// - Parameter bodyLimit: the most bytes the body may have, decoded.
    init(_ value: JSONValue, at pointer: String, bodyLimit: Int) throws(APIProblem) {
        let reader = try ObjectReader(value, at: pointer, names: ["status", "headers", "body"])
        var outcome = Outcome()
        if let status = reader.value("status") {
            guard let number = status.integer, (200...599).contains(number) else {
                throw APIProblem(.invalidRequest, "status must be that of a final answer, from 200 to 599.", at: reader.place("status"))
            }
            outcome.status = UInt16(number)
        }
        if let headers = reader.value("headers") { outcome.fields = try Self.fields(headers, at: reader.place("headers")) }
        if let text = try reader.string("body") {
            // The encoding must be the one there is: alphabet, padding and unused bits as RFC 4648 §4 has them, nothing
            // between. Another reader would else see another body.
            guard let data = Data(base64Encoded: text), data.base64EncodedString() == text else {
                throw APIProblem(
                    .invalidRequest, "body is not base64 (RFC 4648 §4, with padding, without line breaks).", at: reader.place("body"))
            }
            guard data.count <= bodyLimit else {
                throw APIProblem(
                    .requestTooLarge, "The outcome's body has \(data.count) bytes; at most \(bodyLimit) are kept. Keep a reference to it instead.",
                    at: reader.place("body"))
            }
            outcome.body = .kept(Array(data))
        }
        self = outcome
    }

    private static func fields(_ value: JSONValue, at pointer: String) throws(APIProblem) -> [Field] {
        guard let pairs = value.array, pairs.count <= 100 else {
            throw APIProblem(.invalidRequest, "headers must be an array of at most 100 pairs.", at: pointer)
        }
        var fields: [Field] = []
        var size = 0
        for (index, pair) in pairs.enumerated() {
            guard let texts = pair.array, texts.count == 2, let name = texts[0].string, let value = texts[1].string else {
                throw APIProblem(.invalidRequest, "Each of headers must be a pair of strings: name and value.", at: "\(pointer)/\(index)")
            }
            guard HTTPField.Name(name) != nil, HTTPField.isValidValue(value) else {
                throw APIProblem(.invalidRequest, "This is no header field that HTTP can carry (RFC 9110 §5).", at: "\(pointer)/\(index)")
            }
            fields.append(Field(name, value))
            size += name.utf8.count + value.utf8.count
        }
        guard size <= 16 << 10 else {
            throw APIProblem(.requestTooLarge, "The headers have \(size) bytes; at most \(16 << 10) are kept.", at: pointer)
        }
        return fields
    }

    /// As it was given; `body` and `status` are null where they are not known or were not kept.
    var document: JSONValue {
        var document: JSONObject = JSONObject()
        document["status"] = statusDocument
        document["headers"] = Self.document(fields)
        if !trailers.isEmpty { document["trailers"] = Self.document(trailers) }
        switch body {
        case .kept(let bytes): document["body"] = .string(Data(bytes).base64EncodedString())
        case .omitted(let length, let digest):
            document["body"] = .null
            document["body_length"] = length.map { JSONValue($0) }
            document["body_sha256"] = digest.flatMap { Digest256(bytes: $0) }.map { .string($0.description) }
        }
        return .object(document)
    }

    /// What may be shown without showing the result itself.
    var summary: JSONValue {
        var summary: JSONObject = JSONObject()
        summary["status"] = statusDocument
        switch body {
        case .kept(let bytes): summary["body_length"] = JSONValue(bytes.count)
        case .omitted(let length, _): summary["body_length"] = length.map { JSONValue($0) } ?? .null
        }
        summary["body_kept"] = .bool(isReplayable)
        return .object(summary)
    }

    private var statusDocument: JSONValue { status == 0 ? .null : JSONValue(status) }

    private static func document(_ fields: [Field]) -> JSONValue {
        .array(fields.map { [.string($0.name), .string($0.value)] })
    }
}

extension Timestamp {
    /// RFC 3339 in UTC, to the millisecond.
    var rfc3339: String {
        Date(timeIntervalSince1970: Double(microseconds) / 1_000_000)
            .formatted(Date.ISO8601FormatStyle(includingFractionalSeconds: true))
    }
}
