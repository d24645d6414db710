internal import HTTPTypes
internal import NIOCore
internal import Semel

extension HTTPScene {
    /// Every answer under the policy names its level.
    func guaranteed(_ answer: HTTPAnswer) -> HTTPAnswer {
        var answer = answer
        answer.head.headerFields[.semelGuarantee] = scene.guarantee.name
        return answer
    }

    func reject(_ problem: HTTPProblem, _ id: OperationID?) -> HTTPAnswer {
        observer.observe(.rejected(problem.code, status: problem.status), scene: scene, operation: id)
        return guaranteed(problem.answer(pages: policy.problemPages))
    }

    /// The recorded answer, told to be one.
    func replay(_ record: Record, _ id: OperationID) -> HTTPAnswer {
        guard let outcome = record.outcome else { return reject(problem(for: .expired, id), id) }
        guard var answer = outcome.answer() else { return reject(notKept(outcome, id), id) }
        observer.observe(.replayed(status: Int(outcome.status)), scene: scene, operation: id)
        answer.head.headerFields[.idempotentReplayed] = "true"
        answer.head.headerFields[.idempotencyKeyExpires] = CalendarTime(record.responseUntil).httpDate
        return guaranteed(answer)
    }

    /// Whether a key that is absent proves that nothing was applied: not so where a run that proved nothing gives its key
    /// back, because the effect can bear a second run under the *same* key.
    var absenceIsProof: Bool {
        scene.active.assessment.onError != .rerun && scene.active.assessment.onLapse != .reclaim
    }

    // MARK: Problems

    func problem(for refusal: Refusal, _ id: OperationID) -> HTTPProblem {
        let operation = OperationReference(id)
        switch refusal {
        case .mismatch:
            return HTTPProblem(.keyReused, "The key was used before for a request that differs in method, path, query, media type or body. Send the request as it was, or a new key for a new request.", operation: operation)
        case .inProgress:
            return HTTPProblem(.inProgress, "The first request with this key is running. Repeat this one to get its response.", operation: operation, retryAfter: 1)
        case .uncertain(let reason):
            return HTTPProblem(.outcomeUncertain, "The request was started, and whether it was applied is unknown (\(reason ?? "no reason given")). Nothing runs under this key until that is resolved; repeat the request later.", operation: operation)
        case .expired:
            return HTTPProblem(.outcomeExpired, "The request was applied, and its response was kept for \(DurationText.format(policy.policy.retention.response)).", operation: operation)
        case .tooManyKeys:
            return HTTPProblem(.tooManyKeys, "There are as many unfinished requests as may be. Repeat this one when some are finished.", operation: operation, isSafeForNewKey: absenceIsProof, retryAfter: 1)
        case .unreadable(let what):
            return HTTPProblem(.storeUnavailable, "What is recorded under this key cannot be read by this version (\(what)), so nothing runs.", operation: operation, retryAfter: 30)
        }
    }

    func unavailable(_ error: StoreError, _ id: OperationID) -> HTTPProblem {
        HTTPProblem(
            .storeUnavailable, "The request cannot be recorded, so it was not run.", operation: OperationReference(id),
            retryAfter: error.isTransient ? 1 : 30)
    }

    private func notKept(_ outcome: Outcome, _ id: OperationID) -> HTTPProblem {
        var detail = "The request was applied."
        if outcome.status > 0 { detail += " Its response had the status \(outcome.status)" }
        if case .omitted(let length?, let digest) = outcome.body {
            detail += " and \(length) bytes"
            if let digest = digest.flatMap(Digest256.init(bytes:)) { detail += " with the SHA-256 \(digest)" }
        }
        if outcome.status > 0 { detail += "; it was not kept." } else { detail += " Its response is not known." }
        return HTTPProblem(.outcomeUnavailable, detail, operation: OperationReference(id))
    }
}

extension HTTPProblem {
    /// Nothing was sent, so this run applied nothing.
    static func refused(_ why: String, _ id: OperationID?, isSafeForNewKey: Bool) -> HTTPProblem {
        HTTPProblem(
            .upstreamRefused, "Nothing was sent to the service: \(why). Repeat the request.",
            operation: id.map(OperationReference.init), isSafeForNewKey: isSafeForNewKey)
    }

    static func lost(_ why: String, timedOut: Bool, _ id: OperationID?) -> HTTPProblem {
        HTTPProblem(
            .upstreamLost, status: timedOut ? 504 : 502,
            "The request was sent and its response was lost: \(why). It may have been applied. Repeat it with the same key.",
            operation: id.map(OperationReference.init))
    }
}

extension HTTPAnswer {
    /// What a handler that threw amounts to.
    static var failed: HTTPAnswer { HTTPAnswer(HTTPResponse(status: .internalServerError)) }

    var isEventStream: Bool {
        // Most types are told from it by their length, or by a letter in the middle.
        guard let type = head.headerFields.value(of: .contentType), type.utf8.count >= 17, type.utf8.contains(UInt8(ascii: "v")) || type.utf8.contains(UInt8(ascii: "V"))
        else { return false }
        return MediaType.essence(of: type) == "text/event-stream"
    }
}
