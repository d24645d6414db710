internal import Semel

extension ClaimsAPI {
    func claim(_ request: APIRequest) async throws -> APIResponse {
        try await answer(request) { value, pointer throws(APIProblem) in
            try readClaim(value, pointer, request.caller)
        } perform: { claims in
            let results = try await performClaims(claims)
            return zip(claims, results).map { claim, result in
                let answer = self.answer(to: claim, result)
                if let result = (try? answer.get())?["result"]?.string { observer.claimAnswered(result) }
                return answer
            }
        }
    }

    private func readClaim(_ value: JSONValue, _ pointer: String, _ caller: Caller) throws(APIProblem) -> ClaimRequest {
        let item = try ObjectReader(value, at: pointer, names: ["scope", "key", "fingerprint", "lease", "onLapse", "owner"])
        let id = try identity(item, caller)
        let fingerprint = try item.required("fingerprint", try item.text("fingerprint", bytes: 1024))
        let lease = try item.required("lease", try item.duration("lease", in: limits.lease))
        let rule = try item.choice("onLapse", ["reclaim": LapseRule.reclaim, "uncertain": .uncertain]) ?? .reclaim
        let owner = try item.text("owner", bytes: 255).map { Owner(nonce: $0, of: id) } ?? environment.newOwner()
        let active = rule == .reclaim ? reclaiming : uncertain
        return ClaimRequest(
            id: id, fingerprint: Fingerprint(of: fingerprint.utf8), owner: owner, lease: lease, onLapse: rule,
            policy: active.pinned, retention: active.policy.retention, liveLimit: active.policy.liveKeys,
            traceID: TraceContext.current?.traceID)
    }

    /// A claim whose answer was lost is said again with the same nonce, and recognises itself (H14).
    private func performClaims(_ claims: [ClaimRequest]) async throws(StoreError) -> [ClaimResult] {
        do {
            return try await store.claim(claims)
        } catch where error.code == .indeterminate {
            return try await store.claim(claims)
        }
    }

    private func answer(to claim: ClaimRequest, _ result: ClaimResult) -> ItemAnswer {
        let operation = JSONValue.string(OperationReference(claim.id).description)
        switch result {
        case .granted(let grant) where grant.kind == .verify:
            // Only somebody who can ask the target may go on; a worker of this API was never told how. The grant lapses
            // unused.
            return .success(["result": "uncertain", "operation": operation, "reason": "being-verified"])
        case .granted(let grant):
            return .success([
                "result": grant.attempt == 1 ? "claimed" : "reclaimed",
                "operation": operation,
                "epoch": JSONValue(grant.token.epoch.rawValue),
                "epoch_string": .string(grant.token.epoch.description),
                "token": .string(grant.token.description),
                "attempt": JSONValue(grant.attempt),
                "lease_remaining_ms": JSONValue(grant.leaseRemaining.roundedUpMilliseconds),
                "guarantee": .string(guarantee(of: grant.policy).name),
            ])
        case .inProgress(let lease): return .success(Self.inProgress(operation, lease))
        case .completed(let record): return .success(Self.standing(record, operation))
        case .uncertain(let record): return .success(Self.standing(record, operation))
        case .expired: return .success(["result": "expired", "operation": operation])
        case .mismatch: return .success(["result": "mismatch", "operation": operation])
        case .tooManyKeys: return .success(["result": "too_many_keys", "operation": operation])
        case .unreadable(let what):
            return .failure(APIProblem(.recordUnreadable, "The stored record is of a form this version does not know (\(what)). Ask a newer one."))
        }
    }

    static func inProgress(_ operation: JSONValue, _ lease: Duration?) -> JSONValue {
        var answer: JSONObject = JSONObject()
        answer["result"] = "in_progress"
        answer["operation"] = operation
        if let lease { answer["lease_remaining_ms"] = JSONValue(lease.roundedUpMilliseconds) }
        return .object(answer)
    }

    /// What anyone in the scope may know about a record that nobody holds.
    static func standing(_ record: Record, _ operation: JSONValue) -> JSONValue {
        guard record.state == .completed else {
            return [
                "result": "uncertain", "operation": operation, "reason": .string(record.reason ?? ""),
                "since": .string(record.changedAt.rfc3339),
            ]
        }
        guard let outcome = record.outcome else { return ["result": "expired", "operation": operation] }
        return [
            "result": "completed", "operation": operation, "completed_at": .string(record.changedAt.rfc3339),
            "outcome": outcome.document,
        ]
    }
}

extension Owner {
    /// The nonce of a caller that names itself: the same name for the same operation gives the same token again, from
    /// any server on the store and after any restart.
    ///
    /// There is no secret in it: whoever may use the scope and knows the name is the owner, as with any bearer. The name
    /// therefore has to be a nonce, drawn anew for each attempt, and not the name of a machine.
    init(nonce: String, of id: OperationID) {
        var parts = LengthPrefixed(purpose: "semel.claims.owner.1")
        parts.append(id.scope.bytes)
        parts.append(id.key.bytes)
        parts.append(nonce)
        let digest = Digest256(hashing: parts).bytes
        func word(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }
        self.init(high: word(digest[0..<8]), low: word(digest[8..<16]))
    }
}

extension Duration {
    /// Whole milliseconds, rounded up so that who waits this long has waited long enough; zero when negative.
    var roundedUpMilliseconds: Int64 {
        let microseconds = max(0, microseconds)
        return microseconds / 1000 + (microseconds % 1000 == 0 ? 0 : 1)
    }
}
