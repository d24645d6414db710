import CoreMetrics
import Semel

/// Keeps what is recorded, of whatever name.
final class CountingFactory: MetricsFactory {
    private final class Handler: CounterHandler, RecorderHandler, TimerHandler, Sendable {
        let record: @Sendable (Int64) -> Void
        init(_ record: @escaping @Sendable (Int64) -> Void) { self.record = record }
        func increment(by amount: Int64) { record(amount) }
        func reset() {}
        func record(_ value: Int64) { record(value) }
        func record(_ value: Double) { record(Int64(value)) }
        func recordNanoseconds(_ duration: Int64) {}
    }

    private let recorded = Locked([Int64]())
    private let counted = Locked([[String]: Int64]())
    var values: [Int64] { recorded.withLock { $0 } }

    /// A counter by its label and the values of its dimensions.
    func count(_ label: String, _ values: [String]) -> Int { counted.withLock { Int($0[[label] + values] ?? 0) } }

    func makeCounter(label: String, dimensions: [(String, String)]) -> any CounterHandler {
        Handler { [counted] amount in counted.withLock { $0[[label] + dimensions.map(\.1), default: 0] += amount } }
    }
    func makeRecorder(label: String, dimensions: [(String, String)], aggregate: Bool) -> any RecorderHandler {
        Handler { [recorded] value in recorded.withLock { $0.append(value) } }
    }
    func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler { Handler { _ in } }
    func destroyCounter(_ handler: any CounterHandler) {}
    func destroyRecorder(_ handler: any RecorderHandler) {}
    func destroyTimer(_ handler: any TimerHandler) {}
}
