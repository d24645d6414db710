package import Semel

/// One part of the server whose state `/readyz` shows.
package struct ReadinessCheck: Sendable {
    package var name: String
    /// Whether the server can do its work without it.
    package var isNeeded: Bool
    package var check: @Sendable () async -> (isReady: Bool, detail: String)

    package init(name: String, isNeeded: Bool, check: @escaping @Sendable () async -> (isReady: Bool, detail: String)) {
        self.name = name
        self.isNeeded = isNeeded
        self.check = check
    }

    package static func store(_ store: any OperationStore) -> ReadinessCheck {
        ReadinessCheck(name: "store", isNeeded: true) {
            let health = await store.health()
            return (health.isReady, health.detail)
        }
    }
}

/// What was found.
struct Readiness: Sendable {
    struct Component: Sendable {
        var name: String
        var isNeeded: Bool
        var isReady: Bool
        var detail: String
    }

    var components: [Component]

    var isReady: Bool { components.allSatisfy { $0.isReady || !$0.isNeeded } }

    /// Asks all at the same time. One that does not answer in time is down: a probe must be answered while a part hangs.
    static func of(_ checks: [ReadinessCheck], within limit: Duration, _ environment: Environment) async -> Readiness {
        let found = Locked([Int: Component]())
        let asking = checks.enumerated().map { index, check in
            environment.detach {
                let (isReady, detail) = await check.check()
                found.withLock {
                    $0[index] = Component(name: check.name, isNeeded: check.isNeeded, isReady: isReady, detail: detail)
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
                        name: check.name, isNeeded: check.isNeeded, isReady: false,
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
                    document["state"] = component.isReady ? "ready" : "down"
                    document["needed"] = .bool(component.isNeeded)
                    if withDetail { document["detail"] = .string(component.detail) }
                    return .object(document)
                }),
        ]
    }
}
