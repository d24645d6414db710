internal import Semel

/// The messages of OTLP in their JSON encoding (OpenTelemetry Protocol 1): ids in hexadecimal, 64-bit integers as strings,
/// enumerations as numbers.
enum OTLPDocument {
    typealias Attributes = [(name: String, value: String)]

    static func traces(_ spans: [OperationSpan], resource: Attributes) -> JSONValue {
        [
            "resourceSpans": [
                ["resource": ["attributes": attributes(resource)], "scopeSpans": [["scope": scope, "spans": .array(spans.map(span))]]]
            ]
        ]
    }

    /// - Parameters:
    ///   - start: since when counts are counted, and `now`, in nanoseconds since 1970.
    static func metrics(_ metrics: [PrometheusRegistry.Snapshot], from start: UInt64, to now: UInt64, resource: Attributes) -> JSONValue {
        let documents = metrics.map { metric($0, start, now) }
        return [
            "resourceMetrics": [
                ["resource": ["attributes": attributes(resource)], "scopeMetrics": [["scope": scope, "metrics": .array(documents)]]]
            ]
        ]
    }

    private static let scope: JSONValue = ["name": "semel", "version": .string(Version.number)]

    private static func attributes(_ attributes: Attributes) -> JSONValue {
        .array(attributes.map { attribute($0.name, ["stringValue": .string($0.value)]) })
    }

    private static func attribute(_ name: String, _ value: JSONValue) -> JSONValue { ["key": .string(name), "value": value] }

    private static func text(_ number: some BinaryInteger) -> JSONValue { .string(String(number)) }

    // MARK: Traces

    private static func span(_ span: OperationSpan) -> JSONValue {
        var attributes = [
            attribute("semel.scene", ["stringValue": .string(span.scene)]),
            attribute("semel.operation", ["stringValue": .string(span.operation.description)]),
            attribute("semel.outcome", ["stringValue": .string(span.ending.rawValue)]),
            // As text: an epoch may be beyond what a signed integer holds.
            attribute("semel.epoch", ["stringValue": .string(span.epoch.description)]),
            attribute("retry.attempt", ["intValue": text(span.attempt)]),
        ]
        if let status = span.status { attributes.append(attribute("http.response.status_code", ["intValue": text(status)])) }
        if let reason = span.reason { attributes.append(attribute("semel.reason", ["stringValue": .string(reason)])) }
        let isAmiss = span.ending == .uncertain || span.ending == .lost
        var document = JSONObject()
        document["traceId"] = .string(span.trace.traceID.hexadecimal)
        document["spanId"] = .string(span.trace.spanText)
        document["parentSpanId"] = span.trace.parentText.map(JSONValue.string)
        document["name"] = .string(span.scene)
        document["kind"] = 2  // a server's
        document["startTimeUnixNano"] = text(span.start)
        document["endTimeUnixNano"] = text(span.end)
        document["attributes"] = .array(attributes)
        document["status"] = isAmiss ? ["code": 2, "message": .string(span.reason ?? span.ending.rawValue)] : ["code": 0]
        return .object(document)
    }

    // MARK: Metrics

    private static let cumulative: JSONValue = 2

    private static func metric(_ metric: PrometheusRegistry.Snapshot, _ start: UInt64, _ now: UInt64) -> JSONValue {
        let points = JSONValue.array(metric.points.map { point($0.dimensions, $0.point, start, now) })
        var document = JSONObject()
        document["name"] = .string(metric.name)
        document["description"] = metric.help.map(JSONValue.string)
        if metric.name.hasSuffix("_seconds") { document["unit"] = "s" }
        switch metric.kind {
        case .counter: document["sum"] = ["dataPoints": points, "aggregationTemporality": cumulative, "isMonotonic": true]
        case .gauge: document["gauge"] = ["dataPoints": points]
        case .histogram: document["histogram"] = ["dataPoints": points, "aggregationTemporality": cumulative]
        }
        return .object(document)
    }

    private static func point(_ dimensions: [(String, String)], _ point: MetricPoint, _ start: UInt64, _ now: UInt64) -> JSONValue {
        var document = JSONObject()
        document["attributes"] = attributes(dimensions.map { ($0.0, $0.1) })
        document["startTimeUnixNano"] = text(start)
        document["timeUnixNano"] = text(now)
        switch point {
        case .whole(let value): document["asInt"] = text(value)
        case .number(let value): document["asDouble"] = number(value)
        case .histogram(let bounds, let counts, let sum):
            document["count"] = text(counts.reduce(0, +))
            document["sum"] = number(sum)
            document["bucketCounts"] = .array(counts.map(text))
            document["explicitBounds"] = .array(bounds.map(number))
        }
        return .object(document)
    }

    /// What is not finite is a text in Protocol Buffers' JSON.
    private static func number(_ value: Double) -> JSONValue {
        JSONNumber(value).map(JSONValue.number) ?? .string(value.isNaN ? "NaN" : value > 0 ? "Infinity" : "-Infinity")
    }
}
