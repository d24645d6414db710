internal import Semel

/// What one item is answered: the result, or a problem of its own.
typealias ItemAnswer = Result<JSONValue, APIProblem>

extension ClaimsAPI {
    /// Answers one item, or each of many.
    ///
    /// - Parameters:
    ///   - read: understands one item; what it refuses is the item's own problem.
    ///   - perform: does all that were understood, together, and answers in their order.
    func answer<Item>(
        _ request: APIRequest, read: (JSONValue, _ pointer: String) throws(APIProblem) -> Item,
        perform: ([Item]) async throws -> [ItemAnswer]
    ) async throws -> APIResponse {
        do {
            let body = try request.json()
            guard let batch = try items(of: body) else {
                let answers = try await perform([try read(body, "")])
                return APIResponse(try answers[0].get())
            }
            return try await answerEach(batch, read: read, perform: perform)
        } catch let problem as APIProblem {
            observer.refused(problem.code.rawValue)
            throw problem
        }
    }

    private func answerEach<Item>(
        _ batch: [JSONValue], read: (JSONValue, _ pointer: String) throws(APIProblem) -> Item,
        perform: ([Item]) async throws -> [ItemAnswer]
    ) async throws -> APIResponse {
        var understood: [Item] = []
        var problems: [Int: APIProblem] = [:]
        for (index, value) in batch.enumerated() {
            do throws(APIProblem) {
                understood.append(try read(value, "/items/\(index)"))
            } catch {
                problems[index] = error
            }
        }
        var answers = (understood.isEmpty ? [] : try await perform(understood)).makeIterator()
        let documents = batch.indices.map { index -> JSONValue in
            let answer = problems[index].map(ItemAnswer.failure) ?? answers.next()
            switch answer {
            case .success(let document): return document
            case .failure(let problem):
                observer.refused(problem.code.rawValue)
                return ["problem": problem.document]
            case nil: preconditionFailure("every item that was understood is answered")
            }
        }
        return APIResponse(["items": .array(documents)])
    }

    /// The items of a batch, or `nil` for a body that is one item.
    private func items(of body: JSONValue) throws(APIProblem) -> [JSONValue]? {
        guard let object = body.object else {
            throw APIProblem(.invalidRequest, "An object is expected, or {\"items\": […]}, not \(body.kind).", at: "")
        }
        guard let items = object["items"] else { return nil }
        guard object.members.count == 1 else {
            throw APIProblem(.invalidRequest, "Beside items there may be no other member: send one item or a batch, not both.", at: "")
        }
        guard let array = items.array else {
            throw APIProblem(.invalidRequest, "items must be an array, not \(items.kind).", at: "/items")
        }
        guard array.count <= limits.items else {
            throw APIProblem(.requestTooLarge, "The batch has \(array.count) items; send at most \(limits.items) at a time.", at: "/items")
        }
        return array
    }

    /// Whose item it is: every item names its scope and its key.
    func identity(_ item: ObjectReader, _ caller: Caller) throws(APIProblem) -> OperationID {
        let scope = try item.required("scope", try item.text("scope", bytes: 255))
        let text = try item.required("key", try item.text("key", bytes: OperationKey.lengthLimit))
        guard caller.mayUse(scope: scope) else {
            throw APIProblem(.scopeForbidden, "The token is not bound to the scope \(JSONValue.string(scope)).", at: item.place("scope"))
        }
        do throws(OperationKeyError) {
            // The prefix keeps these apart from the scopes of the gateway.
            return OperationID(scope: Scope(Self.scene, scope), key: try OperationKey(text))
        } catch {
            throw APIProblem(.invalidRequest, "\(error)", at: item.place("key"))
        }
    }
}
