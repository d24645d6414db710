import Foundation
import Semel
import Testing

@testable import SemelServer

/// OpenTelemetry over OTLP/HTTP. The collector is a double: an HTTP service that keeps what it is sent.
@Suite("OpenTelemetry")
struct TelemetryTests {
    private static func spans(_ requests: [ServiceDouble.Received]) -> [JSONValue] {
        requests.filter { $0.path == "/v1/traces" }.flatMap { $0.json["resourceSpans"]?[0]?["scopeSpans"]?[0]?["spans"]?.array ?? [] }
    }

    private static func attributes(_ value: JSONValue?) -> [String: JSONValue] {
        var attributes: [String: JSONValue] = [:]
        for attribute in value?["attributes"]?.array ?? [] {
            attributes[attribute["key"]?.string ?? ""] = attribute["value"]?.object?.members.first?.value
        }
        return attributes
    }

    @Test("a span for each attempt, and every metric, reach the collector; what waits is sent at the end")
    func exports() async throws {
        let upstream = try await ObservabilityTests.upstream()
        let collector = try await ServiceDouble { _ in (200, "{}") }
        try await withTemporaryFolder { folder in
            let server = try await SemelProcess(
                ObservabilityTests.configuration(upstream.port), in: folder,
                environment: [
                    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:\(collector.port)/",
                    "OTEL_EXPORTER_OTLP_HEADERS": "x-api-key=a%20secret",
                    "OTEL_SERVICE_NAME": "gateway", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test",
                    "OTEL_METRIC_EXPORT_INTERVAL": "50",
                    // Spans are sent at the end only.
                    "OTEL_BSP_SCHEDULE_DELAY": "600000",
                ])
            let trace = "4bf92f3577b34da6a3ce929d0e0e4736"
            #expect(
                try await server.pay("/pay/201", key: "visible-key-1", [("traceparent", "00-\(trace)-00f067aa0ba902b7-01")]).status == 201)
            #expect(try await server.pay("/pay/500", key: "visible-key-2").status == 500)
            #expect(
                try await server.pay("/pay/201", key: "visible-key-3", [("traceparent", "00-\(trace)-00f067aa0ba902b7-00")]).status == 201)
            try await eventually(
                { collector.received.contains { $0.path == "/v1/metrics" && $0.head.body.contains("semel_operations_total") } },
                "metrics are sent in time")
            #expect(Self.spans(collector.received).isEmpty)
            #expect(await server.end() == 0)

            // The third was not sampled by whoever began the trace.
            let spans = Self.spans(collector.received)
            #expect(spans.count == 2)
            let first = try #require(spans.first { $0["traceId"]?.string == trace })
            #expect(first["parentSpanId"] == "00f067aa0ba902b7" && first["name"] == "pay" && first["kind"] == 2)
            let sent = try #require(TraceContext(traceparent: upstream.received[0].head.field("traceparent") ?? ""))
            #expect(first["spanId"]?.string == sent.spanText, "the span is the one the upstream was told of")
            let start = try #require(first["startTimeUnixNano"]?.string.flatMap { UInt64($0) }),
                end = try #require(first["endTimeUnixNano"]?.string.flatMap { UInt64($0) })
            #expect(start <= end && abs(Double(end) / 1e9 - Date().timeIntervalSince1970) < 300)
            let about = Self.attributes(first)
            #expect(about["semel.scene"] == "pay" && about["semel.outcome"] == "completed" && about["retry.attempt"] == "1")
            #expect(about["http.response.status_code"] == "201" && about["semel.operation"]?.string?.hasPrefix("op_") == true)
            #expect(UInt64(about["semel.epoch"]?.string ?? "") != nil)
            let amiss = try #require(spans.first { $0["traceId"]?.string != trace })
            #expect(amiss["status"]?["code"] == 2 && Self.attributes(amiss)["semel.reason"] == "status-500" && amiss["parentSpanId"] == nil)

            let last = try #require(collector.received.last { $0.path == "/v1/metrics" })
            #expect(last.head.field("content-type") == "application/json" && last.head.field("x-api-key") == "a secret")
            let resource = Self.attributes(last.json["resourceMetrics"]?[0]?["resource"])
            #expect(resource["service.name"] == "gateway" && resource["deployment.environment"] == "test")
            let metrics = last.json["resourceMetrics"]?[0]?["scopeMetrics"]?[0]?["metrics"]?.array ?? []
            let total = try #require(metrics.first { $0["name"] == "semel_operations_total" })
            #expect(total["sum"]?["isMonotonic"] == true && total["sum"]?["aggregationTemporality"] == 2)
            let point = total["sum"]?["dataPoints"]?.array?.first {
                Self.attributes($0)["outcome"] == "completed" && Self.attributes($0)["scene"] == "pay"
            }
            #expect(point?["asInt"] == "2")
            let duration = try #require(metrics.first { $0["name"] == "semel_claim_duration_seconds" })
            let histogram = duration["histogram"]?["dataPoints"]?[0]
            let counts = (histogram?["bucketCounts"]?.array ?? []).compactMap { $0.string.flatMap { Int($0) } }
            #expect(duration["unit"] == "s" && counts.count == (histogram?["explicitBounds"]?.array?.count ?? 0) + 1)
            #expect(histogram?["count"]?.string == String(counts.reduce(0, +)))
            #expect(metrics.contains { $0["name"] == "semel_degraded" && $0["gauge"]?["dataPoints"]?[0]?["asDouble"]?.number != nil })
            for request in collector.received { #expect(!request.head.body.contains("visible-key")) }
        }
    }

    @Test(
        "a collector that is away costs no request anything; what does not fit is dropped and counted, and the rest is sent once it is back"
    )
    func away() async throws {
        let upstream = try await ObservabilityTests.upstream()
        let isBack = Locked(false)
        let collector = try await ServiceDouble { _ in
            isBack.withLock { $0 } ? (200, #"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"no"}}"#) : (503, "")
        }
        try await withTemporaryFolder { folder in
            let server = try await SemelProcess(
                ObservabilityTests.configuration(upstream.port), in: folder,
                environment: [
                    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:\(collector.port)/otlp/v1/traces",
                    "OTEL_BSP_SCHEDULE_DELAY": "10",
                    "OTEL_BSP_MAX_QUEUE_SIZE": "4", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2",
                ])
            for number in 0..<20 { #expect(try await server.pay("/pay/201", key: "k\(number)").status == 201) }
            try await eventually({ try await server.metrics()[#"semel_degraded{component="telemetry"}"#] == 1 }, "the failure is seen")
            let dropped = try await server.metrics()[#"semel_telemetry_dropped_total{reason="queue-full"}"#] ?? 0
            // One batch is under way, four wait.
            #expect((14...16).contains(dropped), "\(dropped)")
            isBack.withLock { $0 = true }
            try await eventually({ try await server.metrics()[#"semel_degraded{component="telemetry"}"#] == 0 }, "it is back")
            try await eventually(
                { try await server.metrics()[#"semel_telemetry_dropped_total{reason="refused"}"#] ?? 0 >= 2 },
                "what the collector rejects is counted")
            #expect(collector.received.allSatisfy { $0.path == "/otlp/v1/traces" })
            #expect(await server.end() == 0)
            let lines = try server.log.filter { $0["step"] == "telemetry" }
            #expect(lines.map { $0["level"]?.string } == ["warning", "info"], "the change is told once")
        }
    }

    @Test("nobody listens at the collector's address: the server starts, answers and ends as ever")
    func absent() async throws {
        let upstream = try await ObservabilityTests.upstream()
        let port = try RefusingPort()
        try await withTemporaryFolder { folder in
            let server = try await SemelProcess(
                ObservabilityTests.configuration(upstream.port), in: folder,
                environment: ["OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:\(port.number)"])
            for number in 0..<10 { #expect(try await server.pay("/pay/201", key: "k\(number)").status == 201) }
            #expect(await server.end() == 0)
        }
    }

    @Test("what cannot be used is refused at the start, and what is switched off is off")
    func variables() throws {
        func read(_ variables: [String: String]) throws -> TelemetryConfiguration? { try TelemetryConfiguration(environment: variables) }
        let base = ["OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"]
        #expect(try read([:]) == nil && read(["OTEL_EXPORTER_OTLP_ENDPOINT": ""]) == nil)
        #expect(try read(base.merging(["OTEL_SDK_DISABLED": "TRUE"]) { $1 }) == nil)
        let configuration = try #require(try read(base))
        #expect(configuration.traces == "http://collector:4318/v1/traces" && configuration.metrics == "http://collector:4318/v1/metrics")
        #expect(configuration.resource.map(\.value) == ["semel"])
        let some = try #require(try read(base.merging(["OTEL_METRICS_EXPORTER": "none"]) { $1 }))
        #expect(some.metrics == nil && some.traces != nil)
        for (name, value) in [
            ("EXPORTER_OTLP_ENDPOINT", "collector:4318"), ("EXPORTER_OTLP_PROTOCOL", "grpc"), ("EXPORTER_OTLP_HEADERS", "secret"),
            ("BSP_MAX_QUEUE_SIZE", "0"), ("EXPORTER_OTLP_TIMEOUT", "10s"), ("TRACES_EXPORTER", "zipkin"),
        ] {
            let error = #expect(throws: StartupError.self, "\(name)") { try read(base.merging(["OTEL_" + name: value]) { $1 }) }
            #expect(
                error?.exitCode == .configuration && error?.problem.contains("OTEL_\(name)") == true
                    && error?.description.contains("secret") == false)
        }
    }
}
