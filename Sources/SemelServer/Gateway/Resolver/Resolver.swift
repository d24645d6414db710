internal import Logging
internal import Semel
internal import SemelHTTP
internal import ServiceLifecycle

/// Asks the targets of operations whose outcome is unknown, by itself, from the start of the process on: an operation found
/// applied is completed, one found absent is given back, so that the next retry runs, and one nobody knows of stays uncertain
/// and is asked about again later.
///
/// Only scenes with an effect that can be asked are looked at. Every operation is asked about at most once at a time in all
/// processes: it is claimed first, which raises its epoch.
struct Resolver: Service {
    /// How often the store is looked at.
    static let interval = Duration.seconds(1)
    /// How many operations are asked about at one time.
    static let concurrency = 16
    private static let pageSize = 200

    let table: Locked<RoutingTable>
    let environment: Environment
    let logger: Logger
    private let pauses = Locked([OperationID: Pause]())

    /// Until when an operation is left alone.
    private struct Pause {
        var tries: Int
        var until: Duration
        var seen: Int
    }

    init(table: Locked<RoutingTable>, environment: Environment, logger: Logger) {
        self.table = table
        self.environment = environment
        self.logger = logger
    }

    func run() async throws {
        await cancelWhenGracefulShutdown {
            var round = 0
            while !Task.isCancelled {
                await lookThrough(round: round)
                round += 1
                try? await environment.clock.sleep(for: Self.interval)
            }
        }
    }

    /// One look at every scene that can be asked.
    func lookThrough(round: Int) async {
        let scenes = table.withLock { $0 }.scenes.filter { $0.verifier != nil }
        for scene in scenes {
            await look(OperationQuery(states: [.uncertain], scene: scene.name, limit: Self.pageSize), at: scene, round: round)
            // Those whose holder was lost. After a start that may have been this program's last process, a moment ago.
            let age = round == 0 ? nil : scene.http.scene.policy.lease
            await look(
                OperationQuery(states: [.claimed, .verifying, .streaming], scene: scene.name, unchangedFor: age, limit: Self.pageSize),
                at: scene, round: round)
        }
        pauses.withLock { pauses in pauses = pauses.filter { $0.value.seen == round || $0.value.until > environment.uptime() } }
    }

    private func look(_ query: OperationQuery, at scene: SceneRoute, round: Int) async {
        var query = query
        repeat {
            guard let page = try? await scene.http.scene.store.operations(query) else { return }
            await withDiscardingTaskGroup { group in
                let places = Places(Self.concurrency)
                for operation in page.operations where !Task.isCancelled && isDue(operation.id, round) {
                    guard await isFree(operation.record, scene) else { continue }
                    await places.take()
                    group.addTask {
                        await resolve(operation.id, scene)
                        places.give()
                    }
                }
            }
            query.cursor = page.cursor
        } while query.cursor != nil && !Task.isCancelled
    }

    /// Whether nobody is at work on it.
    private func isFree(_ record: Record, _ scene: SceneRoute) async -> Bool {
        guard record.state != .uncertain else { return true }
        guard let left = try? await scene.http.scene.store.leaseRemaining(of: record) else { return false }
        return left <= .zero
    }

    private func isDue(_ id: OperationID, _ round: Int) -> Bool {
        let now = environment.uptime()
        return pauses.withLock { pauses in
            guard pauses[id] != nil else { return true }
            pauses[id]!.seen = round
            return pauses[id]!.until <= now
        }
    }

    private func resolve(_ id: OperationID, _ route: SceneRoute) async {
        guard let verifier = route.verifier else { return }
        do {
            // From here on nobody else holds it, and whoever held it is fenced off.
            guard let attempt = try await route.http.scene.verify(id) else { return pause(id) }
            let trace = TraceContext.root(random: environment.random).joining(attempt.grant.traceID)
            try await TraceContext.$current.withValue(trace) { try await resolve(attempt, verifier, route) }
        } catch {
            pause(id)
            logger.warning("An operation could not be resolved.", metadata: ["scene": "\(route.name)", "operation": "\(OperationReference(id))", "reason": "\(error)"])
        }
    }

    private func resolve(_ attempt: Attempt, _ verifier: EffectVerifier, _ route: SceneRoute) async throws {
        let id = attempt.id
        let result: TransitionResult
        let found: String
        do {
            try await verifier.waitOutFlight(of: attempt)
            environment.failpoints.pass(.whileVerifying)
            switch try await verifier.verify(attempt) {
            case .applied(let outcome):
                (found, result) = ("applied", try await attempt.complete(outcome ?? .unknownButApplied))
            case .notApplied:
                (found, result) = ("not-applied", try await attempt.release())
            case .unknown:
                (found, result) = ("unknown", try await attempt.suspend(reason: "verification-unknown"))
                pause(id)
            }
        } catch let error where !(error is StoreError) {
            _ = try await attempt.suspend(reason: "verification-failed")
            pause(id)
            return logger.warning("An operation's target could not be asked.", metadata: metadata(attempt, route, "verification-failed", "\(error)"))
        }
        logger.info("An operation's target was asked.", metadata: metadata(attempt, route, found, "\(result)"))
        if found != "unknown" { pauses.withLock { $0[id] = nil } }
    }

    /// Pauses grow to five minutes, with jitter, so that a target that is down is not hammered.
    private func pause(_ id: OperationID) {
        let now = environment.uptime()
        let share = Double(environment.random() % 1024) / 1024
        pauses.withLock { pauses in
            let tries = (pauses[id]?.tries ?? 0) + 1
            let full = min(Duration.seconds(1) * (1 << min(tries - 1, 9)), .seconds(300))
            pauses[id] = Pause(tries: tries, until: now + full / 2 + full / 2 * share, seen: pauses[id]?.seen ?? 0)
        }
    }

    private func metadata(_ attempt: Attempt, _ route: SceneRoute, _ step: String, _ reason: String) -> Logger.Metadata {
        [
            "scene": "\(route.name)", "operation": "\(attempt.reference)", "step": "resolve", "epoch": "\(attempt.epoch)",
            "attempt": "\(attempt.grant.attempt)", "reason": "\(step): \(reason)",
        ]
    }
}

/// A bounded number of tasks at one time, for one waiter.
private final class Places: Sendable {
    private let (stream, continuation) = AsyncStream<Void>.makeStream()

    init(_ count: Int) {
        for _ in 0..<count { continuation.yield() }
    }

    func take() async { for await _ in stream { return } }
    func give() { continuation.yield() }
}
