internal import Semel
internal import ServiceLifecycle

/// Keeps `semel_uncertain{scene}` and `semel_degraded{component="store"}` at what the store says of itself.
///
/// That the store does not answer is also told by the request that met it (``SceneObserver``), without waiting for this.
struct StoreWatch: Service {
    static let interval = Duration.seconds(5)

    let store: any OperationStore
    /// The same with a second store behind it, where there is one.
    var pair: Fallback?
    let metrics: SemelMetrics
    let environment: Environment
    let scenes: @Sendable () -> [String]

    func run() async throws {
        await cancelWhenGracefulShutdown {
            while !Task.isCancelled {
                await look()
                try? await environment.clock.sleep(for: Self.interval)
            }
        }
    }

    func look() async {
        metrics.setDegraded(!(await store.health().isReady), component: "store")
        // While the store cannot be read, the last figure stays, and what the second one knows alone would be a smaller one.
        if case .degraded = pair?.phase { return }
        guard let counts = try? await count() else { return }
        for scene in scenes() { metrics.scene(scene).setUncertain(counts[scene] ?? 0) }
    }

    private func count() async throws -> [String: Int] {
        var counts: [String: Int] = [:]
        var query = OperationQuery(states: [.uncertain], limit: 1000)
        repeat {
            let page = try await (pair ?? store).operations(query)
            for operation in page.operations { counts[operation.scene, default: 0] += 1 }
            query.cursor = page.cursor
        } while query.cursor != nil
        return counts
    }
}
