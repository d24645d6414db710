internal import HTTPTypes
internal import NIOCore
internal import Semel

/// One run of a handler under a claim, from its start to its recorded end.
struct HTTPAttempt: Sendable {
    typealias Handler = HTTPScene.Handler

    let http: HTTPScene
    let attempt: Attempt
    /// What this request asks for, to tell whether what stands in the record is its own.
    private let fingerprint: Fingerprint

    init(_ http: HTTPScene, _ attempt: Attempt, _ fingerprint: Fingerprint) {
        self.http = http
        self.attempt = attempt
        self.fingerprint = fingerprint
    }

    var policy: HTTPPolicy { http.policy }
    var failpoints: Failpoints { http.environment.failpoints }

    /// Tells that the claim was granted.
    func announce() {
        inTrace { http.observer.observe(.started(attempt), scene: http.scene, operation: attempt.id) }
    }

    /// Begins with what the claim allows: runs the handler, or asks the target first.
    ///
    /// All of it is done in a task of its own: a client that leaves does not stop it (H41). As far as it comes without
    /// waiting it runs on the caller's thread.
    // Not asynchronous itself: the caller waits for the task alone, and a waiting request keeps no frame for this.
    func begin(_ body: SpooledBody, _ exchange: HTTPExchange, _ handler: @escaping Handler) -> Task<HTTPAnswer, Never> {
        inTrace { attempt.grant.kind == .verify ? verifyThenRun(body, exchange, handler) : run(body, handler) }
    }

    /// A further attempt is a new span of the trace that the first one began, unless its client continues a trace.
    private func inTrace<Result>(_ work: () -> Result) -> Result {
        let current = TraceContext.current
        let trace = current?.joining(attempt.grant.traceID)
        return trace == current ? work() : TraceContext.$current.withValue(trace, operation: work)
    }

    /// Runs the handler. It is cancelled only when the attempt ends before it does (superseded, or hung); what it does then
    /// must not count any more. It is told of its cancellation when it waits.
    private func run(_ body: SpooledBody, _ handler: @escaping Handler) -> Task<HTTPAnswer, Never> {
        let task = detach { await perform(body, handler) }
        // In `observe` nothing stops a request.
        if http.mode == .enforce { attempt.onEnd { if $0 != .finished { task.cancel() } } }
        return task
    }

    /// Asks the target whether the effect of a lost holder happened, and runs the handler if it did not.
    private func verifyThenRun(_ body: SpooledBody, _ exchange: HTTPExchange, _ handler: @escaping Handler) -> Task<HTTPAnswer, Never> {
        detach {
            // In `observe` nobody waits and nobody is turned away.
            guard http.mode == .enforce else { return await proceed(body, handler) }
            guard let verify = exchange.verify else { return await remainUncertain("no-verification") }
            do { try await (exchange.waitOutFlight ?? http.scene.waitOutFlight)(attempt) } catch { return await remainUncertain("verification-cancelled") }
            failpoints.pass(.whileVerifying)
            switch (try? await verify(attempt)) ?? .unknown {
            case .applied(let outcome): return await record(verified: outcome ?? .unknownButApplied)
            case .notApplied: return await proceed(body, handler)
            case .unknown: return await remainUncertain("verification-unknown")
            }
        }
    }

    /// Not `Task.detached`: the handler keeps its caller's task-local values (tracing), and only loses its cancellation.
    private func detach(_ work: @escaping @Sendable () async -> HTTPAnswer) -> Task<HTTPAnswer, Never> {
        http.environment.detachHere(work)
    }

    // MARK: Running

    private func perform(_ body: SpooledBody, _ handler: Handler) async -> HTTPAnswer {
        // It waited for its turn, and somebody else holds the operation by now.
        if http.mode == .enforce, attempt.end != nil { return await superseded(instead: nil) }
        let result: Result<HTTPAnswer, any Error>
        do {
            result = .success(try await handler(HTTPRun(body: body, id: attempt.id, attempt: attempt)))
        } catch {
            result = .failure(error)
        }
        guard Task.isCancelled else { return await settle(result) }
        // The handler was cancelled; telling the store about it must not be.
        return await detach { await settle(result) }.value
    }

    private func settle(_ result: Result<HTTPAnswer, any Error>) async -> HTTPAnswer {
        switch result {
        case .success(let answer): await settle(answer)
        case .failure(let error): await settle(failure: error)
        }
    }

    private func proceed(_ body: SpooledBody, _ handler: @escaping Handler) async -> HTTPAnswer {
        do {
            guard try await attempt.proceed() == .applied else { return await superseded(instead: nil) }
        } catch {
            return unrecorded(nil, error)
        }
        return await run(body, handler).value
    }

    /// Decides what an answer means, and makes that durable before it is given to the client.
    func settle(_ answer: HTTPAnswer) async -> HTTPAnswer {
        let status = answer.head.status.code
        // The handler finished the attempt itself, in a transaction of its own.
        if attempt.end == .finished {
            http.observer.observe(.recorded(status: status, attempt), scene: http.scene, operation: attempt.id)
            return http.guaranteed(answer)
        }
        // An upgrade, or another interim answer: no outcome can be recorded for what would follow.
        if status < 200 { return await settle(failure: UpstreamFailure.lost("it answered with status \(status)", timedOut: false)) }
        if policy.notStarted.contains(status) { return await release(answer) }
        if status >= 500 {
            switch http.scene.active.assessment.onError {
            case .replay: break
            case .rerun: return await release(answer)
            case .uncertain: return await suspend("status-\(status)", answer)
            }
        }
        return await record(answer)
    }

    /// Decides what the lack of an answer means.
    func settle(failure: any Error) async -> HTTPAnswer {
        switch failure {
        case UpstreamFailure.notSent(let why):
            return await release(problem(.refused(why, attempt.id, isSafeForNewKey: isFirstRun)))
        case let failure as any NotApplied:
            return await release(problem(.refused("\(failure)", attempt.id, isSafeForNewKey: isFirstRun)))
        case UpstreamFailure.lost(let why, let timedOut):
            let answer = problem(.lost(why, timedOut: timedOut, attempt.id))
            return http.scene.active.assessment.onLapse == .reclaim ? await release(answer) : await suspend("upstream-lost", answer)
        default:
            return await settle(.failed)
        }
    }

    private func problem(_ problem: HTTPProblem) -> HTTPAnswer {
        http.observer.observe(.rejected(problem.code, status: problem.status), scene: http.scene, operation: attempt.id)
        return problem.answer(pages: policy.problemPages)
    }

    /// Whether no run before this one can have applied anything.
    private var isFirstRun: Bool { http.absenceIsProof && (attempt.grant.attempt == 1 || attempt.grant.kind == .verify) }

    // MARK: Ends without an outcome

    private func release(_ answer: HTTPAnswer) async -> HTTPAnswer {
        await end(answer, .released(status: answer.head.status.code, attempt)) { () throws(StoreError) in try await attempt.release() }
    }

    func suspend(_ reason: String, _ answer: HTTPAnswer) async -> HTTPAnswer {
        await end(answer, .suspended(reason: reason, attempt)) { () throws(StoreError) in try await attempt.suspend(reason: reason) }
    }

    /// The answer promises nothing, so it is given even when its end could not be recorded: the record then ends with its lease.
    private func end(
        _ answer: HTTPAnswer, _ event: HTTPEvent, _ transition: () async throws(StoreError) -> TransitionResult
    ) async -> HTTPAnswer {
        do {
            guard try await transition() == .applied else { return await superseded(instead: answer) }
            http.observer.observe(event, scene: http.scene, operation: attempt.id)
        } catch {
            endUnrecorded(error)
        }
        return http.guaranteed(answer)
    }

    private func remainUncertain(_ reason: String) async -> HTTPAnswer {
        await suspend(reason, problem(http.problem(for: .uncertain(reason: reason), attempt.id)))
    }

    // MARK: Recording

    private func record(_ answer: HTTPAnswer) async -> HTTPAnswer {
        switch answer.body {
        case .bytes(let bytes, let trailers) where bytes.readableBytes <= policy.responseLimit && !answer.isEventStream:
            return await record(answer, bytes, trailers)
        default:
            return await ResponseTee(self, answer).answer()
        }
    }

    /// Persists the outcome, and only then gives the answer on (R19).
    func record(_ answer: HTTPAnswer, _ bytes: ByteBuffer, _ trailers: HTTPFields?) async -> HTTPAnswer {
        failpoints.pass(.afterAnswer)
        // Not later than the store will have it: the response is kept from when it is recorded.
        let kept = attempt.grant.grantedAt + attempt.age + policy.policy.retention.response
        do {
            guard try await complete(Outcome(answer.head, kept: bytes, trailers: trailers, policy: policy)) else {
                return await superseded(instead: answer)
            }
        } catch {
            return unrecorded(answer, error)
        }
        failpoints.pass(.beforeReply)
        return recorded(answer, until: kept)
    }

    @inline(never)
    private func recorded(_ answer: HTTPAnswer, until kept: Timestamp) -> HTTPAnswer {
        var answer = http.guaranteed(answer)
        answer.head.headerFields[.idempotencyKeyExpires] = CalendarTime(kept).httpDate
        return answer
    }

    private func record(verified outcome: Outcome) async -> HTTPAnswer {
        do {
            return try await complete(outcome) ? await whatStands(instead: nil) : await superseded(instead: nil)
        } catch {
            return unrecorded(nil, error)
        }
    }

    /// Makes the outcome durable; false when the operation is somebody else's now.
    func complete(_ outcome: Outcome) async throws(StoreError) -> Bool {
        guard try await attempt.complete(outcome) == .applied else { return false }
        http.observer.observe(.recorded(status: Int(outcome.status), attempt), scene: http.scene, operation: attempt.id)
        return true
    }

    // MARK: Outcomes that did not count

    /// The operation was taken over while this attempt ran: what stands in the record is what counts, not this answer.
    func superseded(instead answer: HTTPAnswer?) async -> HTTPAnswer {
        http.observer.observe(.unrecorded(reason: "superseded", attempt), scene: http.scene, operation: attempt.id)
        return await whatStands(instead: answer)
    }

    private func whatStands(instead answer: HTTPAnswer?) async -> HTTPAnswer {
        if http.mode == .observe, let answer { return http.guaranteed(answer) }
        let record: Record?
        do {
            record = try await http.scene.store.record(of: attempt.id)
        } catch {
            http.observer.observe(.storeFailed(error), scene: http.scene, operation: attempt.id)
            return withoutRecord(answer)
        }
        // The key was given back while this ran, and is another request's now: nothing of that one may be shown.
        if let record, record.fingerprint != fingerprint {
            return http.reject(
                HTTPProblem(
                    .keyReused, "This request lost its claim while it ran, and the key is now that of another request, with another method, path, query, media type or body. Whether this one was applied is unknown.",
                    operation: attempt.reference), attempt.id)
        }
        switch record?.state {
        case .completed: return http.replay(record!, attempt.id)
        case .claimed, .verifying, .streaming: return http.reject(http.problem(for: .inProgress(.zero), attempt.id), attempt.id)
        case .uncertain, nil: return http.reject(http.problem(for: .uncertain(reason: record?.reason ?? "superseded"), attempt.id), attempt.id)
        }
    }

    /// Whether the policy lets answers through without a record.
    var mayGoUnrecorded: Bool { http.mode == .observe || policy.policy.onStoreFailure == .open }

    /// The handler ran, and that could not be recorded: a success that nobody could replay is not sent, unless the policy
    /// runs without a store anyway.
    func unrecorded(_ answer: HTTPAnswer?, _ error: StoreError) -> HTTPAnswer {
        endUnrecorded(error)
        return withoutRecord(answer)
    }

    func endUnrecorded(_ error: StoreError) {
        http.observer.observe(.storeFailed(error), scene: http.scene, operation: attempt.id)
        http.observer.observe(.unrecorded(reason: error.code.description, attempt), scene: http.scene, operation: attempt.id)
    }

    private func withoutRecord(_ answer: HTTPAnswer?) -> HTTPAnswer {
        if let answer, mayGoUnrecorded { return http.withoutRecord(answer) }
        return http.reject(
            HTTPProblem(
                .outcomeUncertain, status: 503, "The request was run, and what came of it could not be recorded. Repeat it with the same key.",
                operation: attempt.reference, retryAfter: 1), attempt.id)
    }
}
