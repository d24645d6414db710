public import Hummingbird
internal import HTTPTypes
internal import Logging
internal import NIOCore
public import Semel
public import SemelHTTP

/// Makes the routes behind it safe to retry: a repeated request with the same `Idempotency-Key` gets the first one's
/// response, and its handler does not run again.
///
/// ```swift
/// let operations = Operations(store: store)
/// let policy = HTTPPolicy(policy: Policy(scene: "payment.capture", effect: .unknown), scopeSource: .application)
/// router.group("v1/payments")
///     .add(middleware: try IdempotencyMiddleware(policy, operations: operations) { _, context in context.identity?.id })
///     .post("capture") { request, context in ... }
/// ```
///
/// The rules are those of ``HTTPScene``, which the gateway shares. Put it behind what authenticates, authorises and limits
/// (a replay is given to whom they let through), and in front of what renders errors, so that a rendered error is what is
/// recorded. An error that nothing rendered is answered as Hummingbird would: by its own response, or with 500 and no body.
///
/// The handler runs in a task of its own: cancelling the request does not stop it, and task-local values reach it, among them
/// ``TraceContext/current``, whose `traceparent` belongs on what the handler sends.
public struct IdempotencyMiddleware<Context: RequestContext>: RouterMiddleware {
    /// Who sends the request, once that is verified: a stable name, never a credential; `nil` when it is not known.
    public typealias Identity = @Sendable (Request, Context) async -> String?
    /// Whether the effect of an operation, whose holder was lost, happened; for a policy with a queryable effect.
    public typealias Verify = @Sendable (Attempt) async throws -> Verification<Outcome?>

    public let scene: HTTPScene
    private let identity: Identity?
    private let verify: Verify?

    /// - Parameters:
    ///   - identity: needed when the policy's scope is ``HTTPPolicy/ScopeSource/application`` or a token's claim.
    /// - Throws: ``PolicyError`` when the policy claims more than its parts can keep.
    public init(
        _ policy: HTTPPolicy, operations: Operations, observer: any HTTPObserver = NoHTTPObserver(), verify: Verify? = nil, identity: Identity? = nil
    ) throws(PolicyError) {
        self.init(try HTTPScene(policy, operations: operations, observer: observer), verify: verify, identity: identity)
    }

    public init(_ scene: HTTPScene, verify: Verify? = nil, identity: Identity? = nil) {
        self.scene = scene
        self.verify = verify
        self.identity = identity
    }

    public func handle(
        _ request: Request, context: Context, next: (Request, Context) async throws -> Response
    ) async throws -> Response {
        if let answer = scene.ownAnswer(to: request.head) { return Response(answer) }
        guard scene.covers(request.head) else { return try await next(request, context) }
        let exchange = HTTPExchange(
            request.head, identity: await identity?(request, context), trace: TraceContext.continuing(request.headers.value(of: .traceparent), random: scene.scene.operations.environment.random), verify: verify)
        let limit = scene.policy.responseLimit
        return try await withoutActuallyEscaping(next) { next in
            // The engine returns only when the handler has, so `next` is never called too late. It must not even be kept
            // longer than that, so it is handed over.
            let handler = HandOver(next)
            defer { _ = handler.take() }
            let answer = try await scene.respond(to: exchange, body: request.body) { run in
                try await IdempotentRun.$current.withValue(run) {
                    var request = request
                    request.body = RequestBody(run.body)
                    return try await Self.answer(handler, request, context, limit: limit)
                }
            }
            return Response(answer)
        }
    }

    private static func answer(
        _ handler: HandOver<(Request, Context) async throws -> Response>, _ request: Request, _ context: Context, limit: Int
    ) async throws -> HTTPAnswer {
        guard let next = handler.take() else { preconditionFailure("a handler is called twice for one request") }
        do {
            return try await HTTPAnswer(try await next(request, context), limit: limit)
        } catch let error as any HTTPResponseError where !(error is any NotApplied) {
            return try await HTTPAnswer(try error.response(from: request, context: context), limit: limit)
        } catch {
            context.logger.error("The handler failed.", metadata: ["hb.error.message": "\(error)"])
            throw error
        }
    }
}

/// What a handler behind ``IdempotencyMiddleware`` can find out about its own run.
public enum IdempotentRun {
    /// The run that the current task belongs to, with its claim: the epoch to send to a target that fences, the reference to
    /// derive a key from. `nil` outside of one.
    @TaskLocal public static var current: HTTPRun?
}

extension HTTPField.Name {
    fileprivate static let traceparent = Self("traceparent")!
}
