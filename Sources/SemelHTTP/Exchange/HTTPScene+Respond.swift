public import HTTPTypes
public import NIOCore
internal import Semel

extension HTTPScene {
    /// What a surface does with a covered request.
    public typealias Handler = @Sendable (HTTPRun) async throws -> HTTPAnswer

    /// Methods that ask for no effect (RFC 9110 §9.2.1).
    static let safeMethods: Set<HTTPRequest.Method> = [.get, .head, .options, .trace]

    /// Whether the policy has anything to do with this request. What it does not cover is passed through as it is, body and
    /// answer streaming: safe methods, methods the policy does not name, requests without a key where none is required, and
    /// everything in `mode: off`.
    public func covers(_ request: HTTPRequest) -> Bool {
        guard mode != .off, policy.methods.contains(request.method), !Self.safeMethods.contains(request.method) else { return false }
        guard !policy.keyRequired, case .header(let name) = policy.keySource, !request.headerFields.contains(name) else { return true }
        // The key may still be a field of a form.
        return policy.tokens != nil && request.isForm
    }

    /// The answer to a request for a resource of the policy itself, such as a new token; `nil` for all other requests.
    public func ownAnswer(to request: HTTPRequest) -> HTTPAnswer? {
        guard let tokens = policy.tokens, mode != .off, request.method == .post, request.pathWithoutQuery == tokens.path else { return nil }
        return mintToken()
    }

    /// The answer to a request that the policy covers.
    ///
    /// `run` is called at most once, in a task of its own that goes on when the caller is cancelled (H41), and has returned
    /// when this returns. The answer it gives is recorded before it is returned from here (R19); of one that is too large to
    /// keep it is recorded that it is, before its first byte can be sent.
    ///
    /// - Not guaranteed: that `run` runs at most once for a key, unless the scene's level says so.
    /// - Cancelling the caller before the claim ends the request with nothing done; after it, nothing is cancelled.
    /// - Throws: only what reading `body` throws. Nothing is claimed then.
    public func respond<RequestBody: AsyncSequence & Sendable>(
        to exchange: HTTPExchange, body source: RequestBody, run: @escaping Handler
    ) async throws -> HTTPAnswer where RequestBody.Element == ByteBuffer {
        try await TraceContext.$current.withValue(exchange.trace ?? .current) {
            guard mode == .enforce else { return try await observe(exchange, source, run) }
            return try await enforce(exchange, source, run)
        }
    }

    private func enforce<RequestBody: AsyncSequence & Sendable>(
        _ exchange: HTTPExchange, _ source: RequestBody, _ run: @escaping Handler
    ) async throws -> HTTPAnswer where RequestBody.Element == ByteBuffer {
        do {
            let scope = try scope(of: exchange)
            if let refusal = await exchange.authorize?(exchange.request) { return guaranteed(refusal) }
            let (key, bodyKey) = try key(of: exchange.request)
            try checkAge(of: exchange.request, key: key)
            let body = try await take(exchange.request, source)
            guard let call = try await call(exchange, scope, key, bodyKey, body) else { return await unprotected(body, nil, run) }
            return await begin(call, body, exchange, run)
        } catch let problem as HTTPProblem {
            return reject(problem, nil)
        }
    }

    /// The operation that the request asks for; `nil` for a request without a key, where none is required.
    func call(
        _ exchange: HTTPExchange, _ scope: Scope, _ headerKey: OperationKey?, _ bodyKey: BodyKey?, _ body: SpooledBody
    ) async throws(HTTPProblem) -> OperationCall? {
        let (fingerprint, keyInBody) = try await fingerprint(exchange.request, body, bodyKey)
        guard let key = headerKey ?? keyInBody else {
            if policy.keyRequired { throw keyMissing }
            return nil
        }
        if headerKey == nil { try checkAge(of: exchange.request, key: key) }
        return OperationCall(
            id: OperationID(scope: scope, key: key), fingerprint: fingerprint, traceID: TraceContext.current?.traceID, parent: exchange.parent)
    }

    /// Claims, and does what the claim says.
    func begin(_ call: OperationCall, _ body: SpooledBody, _ exchange: HTTPExchange, _ run: @escaping Handler) async -> HTTPAnswer {
        let beginning: Beginning
        do {
            beginning = try await scene.begin(call)
        } catch {
            observer.observe(.storeFailed(error), scene: scene, operation: call.id)
            guard policy.policy.onStoreFailure == .open || mode == .observe else { return reject(unavailable(error, call.id), call.id) }
            observer.observe(.degraded(error), scene: scene, operation: call.id)
            return await unprotected(body, call.id, run)
        }
        switch beginning {
        case .run(let attempt):
            return await inTrace(of: attempt) { await HTTPAttempt(self, attempt, call.fingerprint).run(body, run) }
        case .verify(let attempt):
            return await inTrace(of: attempt) { await HTTPAttempt(self, attempt, call.fingerprint).verifyThenRun(body, exchange, run) }
        case .completed(let record) where mode == .enforce:
            return replay(record, call.id)
        case .refused(let refusal) where mode == .enforce:
            return reject(problem(for: refusal, call.id), call.id)
        case .completed:
            observer.observe(.wouldReplay, scene: scene, operation: call.id)
        case .refused(let refusal):
            observer.observe(.wouldReject(problem(for: refusal, call.id).code), scene: scene, operation: call.id)
        }
        return await unprotected(body, call.id, run)
    }

    /// A further attempt is a new span of the trace that the first one began, unless its client continues a trace.
    private func inTrace(of attempt: Attempt, _ work: () async -> HTTPAnswer) async -> HTTPAnswer {
        await TraceContext.$current.withValue(TraceContext.current?.joining(attempt.grant.traceID)) {
            observer.observe(.started(attempt), scene: scene, operation: attempt.id)
            return await work()
        }
    }

    /// Runs without a claim. The level that is shown is one that holds without it: none at all for a request without a key.
    func unprotected(_ body: SpooledBody, _ id: OperationID?, _ run: Handler) async -> HTTPAnswer {
        var answer: HTTPAnswer
        do {
            answer = try await run(HTTPRun(body: body, id: id, attempt: nil))
        } catch UpstreamFailure.notSent(let why) {
            answer = HTTPProblem.refused(why, id, isSafeForNewKey: id == nil).answer(pages: policy.problemPages)
        } catch UpstreamFailure.lost(let why, let timedOut) {
            answer = HTTPProblem.lost(why, timedOut: timedOut, id).answer(pages: policy.problemPages)
        } catch {
            answer = .failed
        }
        return id == nil ? answer : withoutRecord(answer)
    }

    /// Shows what still holds without a record: a target that deduplicates needs none.
    func withoutRecord(_ answer: HTTPAnswer) -> HTTPAnswer {
        var answer = answer
        let level = scene.guarantee == .deduplicatedByTarget ? Guarantee.deduplicatedByTarget : .bestEffort
        answer.head.headerFields[.semelGuarantee] = level.name
        return answer
    }
}
