public import Semel
#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#endif

/// Idempotency-Key over HTTP (HTTP.md): one kind of request under its policy. Both surfaces, middleware and gateway, answer
/// through ``respond(to:body:run:)``, so the rules are the same.
// A class for the same reason as Scene.
public final class HTTPScene: Sendable {
    public let policy: HTTPPolicy
    public let scene: Scene
    let spool: Spool
    let observer: any HTTPObserver
    /// The calendar's time, to judge times that clients state; it decides no lease and no retention.
    let calendar: @Sendable () -> Timestamp

    /// - Parameters:
    ///   - text: the policy as people wrote it, to be pinned in the records made under it.
    ///   - spool: where bodies of requests are held; shared by all scenes of a process, so that its bounds hold for all.
    /// - Throws: ``PolicyError`` when the policy claims more than its parts can keep.
    public init(
        _ policy: HTTPPolicy, operations: Operations, text: String? = nil, spool: Spool = .shared,
        observer: any HTTPObserver = NoHTTPObserver(), calendar: @escaping @Sendable () -> Timestamp = HTTPScene.systemCalendar
    ) throws(PolicyError) {
        guard policy.policy.effect != .localTransaction else {
            throw PolicyError(
                .contradiction, in: policy.policy.scene, "a handler behind HTTP cannot share the record's transaction",
                remedy: "perform the effect with Scene.perform(_:in:payload:inTransactionOf:_:) inside the handler, or declare what the target can do")
        }
        self.policy = policy
        self.spool = spool
        self.observer = observer
        self.calendar = calendar
        scene = try operations.scene(policy.policy, text: text)
    }

    public static let systemCalendar: @Sendable () -> Timestamp = {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Timestamp(microseconds: Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1000)
    }

    var mode: Mode { policy.policy.mode }
    var environment: Environment { scene.operations.environment }
}
