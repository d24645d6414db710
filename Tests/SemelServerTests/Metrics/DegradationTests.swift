import HTTPTypes
import Logging
import NIOCore
import Semel
import SemelHTTP
import SemelTesting
import Testing

@testable import SemelServer

@Suite("semel_degraded")
struct DegradationTests {
    private let registry = PrometheusRegistry()
    private var metrics: SemelMetrics { SemelMetrics(factory: registry) }

    private func degraded() -> [String] {
        registry.exposition().split(separator: "\n").map(String.init).filter { $0.hasPrefix("semel_degraded") }
    }

    @Test("follows the store's own word, and the figures of before stay while it cannot be read")
    func health() async throws {
        let store = StoreDouble()
        let watch = StoreWatch(store: store, metrics: metrics, environment: .live) { ["charge"] }
        await watch.look()
        #expect(degraded() == [#"semel_degraded{component="store"} 0"#])
        store.set { $0.health = StoreHealth(isReady: false, detail: "the disk is full") }
        await watch.look()
        #expect(degraded() == [#"semel_degraded{component="store"} 1"#])
        store.set { $0.health = nil }
        await watch.look()
        #expect(degraded() == [#"semel_degraded{component="store"} 0"#])
    }

    @Test(
        "is told at once by a request that met a store which does not answer, whether it ran or not",
        arguments: [StoreFailureRule.open, .closed])
    func requests(rule: StoreFailureRule) async throws {
        let store = StoreDouble.durable(MemoryStore()) { $0.claim = StoreError(.unavailable, "gone") }
        let observer = SceneObserver(metrics: metrics, logger: Logger(label: "quiet") { _ in SwiftLogNoOpLogHandler() })
        let scene = try HTTPScene(
            HTTPPolicy(policy: Policy(scene: "charge", effect: .unknown, onStoreFailure: rule), keyRequired: true, scopeSource: .none),
            operations: Operations(store: store), observer: observer)
        let name = try #require(HTTPField.Name("Idempotency-Key"))
        let request = HTTPRequest(method: .post, scheme: "http", authority: "a", path: "/", headerFields: [name: "\"k\""])
        let answer = try await scene.respond(to: HTTPExchange(request), body: AsyncStream<ByteBuffer> { $0.finish() }) { _ in
            HTTPAnswer(HTTPResponse(status: .created))
        }
        #expect(answer.head.status.code == (rule == .open ? 201 : 503))
        #expect(degraded() == [#"semel_degraded{component="store"} 1"#])
    }
}
