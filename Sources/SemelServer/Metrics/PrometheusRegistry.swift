package import CoreMetrics
internal import SemelCore

/// A backend of swift-metrics that keeps every series in memory and writes them in Prometheus' text format, version 0.0.4.
///
/// Counting never takes the registry's lock: counters and gauges are one atomic each, a histogram has a lock of its own.
/// Series live as long as the registry. A name that is registered as two kinds is written as the first; so that no caller
/// can fill the memory, the handles of series beyond ``seriesLimit`` count into nothing.
package final class PrometheusRegistry: MetricsFactory {
    package static let contentType = "text/plain; version=0.0.4; charset=utf-8"
    static let seriesLimit = 10_000

    private struct State {
        var families: [String: Family] = [:]
        var count = 0
    }

    private struct Family {
        var kind: SeriesKind
        /// By their label text.
        var series: [String: any Series] = [:]
        var dimensions: [String: [(String, String)]] = [:]
    }

    private let state = Locked(State())
    private let help: [String: String]

    /// - Parameter help: one sentence for each metric that has one, by name.
    package init(help: [String: String] = [:]) {
        self.help = help
    }

    /// Every series, sorted by name and labels.
    package func exposition() -> String {
        let families = state.withLock { $0.families }
        var text = ""
        for (name, family) in families.sorted(by: { $0.key < $1.key }) {
            if let help = help[name] { text += "# HELP \(name) \(PrometheusText.escapedHelp(help))\n" }
            text += "# TYPE \(name) \(family.kind.rawValue)\n"
            for (labels, series) in family.series.sorted(by: { $0.key < $1.key }) { series.write(name, labels, to: &text) }
        }
        return text
    }

    /// A metric with all its series, for exporters in other forms than the text.
    struct Snapshot: Sendable {
        var name: String
        var help: String?
        var kind: SeriesKind
        var points: [(dimensions: [(String, String)], point: MetricPoint)]
    }

    /// Every series as it stands now, sorted by name and labels.
    func snapshot() -> [Snapshot] {
        state.withLock { $0.families }.sorted { $0.key < $1.key }.map { name, family in
            Snapshot(
                name: name, help: help[name], kind: family.kind,
                points: family.series.sorted { $0.key < $1.key }.map { (family.dimensions[$0.key] ?? [], $0.value.point) })
        }
    }

    private func series<Kind: Series>(_ name: String, _ dimensions: [(String, String)], _ make: () -> Kind) -> Kind {
        let labels = PrometheusText.labels(dimensions)
        return state.withLock { state in
            if let found = state.families[name]?.series[labels] as? Kind { return found }
            let made = make()
            guard state.count < Self.seriesLimit, state.families[name].map({ $0.kind == Kind.kind && $0.series[labels] == nil }) ?? true else { return made }
            state.families[name, default: Family(kind: Kind.kind)].series[labels] = made
            state.families[name]?.dimensions[labels] = dimensions
            state.count += 1
            return made
        }
    }

    // MARK: MetricsFactory

    package func makeCounter(label: String, dimensions: [(String, String)]) -> any CounterHandler {
        series(PrometheusText.name(label), dimensions, CounterSeries.init)
    }

    package func makeFloatingPointCounter(label: String, dimensions: [(String, String)]) -> any FloatingPointCounterHandler {
        series(PrometheusText.name(label), dimensions, FloatingPointCounterSeries.init)
    }

    package func makeMeter(label: String, dimensions: [(String, String)]) -> any MeterHandler {
        series(PrometheusText.name(label), dimensions, GaugeSeries.init)
    }

    package func makeRecorder(label: String, dimensions: [(String, String)], aggregate: Bool) -> any RecorderHandler {
        let name = PrometheusText.name(label)
        if !aggregate { return series(name, dimensions, GaugeSeries.init) }
        return series(name, dimensions) { HistogramSeries(bounds: name.hasSuffix("_seconds") ? HistogramSeries.durationBounds : HistogramSeries.sizeBounds) }
    }

    package func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler {
        // The unit is part of the name.
        var name = PrometheusText.name(label)
        if !name.hasSuffix("_seconds") { name += "_seconds" }
        return series(name, dimensions) { HistogramSeries(bounds: HistogramSeries.durationBounds) }
    }

    // A series outlives its handles: its sum is still asked for.
    package func destroyCounter(_ handler: any CounterHandler) {}
    package func destroyFloatingPointCounter(_ handler: any FloatingPointCounterHandler) {}
    package func destroyMeter(_ handler: any MeterHandler) {}
    package func destroyRecorder(_ handler: any RecorderHandler) {}
    package func destroyTimer(_ handler: any TimerHandler) {}
}

/// The text format's lexical rules.
enum PrometheusText {
    /// A metric's name: letters, digits, `_` and `:`, beginning with no digit. Other characters become `_`.
    static func name(_ label: String) -> String { clean(label, isColonAllowed: true) }

    static func labels(_ dimensions: [(String, String)]) -> String {
        if dimensions.isEmpty { return "" }
        let sorted = dimensions.map { (clean($0.0, isColonAllowed: false), $0.1) }.sorted { $0.0 < $1.0 }
        return "{" + sorted.map { "\($0.0)=\"\(escapedValue($0.1))\"" }.joined(separator: ",") + "}"
    }

    /// The labels and one more.
    static func labels(_ labels: String, adding name: String, _ value: String) -> String {
        labels.isEmpty ? "{\(name)=\"\(value)\"}" : "\(labels.dropLast()),\(name)=\"\(value)\"}"
    }

    static func escapedHelp(_ text: String) -> String { text.replacing("\\", with: "\\\\").replacing("\n", with: "\\n") }

    static func escapedValue(_ text: String) -> String { escapedHelp(text).replacing("\"", with: "\\\"") }

    /// A whole number without a fraction.
    static func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value > 0 ? "+Inf" : "-Inf" }
        return value == value.rounded() && abs(value) < 1e15 ? String(Int64(value)) : "\(value)"
    }

    private static func clean(_ text: String, isColonAllowed: Bool) -> String {
        var clean = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "a"..."z", "A"..."Z", "_": clean.unicodeScalars.append(scalar)
            case "0"..."9": clean += clean.isEmpty ? "_\(scalar)" : "\(scalar)"
            case ":" where isColonAllowed: clean += ":"
            default: clean += "_"
            }
        }
        return clean.isEmpty ? "_" : clean
    }
}
