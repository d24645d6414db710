package import Semel

/// One part of the server whose state `/readyz` shows.
package struct ReadinessCheck: Sendable {
    package enum State: String, Sendable {
        case ready
        /// It does its work, and keeps less than its promise.
        case degraded
        case down
    }

    package var name: String
    /// Whether the server cannot do its work without it.
    package var isNeeded: @Sendable () -> Bool
    package var check: @Sendable () async -> (state: State, detail: String)

    package init(
        name: String, isNeeded: @escaping @Sendable () -> Bool = { true }, check: @escaping @Sendable () async -> (state: State, detail: String)
    ) {
        self.name = name
        self.isNeeded = isNeeded
        self.check = check
    }

    /// - Parameter isNeeded: not where scenes go on without it: a server that is taken out of service could not serve them.
    package static func store(_ store: any OperationStore, isNeeded: @escaping @Sendable () -> Bool = { true }) -> ReadinessCheck {
        ReadinessCheck(name: "store", isNeeded: isNeeded) {
            let health = await store.health()
            return (health.isReady ? .ready : .down, health.detail)
        }
    }

    /// The second store and who decides. Down only while neither store can decide: before the first request has met a store
    /// that is away, the second one is as good as after.
    package static func fallback(_ pair: Fallback, _ environment: Environment) -> ReadinessCheck {
        ReadinessCheck(name: "fallback") {
            // A store that is away may take its time to say so, longer than this probe is given.
            let stores = await Readiness.of([.store(pair.primary), .store(pair.second)], within: .seconds(1), environment).components
            let (phase, first, second) = (pair.phase, stores[0], stores[1])
            guard first.state == .ready || second.state == .ready else { return (.down, "neither store is ready: \(first.detail); \(second.detail)") }
            let held = "\(pair.heldKeys) keys are still to be merged"
            return switch phase {
            case .degraded(let why): (.degraded, "the store is away (\(why)): the second store decides about new keys; \(held)")
            case .merging: (.degraded, "the store is back; \(held)")
            case .primary where first.state != .ready: (.degraded, "the store is away: the second store decides as soon as requests have met that")
            case .primary where second.state != .ready: (.degraded, "the second store could not take over: \(second.detail)")
            case .primary: (.ready, "the store decides; the second one is ready")
            }
        }
    }
}

/// What was found.
struct Readiness: Sendable {
    struct Component: Sendable {
        var name: String
        var isNeeded: Bool
        var state: ReadinessCheck.State
        var detail: String
    }

    var components: [Component]

    var isReady: Bool { components.allSatisfy { $0.state != .down || !$0.isNeeded } }

    /// Asks all at the same time. One that does not answer in time is down: a probe must be answered while a part hangs.
    static func of(_ checks: [ReadinessCheck], within limit: Duration, _ environment: Environment) async -> Readiness {
        let found = Locked([Int: Component]())
        let asking = checks.enumerated().map { index, check in
            environment.detach {
                let (state, detail) = await check.check()
                found.withLock {
                    $0[index] = Component(name: check.name, isNeeded: check.isNeeded(), state: state, detail: detail)
                }
            }
        }
        let (answered, continuation) = AsyncStream<Never>.makeStream()
        let all = environment.detach {
            for task in asking { await task.value }
            continuation.finish()
        }
        await environment.firstOf(sleeping: limit) { for await _ in answered {} }
        all.cancel()
        for task in asking { task.cancel() }
        let answers = found.withLock { $0 }
        return Readiness(
            components: checks.enumerated().map { index, check in
                answers[index]
                    ?? Component(
                        name: check.name, isNeeded: check.isNeeded(), state: .down,
                        detail: "It did not answer within \(DurationText.format(limit)).")
            })
    }

    /// - Parameter withDetail: what is wrong is told to those who may view; strangers get the states alone.
    func document(withDetail: Bool) -> JSONValue {
        [
            "ready": .bool(isReady),
            "components": .array(
                components.map { component in
                    var document: JSONObject = JSONObject()
                    document["name"] = .string(component.name)
                    document["state"] = .string(component.state.rawValue)
                    document["needed"] = .bool(component.isNeeded)
                    if withDetail { document["detail"] = .string(component.detail) }
                    return .object(document)
                }),
        ]
    }
}
