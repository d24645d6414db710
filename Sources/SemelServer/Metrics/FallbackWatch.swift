internal import Logging
internal import Semel
internal import ServiceLifecycle

/// Looks after the return of the store while nobody calls, and tells the log who decides.
struct FallbackWatch: Service {
    /// How often a store that is away is asked whether it is back.
    static let interval = Duration.seconds(1)

    let pair: Fallback
    let environment: Environment
    let logger: Logger

    func run() async throws {
        await cancelWhenGracefulShutdown {
            var collisions = 0
            while !Task.isCancelled {
                if pair.phase != .primary { await pair.tend() }
                let found = pair.collisions
                if found > collisions {
                    logger.error(
                        "Operations may have run twice: the store had records of its own for keys that the second store decided.",
                        metadata: ["step": "fallback", "reason": .string("\(found) since the start; the store's records stand")])
                    collisions = found
                }
                try? await environment.clock.sleep(for: Self.interval)
            }
        }
    }

    static func log(_ phase: Fallback.Phase, _ logger: Logger) {
        switch phase {
        case .degraded(let why):
            logger.error(
                "The store is away: the second store decides about new keys.",
                metadata: ["step": "fallback", "degraded": .stringConvertible(true), "reason": .string(why)])
        case .merging(let count):
            logger.warning(
                "What the second store decided is being merged into the store.",
                metadata: ["step": "fallback", "degraded": .stringConvertible(true), "reason": .string("\(count) keys")])
        case .primary: logger.notice("The store decides about every key again.", metadata: ["step": "fallback"])
        }
    }
}

extension Fallback {
    /// Why requests under a key are decided by the second store; `nil` where they are not.
    func reason(forHolding id: OperationID) -> String? {
        guard isHeld(id) else { return nil }
        return if case .degraded(let why) = phase { why } else { "the key is not merged into the store yet" }
    }
}
