internal import Semel

extension ClaimsAPI {
    func complete(_ request: APIRequest) async throws -> APIResponse {
        try await transition(request, "complete", names: ["outcome", "retention"]) { item throws(APIProblem) in
            let value = try item.required("outcome", item.value("outcome"))
            let outcome = try Outcome(value, at: item.place("outcome"), bodyLimit: limits.outcome)
            return .complete(outcome, retention: try item.value("retention").map { value throws(APIProblem) in
                try retention(value, item.place("retention"))
            })
        }
    }

    func suspend(_ request: APIRequest) async throws -> APIResponse {
        try await transition(request, "suspend", names: ["reason"]) { item throws(APIProblem) in
            .suspend(reason: try item.required("reason", try item.text("reason", bytes: 1000)))
        }
    }

    func renew(_ request: APIRequest) async throws -> APIResponse {
        try await transition(request, "renew", names: ["lease"]) { item throws(APIProblem) in
            .renew(try item.required("lease", try item.duration("lease", in: limits.lease)))
        }
    }

    func release(_ request: APIRequest) async throws -> APIResponse {
        try await transition(request, "release", names: []) { _ throws(APIProblem) in .release }
    }

    /// What a holder says. A token that cannot be one is refused as malformed; any other is compared by the store, and
    /// changes nothing unless it is the record's own.
    private func transition(
        _ request: APIRequest, _ name: String, names: Set<String>, change: (ObjectReader) throws(APIProblem) -> Transition.Change
    ) async throws -> APIResponse {
        try await answer(request) { value, pointer throws(APIProblem) in
            let item = try ObjectReader(value, at: pointer, names: names.union(["scope", "key", "token"]))
            let id = try identity(item, request.caller)
            let text = try item.required("token", try item.string("token"))
            guard let token = FencingToken(text) else {
                throw APIProblem(.invalidRequest, "token is not one that a claim was answered with.", at: item.place("token"))
            }
            return Transition(id: id, token: token, change: try change(item))
        } perform: { transitions in
            try await apply(transitions).map { result in
                observer.changeAnswered(name, applied: result == .applied)
                return .success(["applied": .bool(result == .applied)])
            }
        }
    }

    /// A change whose answer was lost is said again, where saying it twice is answered as saying it once. A release is
    /// not: the second finds no record. Its caller is told that it is unknown.
    private func apply(_ transitions: [Transition]) async throws(StoreError) -> [TransitionResult] {
        do {
            return try await store.apply(transitions)
        } catch where error.code == .indeterminate && !transitions.contains(where: { $0.change == .release }) {
            return try await store.apply(transitions)
        }
    }

    private func retention(_ value: JSONValue, _ pointer: String) throws(APIProblem) -> Retention {
        let item = try ObjectReader(value, at: pointer, names: ["response", "key"])
        let response = try item.duration("response", in: limits.retention)
        let key = try item.duration("key", in: limits.retention)
        if let response, let key, key < response {
            throw APIProblem(
                .invalidRequest, "The key must be kept at least as long as the response: a repeat in between would run again.",
                at: item.place("key"))
        }
        // A worker cannot take back what its claim was promised: a key that is forgotten early runs again.
        let horizon = reclaiming.policy.horizon
        if let key, key < horizon {
            throw APIProblem(
                .invalidRequest, "The key must be kept for at least \(DurationText.format(horizon)), for as long as requests may be repeated: a later one would run again.",
                at: item.place("key"))
        }
        let longest = key ?? max(Retention.standard.key, response ?? .zero)
        return Retention(response: response ?? min(Retention.standard.response, longest), key: longest)
    }
}
