internal import Logging
internal import Semel

/// What people do with operations: look, decide, and read what was decided.
struct OperatorRoutes: Sendable {
    let store: any OperationStore
    /// `store`, where it is one with a second behind it.
    var pair: Fallback?
    /// The scenes as they are configured now.
    let scenes: @Sendable () -> [SceneReport]
    let logger: Logger

    // MARK: Reading

    /// Whether what the first store knows is missing from what is shown.
    private var isDegraded: Bool { if case .degraded = pair?.phase { true } else { false } }

    func list(_ request: APIRequest) async throws -> APIResponse {
        let query = request.query
        try query.require(only: ["state", "scene", "scope", "key", "older_than", "limit", "cursor"])
        let scopes = query.all("scope")
        // Before and after: the store may leave or come back meanwhile.
        let wasDegraded = isDegraded
        let page = try await store.operations(
            OperationQuery(
                states: try states(query), scene: try query.one("scene"), scope: scopes.isEmpty ? nil : Scope(parts: scopes),
                key: try query.one("key").map(key), unchangedFor: try query.one("older_than").map(age),
                limit: Int(try query.integer("limit", in: 1...1000, default: 100)), cursor: try query.one("cursor")))
        return APIResponse([
            "operations": .array(page.operations.map { $0.document(now: page.now) }),
            "cursor": page.cursor.map(JSONValue.string) ?? .null,
            "now": .string(page.now.rfc3339),
            "degraded": .bool(wasDegraded || isDegraded),
        ])
    }

    func show(_ request: APIRequest) async throws -> APIResponse {
        try request.query.require(only: ["include"])
        let wanted = try request.query.one("include")
        guard wanted == nil || wanted == "outcome" else {
            throw APIProblem(.invalidRequest, "The query parameter include must be outcome.")
        }
        guard wanted == nil || request.caller.isOperator else {
            throw APIProblem(.forbidden, "Headers and body of an outcome are shown to the role operator only.")
        }
        let operation = try await find(request)
        return APIResponse(try await details(of: operation, withOutcome: wanted != nil))
    }

    func listScenes(_ request: APIRequest) async throws -> APIResponse {
        try request.query.require(only: [])
        return APIResponse(["scenes": .array(scenes().map(\.document))])
    }

    private func states(_ query: QueryParameters) throws(APIProblem) -> Set<RecordState>? {
        guard let text = try query.one("state") else { return nil }
        var states: Set<RecordState> = []
        for name in text.split(separator: ",", omittingEmptySubsequences: false) {
            guard let state = RecordState.allCases.first(where: { $0.name == name }) else {
                let known = RecordState.allCases.map(\.name).joined(separator: ", ")
                throw APIProblem(.invalidRequest, "The query parameter state must be one or more of \(known), with commas between.")
            }
            states.insert(state)
        }
        return states
    }

    private func key(_ text: String) throws(APIProblem) -> OperationKey {
        do throws(OperationKeyError) { return try OperationKey(text) } catch { throw APIProblem(.invalidRequest, "\(error)") }
    }

    private func age(_ text: String) throws(APIProblem) -> Duration {
        do throws(UnitTextError) { return try DurationText.parse(text) } catch {
            throw APIProblem(.invalidRequest, "The query parameter older_than: \(error)")
        }
    }

    private func find(_ request: APIRequest) async throws -> StoredOperation {
        let text = request.parameters["operation"] ?? ""
        guard let reference = OperationReference(text) else {
            throw APIProblem(.operationUnknown, "An operation's reference is op_ and 32 hexadecimal digits.")
        }
        guard let operation = try await store.operation(reference) else {
            if case .degraded(let why) = pair?.phase {
                throw APIProblem(StoreError(.unavailable, "the second store does not know \(reference), and the store is away (\(why)): ask again when it is back"))
            }
            throw APIProblem(.operationUnknown, "No operation \(reference) is known: it never ran, or its key was forgotten.")
        }
        return operation
    }

    private func details(of operation: StoredOperation, withOutcome: Bool) async throws -> JSONValue {
        let policy = try await store.policy(operation.record.policy)
        let lease = try await store.leaseRemaining(of: operation.record)
        return operation.details(policy: policy, leaseRemaining: lease, withOutcome: withOutcome)
    }

    // MARK: Deciding

    func resolve(_ request: APIRequest) async throws -> APIResponse {
        try request.query.require(only: [])
        let body = try ObjectReader(try request.json(), names: ["resolution", "outcome", "actor", "reason", "epoch", "epoch_string"])
        let isApplied = try body.required("resolution", try body.choice("resolution", ["applied": true, "not-applied": false]))
        let outcome = try body.value("outcome").map { value throws(APIProblem) in
            try Outcome(value, at: "/outcome", bodyLimit: 256 << 10)
        }
        guard isApplied || outcome == nil else {
            throw APIProblem(.invalidRequest, "What was not applied has no outcome: leave outcome out, or resolve as applied.", at: "/outcome")
        }
        let act = try act(body, request.caller)
        let epoch = try epoch(body)
        let operation = try await find(request)
        let resolution = isApplied ? Resolution.applied(outcome) : .notApplied
        guard try await store.resolve(operation.id, as: resolution, by: act, expecting: epoch) == .applied else {
            throw try await refusal(
                .operationNotResolvable, operation, epoch,
                "Only one that is uncertain, or whose holder's lease has lapsed, can be resolved; look at it again.")
        }
        return try await done(isApplied ? "resolve-applied" : "resolve-not-applied", act, operation)
    }

    func forget(_ request: APIRequest) async throws -> APIResponse {
        try request.query.require(only: [])
        let body = try ObjectReader(try request.json(), names: ["actor", "reason", "epoch", "epoch_string"])
        let act = try act(body, request.caller)
        let epoch = try epoch(body)
        let operation = try await find(request)
        guard try await store.forget(operation.id, by: act, expecting: epoch) == .applied else {
            throw try await refusal(
                .operationNotForgettable, operation, epoch, "Resolve it first; only a finished one can be forgotten.")
        }
        return try await done("forget", act, operation)
    }

    /// Who does it and why. A token's holder is named by the token; what the body says besides is kept beside it, never
    /// instead.
    private func act(_ body: ObjectReader, _ caller: Caller) throws(APIProblem) -> OperatorAct {
        let reason = try body.required("reason", try body.text("reason", bytes: 1000))
        guard reason.contains(where: { !$0.isWhitespace }) else {
            throw APIProblem(.invalidRequest, "reason is empty; say why.", at: "/reason")
        }
        let named = try body.text("actor", bytes: 200)
        guard case .holder(let token) = caller else {
            return OperatorAct(actor: try body.required("actor", named), reason: reason)
        }
        guard let named, ExactText(named) != ExactText(token.name) else { return OperatorAct(actor: token.name, reason: reason) }
        return OperatorAct(actor: "\(token.name) (\(named))", reason: reason)
    }

    /// A decision is about what was seen: with the epoch that was, the store lets it touch no later attempt (H61).
    private func epoch(_ body: ObjectReader) throws(APIProblem) -> Epoch? {
        let number = try body.value("epoch").map { value throws(APIProblem) in
            try wholeNumber(value.number?.lexeme, "epoch must be a whole number, as the operation showed it.", at: "/epoch")
        }
        let text = try body.string("epoch_string").map { text throws(APIProblem) in
            try wholeNumber(text, "epoch_string must be the digits of a whole number, as the operation showed it.", at: "/epoch_string")
        }
        if let number, let text, number != text {
            throw APIProblem(
                .invalidRequest, "epoch and epoch_string differ: a client whose numbers are doubles rounds the first. Send only the second.",
                at: "/epoch")
        }
        return (text ?? number).map(Epoch.init(rawValue:))
    }

    private func wholeNumber(_ digits: String?, _ problem: String, at place: String) throws(APIProblem) -> UInt64 {
        guard let digits, digits.utf8.first != UInt8(ascii: "+"), let number = UInt64(digits) else {
            throw APIProblem(.invalidRequest, problem, at: place)
        }
        return number
    }

    /// Why the store refused a decision. It is read again for that, and may have gone on since; no epoch comes twice, so a
    /// decision about another epoch than the record's was refused for it.
    private func refusal(
        _ code: APIProblem.Code, _ operation: StoredOperation, _ epoch: Epoch?, _ remedy: String
    ) async throws -> APIProblem {
        guard let record = try await store.record(of: operation.id) else {
            return APIProblem(.operationChanged, "The operation is gone: somebody decided about it meanwhile, or it was released. Nothing was changed.")
        }
        if let epoch, record.epoch != epoch {
            return APIProblem(
                .operationChanged,
                "The decision is about epoch \(epoch), and the operation is \(record.state.name) at epoch \(record.epoch) now. Nothing was changed; look at it again and decide anew.")
        }
        return APIProblem(code, "The operation is \(record.state.name). \(remedy)")
    }

    private func done(_ action: String, _ act: OperatorAct, _ operation: StoredOperation) async throws -> APIResponse {
        logger.notice(
            "An operation was decided by hand.",
            metadata: [
                "operation": .string(operation.reference.description), "scene": .string(operation.scene), "step": .string(action),
                "actor": .string(act.actor), "reason": .string(act.reason),
            ])
        var after: JSONValue = .null
        if let now = try await store.operation(operation.reference) { after = try await details(of: now, withOutcome: false) }
        return APIResponse(["applied": true, "operation": after])
    }
}
