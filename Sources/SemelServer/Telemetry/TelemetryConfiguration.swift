internal import Foundation
internal import Semel

/// Where OpenTelemetry data is sent, from the variables that its specification names.
struct TelemetryConfiguration: Sendable {
    var traces: String?
    var metrics: String?
    var headers: [(name: String, value: String)] = []
    var resource: [(name: String, value: String)] = []
    var timeout = Duration.seconds(10)
    var spanDelay = Duration.seconds(5)
    var metricInterval = Duration.seconds(60)
    var queueLimit = 2048
    var batch = 512

    /// `nil` when no collector is named, or all is switched off.
    /// - Throws: ``StartupError`` for a value that cannot be used: better no start than a silence nobody notices.
    init?(environment variables: [String: String]) throws(StartupError) {
        func value(_ name: String) -> String? { variables["OTEL_" + name].flatMap { $0.isEmpty ? nil : $0 } }
        func refuse(_ name: String, _ why: String, _ remedy: String) -> StartupError {
            StartupError(.configuration, "OTEL_\(name): \(why).", remedy: remedy)
        }
        func number(_ name: String, in range: ClosedRange<Int>) throws(StartupError) -> Int? {
            guard let text = value(name) else { return nil }
            guard let number = Int(text), range.contains(number) else {
                throw refuse(
                    name, "`\(text)` is not a whole number from \(range.lowerBound) to \(range.upperBound)", "correct it, or unset it")
            }
            return number
        }
        func pairs(_ name: String) throws(StartupError) -> [(name: String, value: String)] {
            var pairs: [(String, String)] = []
            for item in (value(name) ?? "").split(separator: ",") {
                let parts = item.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                let texts = parts.compactMap { $0.trimmingCharacters(in: .whitespaces).removingPercentEncoding }
                // The value may be a credential: it is not shown.
                guard texts.count == 2, !texts[0].isEmpty else {
                    throw refuse(name, "it is not a list of NAME=VALUE with commas between", "correct it, or unset it")
                }
                pairs.append((texts[0], texts[1]))
            }
            return pairs
        }
        func url(_ name: String) throws(StartupError) -> String? {
            guard let text = value(name) else { return nil }
            guard let url = URL(string: text), url.scheme == "http" || url.scheme == "https", url.host?.isEmpty == false else {
                throw refuse(
                    name, "`\(text)` is not an http or https URL",
                    "write the collector's address for OTLP over HTTP, such as http://127.0.0.1:4318")
            }
            return text
        }

        guard value("SDK_DISABLED")?.lowercased() != "true" else { return nil }
        let base = try url("EXPORTER_OTLP_ENDPOINT").map { $0.hasSuffix("/") ? String($0.dropLast()) : $0 }
        traces = try url("EXPORTER_OTLP_TRACES_ENDPOINT") ?? base.map { $0 + "/v1/traces" }
        metrics = try url("EXPORTER_OTLP_METRICS_ENDPOINT") ?? base.map { $0 + "/v1/metrics" }
        for (signal, url) in [("TRACES", \TelemetryConfiguration.traces), ("METRICS", \.metrics)] {
            switch value("\(signal)_EXPORTER") {
            case nil, "otlp": break
            case "none": self[keyPath: url] = nil
            case .some(let other): throw refuse("\(signal)_EXPORTER", "`\(other)` is not known here", "use otlp or none")
            }
        }
        guard traces != nil || metrics != nil else { return nil }
        // What a collector takes over HTTP it takes as JSON too (OTLP 1, OTLP/HTTP); gRPC is another protocol on another port.
        if let text = value("EXPORTER_OTLP_PROTOCOL"), text != "http/json", text != "http/protobuf" {
            throw refuse(
                "EXPORTER_OTLP_PROTOCOL", "`\(text)` is not spoken here", "use http/json, and the collector's port for OTLP over HTTP")
        }
        headers = try pairs("EXPORTER_OTLP_HEADERS")
        resource = try pairs("RESOURCE_ATTRIBUTES")
        if let name = value("SERVICE_NAME") { resource = resource.filter { $0.name != "service.name" } + [("service.name", name)] }
        if !resource.contains(where: { $0.name == "service.name" }) { resource.append(("service.name", "semel")) }
        if let milliseconds = try number("EXPORTER_OTLP_TIMEOUT", in: 1...600_000) { timeout = .milliseconds(milliseconds) }
        if let milliseconds = try number("BSP_SCHEDULE_DELAY", in: 1...600_000) { spanDelay = .milliseconds(milliseconds) }
        if let milliseconds = try number("METRIC_EXPORT_INTERVAL", in: 1...86_400_000) { metricInterval = .milliseconds(milliseconds) }
        queueLimit = try number("BSP_MAX_QUEUE_SIZE", in: 1...1_000_000) ?? queueLimit
        batch = min(try number("BSP_MAX_EXPORT_BATCH_SIZE", in: 1...100_000) ?? batch, queueLimit)
    }
}
