internal import CoreMetrics
internal import SemelCore
internal import Synchronization

enum SeriesKind: String { case counter, gauge, histogram }

/// One time series: a metric with its labels.
protocol Series: AnyObject, Sendable {
    static var kind: SeriesKind { get }
    func write(_ name: String, _ labels: String, to text: inout String)
    var point: MetricPoint { get }
}

/// What a series shows at one moment.
enum MetricPoint: Sendable {
    case whole(Int64)
    case number(Double)
    /// One count for each bound, not cumulative, and one for what is above all of them.
    case histogram(bounds: [Double], counts: [UInt64], sum: Double)
}

final class CounterSeries: Series, CounterHandler {
    static let kind = SeriesKind.counter
    private let value = Atomic<Int64>(0)

    /// Stays at the largest number instead of beginning anew below zero.
    func increment(by amount: Int64) {
        let (_, sum) = value.wrappingAdd(amount, ordering: .relaxed)
        if sum < 0 { value.store(.max, ordering: .relaxed) }
    }

    func reset() { value.store(0, ordering: .relaxed) }

    func write(_ name: String, _ labels: String, to text: inout String) {
        text += "\(name)\(labels) \(value.load(ordering: .relaxed))\n"
    }

    var point: MetricPoint { .whole(value.load(ordering: .relaxed)) }
}

final class FloatingPointCounterSeries: Series, FloatingPointCounterHandler {
    static let kind = SeriesKind.counter
    private let value = AtomicDouble()

    func increment(by amount: Double) {
        if amount > 0 { value.add(amount) }
    }

    func reset() { value.store(0) }

    func write(_ name: String, _ labels: String, to text: inout String) {
        text += "\(name)\(labels) \(PrometheusText.number(value.load()))\n"
    }

    var point: MetricPoint { .number(value.load()) }
}

/// A gauge; also a recorder that does not aggregate, which shows the last value.
final class GaugeSeries: Series, MeterHandler, RecorderHandler {
    static let kind = SeriesKind.gauge
    private let value = AtomicDouble()

    func set(_ number: Int64) { value.store(Double(number)) }
    func set(_ number: Double) { value.store(number) }
    func increment(by amount: Double) { value.add(amount) }
    func decrement(by amount: Double) { value.add(-amount) }
    func record(_ number: Int64) { value.store(Double(number)) }
    func record(_ number: Double) { value.store(number) }

    func write(_ name: String, _ labels: String, to text: inout String) {
        text += "\(name)\(labels) \(PrometheusText.number(value.load()))\n"
    }

    var point: MetricPoint { .number(value.load()) }
}

/// Cumulative buckets, their sum and count, taken together so that they always agree.
final class HistogramSeries: Series, RecorderHandler, TimerHandler {
    static let kind = SeriesKind.histogram
    static let durationBounds = [
        0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
    ]
    static let sizeBounds: [Double] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]

    private struct State {
        /// One for each bound, and one for what is above all of them.
        var counts: [UInt64]
        var sum = 0.0
    }

    private let bounds: [Double]
    private let state: Locked<State>

    init(bounds: [Double]) {
        self.bounds = bounds
        state = Locked(State(counts: Array(repeating: 0, count: bounds.count + 1)))
    }

    func record(_ value: Int64) { record(Double(value)) }

    func record(_ value: Double) {
        guard !value.isNaN else { return }
        let index = bounds.firstIndex { value <= $0 } ?? bounds.count
        state.withLock { state in
            state.counts[index] += 1
            state.sum += value
        }
    }

    func recordNanoseconds(_ duration: Int64) { record(Double(duration) / 1e9) }

    var point: MetricPoint {
        let (counts, sum) = state.withLock { ($0.counts, $0.sum) }
        return .histogram(bounds: bounds, counts: counts, sum: sum)
    }

    func write(_ name: String, _ labels: String, to text: inout String) {
        let (counts, sum) = state.withLock { ($0.counts, $0.sum) }
        var total: UInt64 = 0
        for (bound, count) in zip(bounds.map(PrometheusText.number) + ["+Inf"], counts) {
            total += count
            text += "\(name)_bucket\(PrometheusText.labels(labels, adding: "le", bound)) \(total)\n"
        }
        text += "\(name)_sum\(labels) \(PrometheusText.number(sum))\n\(name)_count\(labels) \(total)\n"
    }
}

/// A floating-point number that many threads add to.
private final class AtomicDouble: Sendable {
    private let bits = Atomic<UInt64>(0)

    func load() -> Double { Double(bitPattern: bits.load(ordering: .relaxed)) }

    func store(_ value: Double) { bits.store(value.bitPattern, ordering: .relaxed) }

    func add(_ amount: Double) {
        var current = bits.load(ordering: .relaxed)
        while true {
            let (exchanged, original) = bits.weakCompareExchange(
                expected: current, desired: (Double(bitPattern: current) + amount).bitPattern, ordering: .relaxed)
            if exchanged { return }
            current = original
        }
    }
}
