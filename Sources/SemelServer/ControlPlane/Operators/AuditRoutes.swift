internal import Semel

/// The audit log, and whether it is whole.
struct AuditRoutes: Sendable {
    let store: any OperationStore

    /// Entries, oldest first, and whether they follow from each other and from the one before them.
    func list(_ request: APIRequest) async throws -> APIResponse {
        try request.query.require(only: ["after", "limit"])
        let after = try request.query.integer("after", in: 0 ... .max, default: 0)
        let limit = Int(try request.query.integer("limit", in: 1...1000, default: 100))
        var entries: [AuditEntry]
        var start = (sequence: Int64(0), hash: AuditEntry.genesisHash)
        if after > 0 {
            // The entry before the page is read too: the first one of the page must follow from it.
            entries = try await store.audit(after: after - 1, limit: limit + 1)
            if entries.first?.sequence == after {
                let anchor = entries.removeFirst()
                start = (anchor.sequence, anchor.hash)
            } else {
                start.sequence = after
            }
        } else {
            entries = try await store.audit(after: 0, limit: limit)
        }
        entries = Array(entries.prefix(limit))
        let broken = AuditEntry.firstBreak(in: entries, following: start)
        var document: JSONObject = JSONObject()
        document["entries"] = .array(entries.map(\.document))
        document["intact"] = .bool(broken == nil)
        document["broken_at"] = broken.map { JSONValue($0.sequence) } ?? .null
        return APIResponse(.object(document))
    }

    /// Walks the whole log. With `sequence` and `hash`, as exported before, it is also checked that this entry is still
    /// there and still the same: only that shows a log that was cut off or computed anew as a whole.
    func verify(_ request: APIRequest) async throws -> APIResponse {
        try request.query.require(only: ["sequence", "hash"])
        let expected = try expectation(request.query)
        var start = (sequence: Int64(0), hash: AuditEntry.genesisHash)
        var isFound = expected == nil
        var broken: AuditEntry?
        while broken == nil {
            let page = try await store.audit(after: start.sequence, limit: 1000)
            broken = AuditEntry.firstBreak(in: page, following: start)
            if let expected, page.contains(where: { $0.sequence == expected.sequence && $0.hash == expected.hash }) { isFound = true }
            guard broken == nil, let last = page.last else { break }
            start = (last.sequence, last.hash)
        }
        var document: JSONObject = JSONObject()
        document["intact"] = .bool(broken == nil && isFound)
        document["entries"] = JSONValue(start.sequence)
        document["last_hash"] = .string(hexadecimal(start.hash))
        document["broken_at"] = broken.map { JSONValue($0.sequence) } ?? .null
        if expected != nil { document["expected_found"] = .bool(isFound) }
        return APIResponse(.object(document))
    }

    private func expectation(_ query: QueryParameters) throws(APIProblem) -> (sequence: Int64, hash: [UInt8])? {
        let sequence = try query.integer("sequence", in: 1 ... .max, default: 0)
        guard let text = try query.one("hash") else {
            guard sequence == 0 else { throw APIProblem(.invalidRequest, "sequence and hash are given together.") }
            return nil
        }
        guard let digest = Digest256(hexadecimal: text) else { throw APIProblem(.invalidRequest, "hash must be 64 hexadecimal digits.") }
        guard sequence > 0 else { throw APIProblem(.invalidRequest, "sequence and hash are given together.") }
        return (sequence, digest.bytes)
    }
}

extension AuditEntry {
    fileprivate var document: JSONValue {
        [
            "sequence": JSONValue(sequence), "time": .string(time.rfc3339), "actor": .string(actor), "reason": .string(reason),
            "action": .string(action), "operation": .string(operation.description), "scene": .string(scene), "detail": .string(detail),
            "previous_hash": .string(hexadecimal(previousHash)), "hash": .string(hexadecimal(hash)),
        ]
    }
}

private func hexadecimal(_ bytes: [UInt8]) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}
