internal import Semel
internal import ServiceLifecycle

extension ClaimsAPI {
    /// Answers when every item is settled or its time is over. Ends early when the client goes away or the server shuts
    /// down: what is still in progress is then answered so.
    func wait(_ request: APIRequest) async throws -> APIResponse {
        try await answer(request) { value, pointer throws(APIProblem) in
            let item = try ObjectReader(value, at: pointer, names: ["scope", "key", "timeout"])
            let id = try identity(item, request.caller)
            return (id: id, limit: try item.required("timeout", try item.duration("timeout", in: limits.wait)))
        } perform: { items in
            await cancelWhenGracefulShutdown {
                await endingEarly(with: request.connection) { await waitForAll(items) }
            }
        }
    }

    /// Cancels the work when the connection ends, and answers what it answers then.
    private func endingEarly(
        with connection: ConnectionEnd, _ work: @escaping @Sendable () async -> [ItemAnswer]
    ) async -> [ItemAnswer] {
        await withTaskGroup(of: [ItemAnswer]?.self) { group in
            group.addTask { await work() }
            group.addTask {
                await connection.wait()
                return nil
            }
            var answers: [ItemAnswer] = []
            for await result in group {
                group.cancelAll()
                if let result { answers = result }
            }
            return answers
        }
    }

    private func waitForAll(_ items: [(id: OperationID, limit: Duration)]) async -> [ItemAnswer] {
        await withTaskGroup(of: (Int, ItemAnswer).self) { group in
            for (index, item) in items.enumerated() {
                group.addTask { (index, await wait(for: item.id, upTo: item.limit)) }
            }
            return await group.reduce(into: [Int: ItemAnswer]()) { $0[$1.0] = $1.1 }.sorted { $0.key < $1.key }.map(\.value)
        }
    }

    private func wait(for id: OperationID, upTo limit: Duration) async -> ItemAnswer {
        guard waiters.enter() else {
            var problem = APIProblem(.tooManyWaiters, "As many callers wait as may, which is \(limits.waiters). Wait again after a while.")
            problem.retryAfter = 1
            return .failure(problem)
        }
        defer { waiters.leave() }
        do throws(StoreError) {
            return .success(try await settled(id, upTo: limit))
        } catch {
            return .failure(APIProblem(error))
        }
    }

    /// The watch begins before the record is read, so a change in between is not missed.
    private func settled(_ id: OperationID, upTo limit: Duration) async throws(StoreError) -> JSONValue {
        let operation = JSONValue.string(OperationReference(id).description)
        let deadline = environment.uptime() + limit
        while true {
            let observation = store.observe(id)
            guard let record = try await store.record(of: id) else { return ["result": "absent", "operation": operation] }
            switch record.state {
            case .completed, .uncertain: return Self.standing(record, operation)
            case .claimed, .verifying, .streaming: break
            }
            // A holder that is gone signals nothing. When its lease has lapsed the caller is told so, and may claim.
            let lease = try await store.leaseRemaining(of: record)
            let left = deadline - environment.uptime()
            guard left > .zero, lease > .zero, !Task.isCancelled else { return Self.inProgress(operation, lease) }
            await environment.firstOf(sleeping: min(left, max(lease, .milliseconds(1)))) { await observation.signalled() }
        }
    }
}
