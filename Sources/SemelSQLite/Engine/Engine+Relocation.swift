public import Semel

extension Engine {
    /// A part of a page of the records that are to move; looks at no more than `rows` finished ones.
    func relocatable(
        where isIncluded: (OperationID) -> Bool, from start: ListPosition, limit: Int, rows: Int
    ) throws -> ([RelocatableRecord], ListPosition?) {
        if let (id, why) = unreadable.first(where: { isIncluded($0.key) }) { throw damaged(OperationReference(id), why) }
        let (operations, next) = try list(OperationQuery(limit: limit), from: start, limit: limit, rows: rows) { failure, bytes in
            // A record that cannot be read, but whose key says that it stays, is nobody's business here.
            let id = try? RecordCodec.decodeIdentity(bytes)
            guard id.map(isIncluded) ?? true else { return }
            throw StoreError(.damaged, "\(place.path): a record that is to move cannot be read: \(failure)")
        }
        return (try operations.filter { isIncluded($0.id) }.map { try relocatable($0.id, $0.record) }, next)
    }

    func relocatable(_ ids: [OperationID]) throws -> [RelocatableRecord] {
        try ids.compactMap { id in
            try RecordMachine.settled(readable(id).record, at: now).map { try relocatable(id, $0) }
        }
    }

    private func relocatable(_ id: OperationID, _ record: Record) throws -> RelocatableRecord {
        guard let policy = policies.policy(record.policy) else { throw damaged(OperationReference(id), "its policy is not kept") }
        return RelocatableRecord(id: id, record: record, policy: policy, leaseRemaining: record.leaseUntil - now.lease)
    }

    func adopt(_ records: [RelocatableRecord], above floor: Epoch) throws {
        raiseEpochs(above: floor)
        for moved in records {
            raiseEpochs(above: moved.record.epoch)
            try keep(moved.policy)
            try write(.remove, to: moved.id, reference: nil, try readable(moved.id))
            try write(.put(moved.record(at: now)), to: moved.id, reference: nil, .absent)
        }
    }

    func relinquish(_ ids: [OperationID]) throws {
        for id in ids { try write(.remove, to: id, reference: nil, try readable(id)) }
    }
}

extension SQLiteStore: RelocatableStore {
    public func relocatable(
        where isIncluded: @escaping @Sendable (OperationID) -> Bool, after cursor: String?, limit: Int
    ) async throws(StoreError) -> RelocationPage {
        var position: Engine.ListPosition? = Engine.ListPosition()
        if let cursor {
            guard let start = Engine.ListPosition(cursor) else { return RelocationPage(records: [], cursor: nil) }
            position = start
        }
        var found: [RelocatableRecord] = []
        while let start = position, found.count < limit {
            let rest = limit - found.count
            let (part, next) = try await writer.submit { engine in
                try engine.relocatable(where: isIncluded, from: start, limit: rest, rows: 1000)
            }
            found += part
            position = next
        }
        return RelocationPage(records: found, cursor: position?.cursor)
    }

    public func relocatable(_ ids: [OperationID]) async throws(StoreError) -> [RelocatableRecord] {
        try await writer.submit { try $0.relocatable(ids) }
    }

    public func adopt(_ records: [RelocatableRecord], above floor: Epoch) async throws(StoreError) {
        try await writer.submit { try $0.adopt(records, above: floor) }
    }

    public func relinquish(_ ids: [OperationID]) async throws(StoreError) {
        guard !ids.isEmpty else { return }
        try await writer.submit { try $0.relinquish(ids) }
    }

    public func highestEpoch() async throws(StoreError) -> Epoch { try await writer.submit { $0.lastEpoch } }
}
