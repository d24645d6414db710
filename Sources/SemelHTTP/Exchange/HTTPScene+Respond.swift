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
            switch try await intake(exchange, source) {
            case .refused(let answer): return guaranteed(answer)
            case .taken(let body, nil): return await unprotected(body, nil, run)
            case .taken(let body, let claim?): return await begin(claim, body, exchange, run)
            }
        } catch {
            return try answer(refusing: error)
        }
    }

    @inline(never)
    private func answer(refusing error: any Error) throws -> HTTPAnswer {
        guard let problem = error as? HTTPProblem else { throw error }
        return reject(problem, nil)
    }

    private enum Intake {
        /// Whoever asks may know nothing about the key.
        indirect case refused(HTTPAnswer)
        /// The body, and what is asked for; `nil` for a request without a key, where none is required.
        case taken(SpooledBody, Scene.PreparedClaim?)
    }

    private func intake<RequestBody: AsyncSequence & Sendable>(
        _ exchange: HTTPExchange, _ source: RequestBody
    ) async throws -> Intake where RequestBody.Element == ByteBuffer {
        let scope = try scope(of: exchange)
        if let refusal = await exchange.authorize?(exchange.request) { return .refused(refusal) }
        let (key, bodyKey) = try key(of: exchange.request)
        try checkAge(of: exchange.request, key: key)
        let body = try await take(exchange.request, source)
        return .taken(body, try await claim(exchange, scope, key, bodyKey, body))
    }

    /// The claim on the operation that the request asks for; `nil` for a request without a key, where none is required.
    func claim(
        _ exchange: HTTPExchange, _ scope: Scope, _ headerKey: OperationKey?, _ bodyKey: BodyKey?, _ body: SpooledBody
    ) async throws(HTTPProblem) -> Scene.PreparedClaim? {
        let (fingerprint, keyInBody) = try await fingerprint(exchange.request, body, bodyKey)
        return try claim(exchange, scope, headerKey, keyInBody, fingerprint)
    }

    @inline(never)
    private func claim(
        _ exchange: HTTPExchange, _ scope: Scope, _ headerKey: OperationKey?, _ keyInBody: OperationKey?, _ fingerprint: Fingerprint
    ) throws(HTTPProblem) -> Scene.PreparedClaim? {
        guard let key = headerKey ?? keyInBody else {
            if policy.keyRequired { throw keyMissing }
            return nil
        }
        if headerKey == nil { try checkAge(of: exchange.request, key: key) }
        return scene.prepare(
            OperationCall(
                id: OperationID(scope: scope, key: key), fingerprint: fingerprint, traceID: TraceContext.current?.traceID, parent: exchange.parent))
    }

    /// Claims, and does what the claim says.
    @inline(never)
    func begin(_ claim: Scene.PreparedClaim, _ body: SpooledBody, _ exchange: HTTPExchange, _ run: @escaping Handler) async -> HTTPAnswer {
        switch await step(claim) {
        case .answer(let answer): return answer
        case .unprotected: return await unprotected(body, claim.id, run)
        case .attempt(let attempt):
            attempt.announce()
            // Whoever asks the target first may need a turn for that.
            if attempt.attempt.grant.kind != .verify { await exchange.admission?() }
            return await attempt.begin(body, exchange, run).value
        }
    }

    /// What a claim leads to.
    private enum Step {
        case attempt(HTTPAttempt)
        indirect case answer(HTTPAnswer)
        case unprotected
    }

    private func step(_ claim: Scene.PreparedClaim) async -> Step {
        do {
            return step(after: try await scene.begin(claim), claim)
        } catch {
            return step(after: error, claim)
        }
    }

    // Not inlined: what they need would be kept with every request that waits for its claim.

    @inline(never)
    private func step(after error: StoreError, _ claim: Scene.PreparedClaim) -> Step {
        observer.observe(.storeFailed(error), scene: scene, operation: claim.id)
        guard policy.policy.onStoreFailure == .open || mode == .observe else { return .answer(reject(unavailable(error, claim.id), claim.id)) }
        observer.observe(.degraded(error), scene: scene, operation: claim.id)
        return .unprotected
    }

    @inline(never)
    private func step(after beginning: Beginning, _ claim: Scene.PreparedClaim) -> Step {
        switch beginning {
        case .run(let attempt), .verify(let attempt):
            return .attempt(HTTPAttempt(self, attempt, claim.fingerprint))
        case .completed(let record) where mode == .enforce:
            return .answer(replay(record, claim.id))
        case .refused(let refusal) where mode == .enforce:
            return .answer(reject(problem(for: refusal, claim.id), claim.id))
        case .completed:
            observer.observe(.wouldReplay, scene: scene, operation: claim.id)
        case .refused(let refusal):
            observer.observe(.wouldReject(problem(for: refusal, claim.id).code), scene: scene, operation: claim.id)
        }
        return .unprotected
    }

    /// Runs without a claim. The level that is shown is one that holds without it: none at all for a request without a key.
    @inline(never)
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
