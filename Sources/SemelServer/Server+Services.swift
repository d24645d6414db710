internal import Logging
internal import Semel
package import ServiceLifecycle

extension Server {
    /// What listens and works, in the order of starting.
    ///
    /// - Parameter ready: called once both addresses are bound, with the ports that were given.
    /// - Throws: ``ControlPlaneError`` when the control plane would be unprotected, or ``GatewayError``.
    package func services(
        ready: @escaping @Sendable (_ gateway: ListenAddress, _ admin: ListenAddress) -> Void = { _, _ in }
    ) async throws -> [any Service] {
        let source = source
        var degradation: (@Sendable (OperationID) -> String?)?
        if let pair { degradation = { pair.reason(forHolding: $0) } }
        let observer = SceneObserver(
            metrics: metrics, logger: Logger(label: "semel.gateway"), spans: telemetry?.spans, degradation: degradation)
        let gateway = try await Gateway(
            configuration: configuration, store: store, pair: pair, environment: environment, observer: observer,
            logger: Logger(label: "semel.gateway"))
        let controlPlane = try ControlPlane(
            admin: configuration.admin, claims: configuration.claims, store: store,
            claimsAPI: ClaimsAPI(store: store, environment: environment, observer: ClaimsMetrics(metrics)),
            pair: pair, canFallBack: { !source.current.fallbackScenes.isEmpty },
            scenes: { source.current.scenes.map { SceneReport($0) } },
            metrics: { [registry] in registry.exposition() }, environment: environment, logger: Logger(label: "semel.control-plane"))
        if let pair {
            // Until its keys are merged, a scene that went on with the store alone would run them again.
            source.refuse { old, new in
                let leaving = Set(old.fallbackScenes).subtracting(new.fallbackScenes).sorted()
                guard !leaving.isEmpty, pair.phase != .primary else { return nil }
                return "the second store has \(pair.heldKeys) keys that are not merged, and these scenes leave it: \(leaving.joined(separator: ", "))"
            }
        }
        source.subscribe { [logger] configuration in
            do {
                try await gateway.update(configuration)
            } catch {
                logger.error("The gateway keeps its former scenes.", metadata: ["step": "reload", "reason": "\(error)"])
            }
            do throws(ControlPlaneError) {
                try controlPlane.reload(admin: configuration.admin, claims: configuration.claims)
            } catch {
                logger.error("The control plane keeps its former tokens.", metadata: ["step": "reload", "reason": .string(error.description)])
            }
        }
        let watch = StoreWatch(store: store, pair: pair, metrics: metrics, environment: environment) {
            source.current.scenes.map(\.name) + [ClaimsAPI.scene]
        }
        let announcement = Announcement { [configuration] in
            var listen = configuration.listen
            listen.port = try await gateway.port
            var admin = configuration.admin.listen
            admin.port = try await controlPlane.port()
            ready(listen, admin)
        }
        let tending: [any Service] = pair.map { [FallbackWatch(pair: $0, environment: environment, logger: logger)] } ?? []
        // Started first, it ends last, and sends what the others leave.
        return (telemetry.map { [$0] } ?? []) + [controlPlane, gateway, watch] + tending + [announcement]
    }
}

/// Says something once, and then waits for the end with the others.
private struct Announcement: Service {
    let announce: @Sendable () async throws -> Void

    func run() async throws {
        // A service that cannot start ends the group by itself, with its own error.
        guard (try? await announce()) != nil else { return }
        try? await gracefulShutdown()
    }
}
