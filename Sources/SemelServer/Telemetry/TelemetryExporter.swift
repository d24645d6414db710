internal import AsyncHTTPClient
internal import CoreMetrics
internal import Foundation
internal import Logging
internal import NIOCore
internal import NIOHTTP1
internal import Semel
internal import ServiceLifecycle

/// Sends spans and metrics to an OpenTelemetry collector by OTLP over HTTP, in the JSON encoding.
///
/// It stands beside the requests' path: an attempt that ends leaves a span in a bounded queue, and nothing waits for the
/// collector. While that is away the latest batch is tried again, ever more rarely, the queue fills, and further spans are
/// dropped and counted (`semel_telemetry_dropped_total{reason}`, `semel_degraded{component="telemetry"}`). Metrics are
/// cumulative: of those, nothing is lost by a failure.
///
/// On a graceful shutdown what waits is sent, for a few seconds at most. A crash loses it. A batch whose answer was lost is
/// sent again, so a collector may see a span twice, under the same id.
package final class TelemetryExporter: Service {
    package let spans: SpanQueue

    private let configuration: TelemetryConfiguration
    private let registry: PrometheusRegistry
    private let metrics: SemelMetrics
    private let environment: Semel.Environment
    private let logger: Logger
    private let client: HTTPClient
    private let start = TelemetryExporter.now()
    private let refused: Counter
    private let unsent = Locked<[OperationSpan]>([])
    private let failing = Locked<Set<Signal>>([])

    private enum Signal: String { case traces, metrics }

    private static let shutdownLimit = Duration.seconds(3)
    private static let longestPause = Duration.seconds(60)

    init(
        _ configuration: TelemetryConfiguration, registry: PrometheusRegistry, metrics: SemelMetrics, environment: Semel.Environment,
        logger: Logger
    ) {
        self.configuration = configuration
        self.registry = registry
        self.metrics = metrics
        self.environment = environment
        self.logger = logger
        refused = metrics.droppedSpans("refused")
        spans = SpanQueue(limit: configuration.queueLimit, batch: configuration.batch, dropped: metrics.droppedSpans("queue-full"))
        client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: .init(redirectConfiguration: .disallow))
        metrics.setDegraded(false, component: "telemetry")
    }

    package func run() async throws {
        await cancelWhenGracefulShutdown { await self.exportUntilCancelled() }
        await environment.firstOf(sleeping: Self.shutdownLimit) { [self] in
            while await exportBatch() {}
            _ = await exportMetrics()
        }
        let left = unsent.withLock { $0.count } + (spans.isEmpty ? 0 : spans.take().count)
        if left > 0 { logger.warning("Spans were not sent before the end: the collector did not take them.") }
        try await client.shutdown()
    }

    private func exportUntilCancelled() async {
        var nextMetrics = environment.uptime() + configuration.metricInterval
        var nextSpans = environment.uptime() + configuration.spanDelay
        var pause = Duration.seconds(1)
        while !Task.isCancelled {
            if failing.withLock({ !$0.isEmpty }) {
                // With jitter, so that many gateways do not come back at one time.
                let share = Double(environment.random() % 1024) / 1024
                try? await environment.clock.sleep(for: pause / 2 + pause / 2 * share)
                pause = min(pause * 2, Self.longestPause)
            } else {
                let rest = max(min(nextSpans, nextMetrics) - environment.uptime(), .zero)
                await environment.firstOf(sleeping: rest) { [spans] in await spans.filled() }
                pause = .seconds(1)
            }
            if spans.isFull || environment.uptime() >= nextSpans {
                while !Task.isCancelled, await exportBatch() {}
                nextSpans = environment.uptime() + configuration.spanDelay
            }
            if !Task.isCancelled, environment.uptime() >= nextMetrics {
                _ = await exportMetrics()
                nextMetrics = environment.uptime() + configuration.metricInterval
            }
        }
    }

    // MARK: One export

    /// Sends the batch that was not taken last time, or else the next one.
    /// - Returns: whether it is settled and there may be another.
    private func exportBatch() async -> Bool {
        guard let url = configuration.traces else { return false }
        let batch = unsent.withLock { unsent in
            if unsent.isEmpty { unsent = spans.take() }
            return unsent
        }
        guard !batch.isEmpty else { return false }
        switch await send(OTLPDocument.traces(batch, resource: configuration.resource), to: url, .traces) {
        case .taken(let rejected): if rejected > 0 { refused.increment(by: rejected) }
        case .refused: refused.increment(by: Int64(batch.count))
        case .again: return false
        }
        unsent.withLock { $0 = [] }
        return true
    }

    private func exportMetrics() async -> Bool {
        guard let url = configuration.metrics else { return false }
        let document = OTLPDocument.metrics(registry.snapshot(), from: start, to: Self.now(), resource: configuration.resource)
        if case .taken = await send(document, to: url, .metrics) { return true }
        return false
    }

    private enum Answer {
        /// With how many items the collector rejected all the same.
        case taken(rejected: Int64)
        /// Sending the same again is of no use.
        case refused
        case again
    }

    private func send(_ document: JSONValue, to url: String, _ signal: Signal) async -> Answer {
        var request = HTTPClientRequest(url: url)
        request.method = .POST
        request.headers = HTTPHeaders(configuration.headers.map { ($0.name, $0.value) })
        request.headers.replaceOrAdd(name: "Content-Type", value: "application/json")
        request.headers.replaceOrAdd(name: "User-Agent", value: "semel/\(Version.number)")
        request.body = .bytes(document.serialized())
        do {
            let response = try await client.execute(request, timeout: TimeAmount(configuration.timeout))
            let body = try await response.body.collect(upTo: 1 << 20)
            switch response.status.code {
            case 200..<300:
                settle(signal, nil)
                return .taken(rejected: Self.rejected(Array(buffer: body)))
            // Those, and no others, may be tried again (OTLP 1, Retryable Response Codes).
            case 429, 502, 503, 504:
                settle(signal, "it answered \(response.status.code)")
                return .again
            default:
                settle(signal, "it answered \(response.status.code), and what it refused is dropped")
                return .refused
            }
        } catch {
            if !Task.isCancelled { settle(signal, "\(error)") }
            return .again
        }
    }

    /// A partial success: 64-bit integers are strings, and zero may be left out.
    private static func rejected(_ body: [UInt8]) -> Int64 {
        let count = (try? JSONValue(parsing: body))?["partialSuccess"]?["rejectedSpans"]
        return count?.string.flatMap { Int64($0) } ?? count?.integer.map(Int64.init) ?? 0
    }

    /// Tells the change from working to failing and back, not every failure.
    private func settle(_ signal: Signal, _ failure: String?) {
        let (changed, isFailing) = failing.withLock { failing in
            let changed = failure == nil ? failing.remove(signal) != nil : failing.insert(signal).inserted
            return (changed, !failing.isEmpty)
        }
        metrics.setDegraded(isFailing, component: "telemetry")
        guard changed else { return }
        if let failure {
            logger.warning(
                "The OpenTelemetry collector does not take what is sent; requests are not affected.",
                metadata: ["reason": .string("\(signal.rawValue): \(failure)"), "step": "telemetry"])
        } else {
            logger.info(
                "The OpenTelemetry collector takes what is sent again.",
                metadata: ["reason": .string(signal.rawValue), "step": "telemetry"])
        }
    }

    private static func now() -> UInt64 { UInt64(max(0, Date().timeIntervalSince1970) * 1e9) }
}
