import NIOHTTP1
import Semel

/// A served OpenAPI document, and what it says about an answer. It knows the part of JSON Schema 2020-12 that the
/// document uses, and reports any other keyword: a rule it cannot check is not taken as kept.
struct OpenAPIDescription: Sendable {
    let document: JSONValue

    init(_ document: JSONValue) {
        self.document = document
    }

    var operations: [(method: String, path: String, operation: JSONValue)] {
        (document["paths"]?.object?.members ?? []).flatMap { path in
            (path.value.object?.members ?? []).map { ($0.name.uppercased(), path.name, $0.value) }
        }
    }

    /// The operation at a path as it was asked for.
    func operation(_ method: String, _ target: String) -> JSONValue? {
        let path = target.prefix { $0 != "?" }.split(separator: "/", omittingEmptySubsequences: false)
        return operations.first { candidate in
            let template = candidate.path.split(separator: "/", omittingEmptySubsequences: false)
            return candidate.method == method && template.count == path.count
                && zip(template, path).allSatisfy { $0 == $1 || ($0.hasPrefix("{") && !$1.isEmpty) }
        }?.operation
    }

    /// What of an answer is not as described; nothing for paths and methods that are not served.
    func violations(of method: String, _ target: String, _ answer: PlaneAnswer) -> [String] {
        guard let operation = operation(method, target) else {
            return [404, 405, 421, 400].contains(answer.status) ? [] : ["this path is not described"]
        }
        guard let response = operation["responses"]?[String(answer.status)] else { return ["the status is not described"] }
        let type = answer.fields.first(name: "Content-Type") ?? ""
        guard let content = response["content"]?[type] else { return ["the content type '\(type)' is not described"] }
        guard let schema = content["schema"] else { return ["there is no schema"] }
        if !type.contains("json") { return check(.string(answer.text), schema, at: "") }
        guard let body = try? JSONValue(parsing: answer.body) else { return ["the body is not JSON"] }
        return check(body, schema, at: "")
    }

    /// Whether a request's body would fit.
    func requestViolations(_ method: String, _ path: String, _ body: JSONValue) -> [String] {
        guard let schema = operation(method, path)?["requestBody"]?["content"]?["application/json"]?["schema"] else {
            return ["no request is described"]
        }
        return check(body, schema, at: "")
    }

    func check(_ value: JSONValue, _ schema: JSONValue, at place: String) -> [String] {
        var found: [String] = []
        for keyword in schema.object?.members ?? [] {
            found += check(value, keyword.name, keyword.value, schema, place)
        }
        return found
    }

    private func check(_ value: JSONValue, _ keyword: String, _ rule: JSONValue, _ schema: JSONValue, _ place: String) -> [String] {
        func require(_ condition: Bool, _ text: String) -> [String] { condition ? [] : ["\(place): \(text)"] }
        switch keyword {
        case "description", "contentEncoding", "default": return []
        case "format": return require(rule == "date-time" && isTime(value.string ?? ""), "'\(value)' is no time")
        case "$ref":
            let name = rule.string?.split(separator: "/").last.map(String.init) ?? ""
            guard let target = document["components"]?["schemas"]?[name] else { return ["\(place): \(rule) leads nowhere"] }
            return check(value, target, at: place)
        case "type":
            let types = rule.array?.compactMap(\.string) ?? [rule.string ?? ""]
            return require(types.contains { Self.isOf($0, value) }, "\(value.kind) is not of type \(rule)")
        case "enum": return require(rule.array?.contains(value) ?? false, "\(value) is none of \(rule)")
        case "const": return require(rule == value, "\(value) is not \(rule)")
        case "minimum": return require((value.double ?? .infinity) >= (rule.double ?? 0), "\(value) is below \(rule)")
        case "maximum": return require((value.double ?? 0) <= (rule.double ?? 0), "\(value) is above \(rule)")
        case "minLength": return require(value.string.map { $0.unicodeScalars.count >= rule.integer! } ?? true, "too short")
        case "maxLength": return require(value.string.map { $0.unicodeScalars.count <= rule.integer! } ?? true, "too long")
        case "minItems": return require(value.array.map { $0.count >= rule.integer! } ?? true, "too few")
        case "maxItems": return require(value.array.map { $0.count <= rule.integer! } ?? true, "too many")
        case "items":
            return (value.array ?? []).enumerated().flatMap { check($1, rule, at: "\(place)/\($0)") }
        case "properties":
            return (rule.object?.members ?? []).flatMap { property in
                value[property.name].map { check($0, property.value, at: "\(place)/\(property.name)") } ?? []
            }
        case "required":
            guard value.object != nil else { return [] }
            return (rule.array ?? []).flatMap { require(value[$0.string ?? ""] != nil, "\($0) is missing") }
        case "additionalProperties":
            return (value.object?.members ?? []).flatMap {
                require(rule == true || schema["properties"]?[$0.name] != nil, "\($0.name) is not described")
            }
        case "oneOf":
            let results = (rule.array ?? []).map { check(value, $0, at: place) }
            let fitting = results.count { $0.isEmpty }
            return require(fitting == 1, "fits \(fitting) of \(results.count) forms: \(results.flatMap { $0 }.joined(separator: "; "))")
        case "allOf": return (rule.array ?? []).flatMap { check(value, $0, at: place) }
        default: return ["\(place): the keyword \(keyword) is not known to this check"]
        }
    }

    private static func isOf(_ type: String, _ value: JSONValue) -> Bool {
        switch type {
        case "null": value.isNull
        case "boolean": value.bool != nil
        case "integer": value.integer != nil
        case "string": value.string != nil
        case "array": value.array != nil
        case "object": value.object != nil
        default: false
        }
    }

    private func isTime(_ text: String) -> Bool {
        text.wholeMatch(of: /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/) != nil
    }
}
