import CoreMetrics
import Metrics
import Semel
import Testing

@testable import SemelServer

@Suite("Metrics in the Prometheus text format")
struct PrometheusRegistryTests {
    @Test("counters, gauges and histograms are written sorted, with HELP and TYPE")
    func exposition() {
        let registry = PrometheusRegistry(help: ["b_total": "Counts b.\nTwo lines \\ and a backslash.", "d_seconds": "Times d."])
        let b = Counter(label: "b_total", dimensions: [("z", "1"), ("a", "2")], factory: registry)
        b.increment(by: 3)
        Counter(label: "b_total", dimensions: [("a", "1")], factory: registry).increment()
        let gauge = Meter(label: "a", factory: registry)
        gauge.set(2.5)
        gauge.increment(by: 1)
        let timer = Metrics.Timer(label: "d", factory: registry)
        timer.recordNanoseconds(200_000)
        timer.recordNanoseconds(20_000_000_000)
        let text = registry.exposition()
        #expect(
            text.hasPrefix(
                """
                # TYPE a gauge
                a 3.5
                # HELP b_total Counts b.\\nTwo lines \\\\ and a backslash.
                # TYPE b_total counter
                b_total{a="1"} 1
                b_total{a="2",z="1"} 3
                # HELP d_seconds Times d.
                # TYPE d_seconds histogram
                d_seconds_bucket{le="0.0001"} 0
                d_seconds_bucket{le="0.00025"} 1

                """))
        #expect(text.hasSuffix("d_seconds_bucket{le=\"10\"} 1\nd_seconds_bucket{le=\"+Inf\"} 2\nd_seconds_sum 20.0002\nd_seconds_count 2\n"))
    }

    @Test("every line is of the format's grammar, whatever names and labels hold")
    func grammar() throws {
        let registry = PrometheusRegistry()
        Counter(label: "9 strange-näme", dimensions: [("la bel", "quote \" slash \\ line\nfeed ü"), ("2nd", "")], factory: registry).increment()
        Recorder(label: "sizes", dimensions: [("s", "x")], aggregate: true, factory: registry).record(Int64(3))
        Recorder(label: "last", dimensions: [], aggregate: false, factory: registry).record(1e300)
        FloatingPointCounter(label: "fp", factory: registry).increment(by: 0.25)
        Meter(label: "inf", factory: registry).set(-Double.infinity)
        let sample = #/[a-zA-Z_:][a-zA-Z0-9_:]*(\{[a-zA-Z_][a-zA-Z0-9_]*="([^"\\\n]|\\["\\n])*"(,[a-zA-Z_][a-zA-Z0-9_]*="([^"\\\n]|\\["\\n])*")*\})? ([-+]?[0-9.]+(e[-+]?[0-9]+)?|[-+]Inf|NaN)/#
        let comment = #/# (HELP|TYPE) [a-zA-Z_:][a-zA-Z0-9_:]* .+/#
        let lines = registry.exposition().split(separator: "\n")
        #expect(lines.count == 23)
        for line in lines { #expect(try sample.wholeMatch(in: line) != nil || comment.wholeMatch(in: line) != nil, "\(line)") }
        #expect(lines.contains(#"_9_strange_n_me{_2nd="",la_bel="quote \" slash \\ line\nfeed ü"} 1"#))
    }

    @Test("the same labels in another order are the same series, and a name is written as one kind only")
    func identity() {
        let registry = PrometheusRegistry()
        Counter(label: "c", dimensions: [("a", "1"), ("b", "2")], factory: registry).increment()
        Counter(label: "c", dimensions: [("b", "2"), ("a", "1")], factory: registry).increment()
        Meter(label: "c", dimensions: [("a", "1")], factory: registry).set(7)
        #expect(registry.exposition() == "# TYPE c counter\nc{a=\"1\",b=\"2\"} 2\n")
    }

    @Test("series beyond the limit count into nothing instead of filling the memory")
    func bounded() {
        let registry = PrometheusRegistry()
        for number in 0..<PrometheusRegistry.seriesLimit + 500 { Counter(label: "c", dimensions: [("n", "\(number)")], factory: registry).increment() }
        #expect(registry.exposition().split(separator: "\n").count == PrometheusRegistry.seriesLimit + 1)
    }

    @Test("nothing is lost when many tasks count at once, and a histogram's count is the last of its buckets")
    func concurrent() async {
        let registry = PrometheusRegistry()
        let metrics = SemelMetrics(factory: registry)
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    let scene = metrics.scene("s")
                    let store = metrics.store("memory")
                    for _ in 0..<2000 {
                        scene.claimed(.claimed)
                        scene.started(attempt: 1)
                        scene.ended(.completed)
                        store.claim(took: .microseconds(300))
                    }
                }
            }
            group.addTask { for _ in 0..<50 { _ = registry.exposition() } }
        }
        let text = registry.exposition()
        #expect(text.contains("semel_claims_total{result=\"claimed\",scene=\"s\"} 16000\n"))
        #expect(text.contains("semel_in_progress{scene=\"s\"} 0\n"))
        #expect(text.contains("semel_operations_total{outcome=\"completed\",scene=\"s\"} 16000\n"))
        #expect(text.contains("semel_claim_duration_seconds_bucket{store=\"memory\",le=\"+Inf\"} 16000\n"))
        #expect(text.contains("semel_claim_duration_seconds_count{store=\"memory\"} 16000\n"))
    }

    @Test("the documented names are all there, each with its help")
    func names() {
        let registry = PrometheusRegistry(help: SemelMetrics.descriptions)
        let metrics = SemelMetrics(factory: registry)
        let scene = metrics.scene("s")
        scene.reject("key-reused")
        scene.replay()
        scene.loseLease()
        scene.setUncertain(3)
        scene.started(attempt: 2)
        scene.started(attempt: 4_000_000_000)
        let store = metrics.store("sqlite")
        store.batch(of: 64)
        store.failed("full")
        metrics.setDegraded(true, component: "store")
        metrics.droppedSpans("queue-full").increment()
        metrics.optimisticLockFailed(operation: "pay", reason: .conflict)
        let text = registry.exposition()
        for name in SemelMetrics.descriptions.keys { #expect(text.contains("# HELP \(name) ") && text.contains("# TYPE \(name) "), "\(name)") }
        #expect(text.contains("semel_rejected_total{reason=\"key-reused\",scene=\"s\"} 1\n"))
        #expect(text.contains("semel_retries_total{attempt=\"2\",scene=\"s\"} 1\n"))
        #expect(text.contains("semel_retries_total{attempt=\"10+\",scene=\"s\"} 1\n"))
        #expect(text.contains("semel_store_batch_size_bucket{store=\"sqlite\",le=\"64\"} 1\n"))
        #expect(text.contains("semel_store_errors_total{kind=\"full\",store=\"sqlite\"} 1\n"))
        #expect(text.contains("semel_degraded{component=\"store\"} 1\n"))
        #expect(text.contains("semel_uncertain{scene=\"s\"} 3\n"))
    }

    @Test("a metered store counts claims by scene and answer")
    func meteredStore() async throws {
        let registry = PrometheusRegistry()
        let store = MeteredStore(MemoryStore(), metrics: SemelMetrics(factory: registry), uptime: Environment.live.uptime)
        let request = ClaimRequest(
            id: OperationID(scope: Scope("t"), key: try OperationKey("k")), fingerprint: Fingerprint(of: [1]), owner: Owner(high: 1, low: 1),
            lease: .seconds(30), onLapse: .reclaim, policy: PinnedPolicy(scene: "payments", text: ""))
        var other = request
        other.owner = Owner(high: 2, low: 2)
        _ = try await store.claim([request, other])
        let text = registry.exposition()
        #expect(text.contains("semel_claims_total{result=\"claimed\",scene=\"payments\"} 1\n"))
        #expect(text.contains("semel_claims_total{result=\"in_progress\",scene=\"payments\"} 1\n"))
        #expect(text.contains("semel_claim_duration_seconds_count{store=\"memory\"} 1\n"))
    }
}
