internal import Semel

extension Engine {
    // MARK: Listing

    /// A page of operations, oldest change first.
    ///
    /// Live ones are found by the index. Finished ones are in no index (it would take a third more memory a key), so a query
    /// that asks for them too looks at every key of the store, for each page.
    func operations(_ query: OperationQuery) async throws(StoreError) -> OperationPage {
        if let scope = query.scope, let key = query.key {
            let reference = OperationReference(OperationID(scope: scope, key: key))
            let now = try await self.now(reference)
            let found = try await read(reference)?.operation
            let matching = [found].compactMap(\.self).filter { query.matches($0, at: now) && query.cursor == nil }
            return OperationPage(operations: matching, cursor: nil, now: now)
        }
        let now = try await self.now()
        var page = Page(query, now)
        if query.states?.contains(.completed) ?? true {
            for node in try await client.masters() {
                try await scan(node) { references throws(StoreError) in try await look(at: references, &page) }
            }
        } else if query.states?.isEmpty == false {
            let replies = try await client.send(
                (0..<KeySpace.bucketCount).map {
                    (RedisCommand("ZRANGE", [keys.index($0), Array("0".utf8), Array("-1".utf8)]), keys.slot($0))
                })
            for reply in replies {
                if case .error(let text) = reply { throw .refusal(text, by: "\(client.location)") }
                let references = (reply.elements ?? []).compactMap { $0.bytes.flatMap { OperationReference(bytes: $0) } }
                try await look(at: references, &page)
            }
        }
        return page.result
    }

    /// The smallest of what was found beyond the cursor, kept in a heap-like bound: never more than twice a page.
    private struct Page {
        let query: OperationQuery
        let now: Timestamp
        private var found: [String: StoredOperation] = [:]
        private var isMore = false
        private var bound: String?

        init(_ query: OperationQuery, _ now: Timestamp) {
            self.query = query
            self.now = now
        }

        mutating func add(_ operation: StoredOperation) {
            guard query.matches(operation, at: now) else { return }
            let position = operation.position
            if let cursor = query.cursor, position <= cursor { return }
            if let bound, position > bound {
                isMore = true
                return
            }
            // A walk over the keys may meet one twice.
            found[position] = operation
            if found.count > 2 * max(1, query.limit) { cut() }
        }

        private mutating func cut() {
            let positions = found.keys.sorted()
            guard positions.count > query.limit else { return }
            for position in positions[max(0, query.limit)...] { found[position] = nil }
            bound = query.limit > 0 ? positions[query.limit - 1] : ""
            isMore = true
        }

        var result: OperationPage {
            var whole = self
            whole.cut()
            let positions = whole.found.keys.sorted()
            return OperationPage(
                operations: positions.compactMap { whole.found[$0] }, cursor: whole.isMore ? positions.last : nil, now: now)
        }
    }

    private func look(at references: [OperationReference], _ page: inout Page) async throws(StoreError) {
        let replies = references.isEmpty ? [] : try await run(references.map { readCall($0) })
        for (reference, reply) in zip(references, replies) {
            let answer = try answer(reply, keys.bucket(of: reference))
            guard answer.kind != .nothing else { continue }
            // What cannot be read is in no state that could be asked for; its key says so to whoever claims it.
            guard case .success(let (id, stored)) = try await decode(answer.rest),
                let record = RecordMachine.settled(stored, at: StoreTime(answer.now))
            else { continue }
            page.add(StoredOperation(id: id, scene: policies.known(PolicyNumber(record.policy))?.scene ?? "", record: record))
        }
    }

    /// Walks over all records of one server, some thousands at a time. A key that is there all the while is met at least once.
    private func scan(_ node: RedisNode, _ body: ([OperationReference]) async throws(StoreError) -> Void) async throws(StoreError) {
        var cursor = "0"
        repeat {
            let (next, references) = try await scanOnce(node, from: cursor)
            try await body(references)
            cursor = next
        } while cursor != "0"
    }

    func scanOnce(_ node: RedisNode, from cursor: String) async throws(StoreError) -> (next: String, references: [OperationReference]) {
        switch try await node.send(RedisCommand("SCAN", cursor, "MATCH", keys.pattern, "COUNT", "2000")) {
        case .failure(let failure):
            throw StoreError(.unavailable, "Redis at \(node.endpoint) was lost while its keys were read: \(failure).")
        case .success(.error(let text)): throw .refusal(text, by: "\(node.endpoint)")
        case .success(let reply):
            guard let parts = reply.elements, parts.count == 2, let next = parts[0].text else {
                throw StoreError(.damaged, "Redis at \(node.endpoint) answered SCAN with \(reply).")
            }
            return (next, (parts[1].elements ?? []).compactMap { $0.bytes.flatMap { keys.reference(ofName: $0) } })
        }
    }

    /// The store's time as the server of a key has it; in a cluster each server has its own.
    func now(_ reference: OperationReference = OperationReference(high: 0, low: 0)) async throws(StoreError) -> Timestamp {
        let bucket = keys.bucket(of: reference)
        let reply = try await client.send(RedisCommand("TIME"), keys.slot(bucket))
        if case .error(let text) = reply { throw .refusal(text, by: "\(client.location)") }
        guard let parts = reply.elements, parts.count == 2, let seconds = parts[0].integer, let rest = parts[1].integer else {
            throw StoreError(.damaged, "Redis at \(client.location) answered TIME with \(reply).")
        }
        let now = UInt64(seconds) * 1_000_000 + UInt64(rest)
        return Timestamp(microseconds: Int64(max(now, leastTime(bucket))))
    }

    // MARK: Decisions

    func resolve(
        _ id: OperationID, as resolution: Resolution, by act: OperatorAct, expecting epoch: Epoch?
    ) async throws(StoreError) -> TransitionResult {
        switch resolution {
        case .notApplied: try await decide("n", [], id, act, resolution.action, epoch)
        case .applied(let outcome):
            try await decide("a", RecordCodec.encode(outcome ?? .unknownButApplied), id, act, resolution.action, epoch)
        }
    }

    func forget(_ id: OperationID, by act: OperatorAct, expecting epoch: Epoch?) async throws(StoreError) -> TransitionResult {
        try await decide("f", [], id, act, "forget", epoch)
    }

    private func decide(
        _ what: String, _ outcome: [UInt8], _ id: OperationID, _ act: OperatorAct, _ action: String, _ epoch: Epoch?
    ) async throws(StoreError) -> TransitionResult {
        let subject = try subject(id)
        var numbers: [UInt8] = []
        numbers.appendNumber(leastTime(subject.bucket), bytes: 7)
        numbers.appendNumber(UInt64(try await currentIncarnation()), bytes: 2)
        var expected: [UInt8] = []
        if let epoch { expected.appendEpoch(epoch) }
        let entry = PendingAudit.head(act, action, subject.reference, environment.newOwner())
        let reply = try await run(
            Call(
                script: Scripts.decide, keys: [subject.name, keys.index(subject.bucket), keys.audit(subject.bucket)],
                arguments: [Array(what.utf8), numbers, outcome, entry, expected], bucket: subject.bucket))
        switch try kind(reply) {
        case .applied:
            if counts.watchesEnds { counts.ended(KeySpace.number(of: id.scope)) }
            signal(id)
            do throws(StoreError) {
                try await chainAudit()
            } catch {
                // The entry is as durable as the decision, and enters the chain with the next one or when the log is read.
            }
            return .applied
        case .superseded: return .superseded
        default: throw damaged(subject.reference, "its state is not known to this program")
        }
    }
}

extension StoredOperation {
    /// Sorts by last change, then by reference; also the cursor of a page.
    fileprivate var position: String {
        let time = String(record.changedAt.microseconds)
        return String(repeating: "0", count: max(0, 20 - time.count)) + time + reference.description
    }
}
