import Semel

/// The places a record can be in, for laws that hold in all of them.
enum Situation: CaseIterable {
    case claimed, verifying, streaming, uncertain, completed, tombstone
}

extension StoreTrial {
    /// Leads a fresh key into a situation, held by `owner` (by Ada at the last), under a lease that does not lapse.
    func place(_ id: OperationID, in situation: Situation, by owner: Owner = .ada) async throws -> FencingToken {
        let token = try await grant(id, by: owner) { $0.lease = self.moments(1000) }.token
        switch situation {
        case .claimed: break
        case .verifying:
            try await perform(.suspend(reason: "lost"), on: id, with: token)
            let grant = try await verification(of: id, by: owner)
            try await perform(.renew(moments(1000)), on: id, with: grant.token)
            return grant.token
        case .streaming: try await perform(.stream, on: id, with: token)
        case .uncertain: try await perform(.suspend(reason: "lost"), on: id, with: token)
        case .completed:
            let retention = Retention(response: moments(1000), key: moments(2000))
            try await perform(.complete(.sample(), retention: retention), on: id, with: token)
        case .tombstone:
            let retention = Retention(response: .zero, key: moments(1000))
            try await perform(.complete(.sample(), retention: retention), on: id, with: token)
        }
        return token
    }

    /// Says that nothing about a record changed.
    func expectUnchanged(_ id: OperationID, since before: Record?, _ why: String) async throws {
        let after = try await record(of: id)
        // A lease means nothing any more once the record is uncertain or completed.
        func meaning(_ record: Record?) -> Record? {
            var record = record
            if let state = record?.state, state == .uncertain || state == .completed { record?.leaseUntil = .distantPast }
            return record
        }
        try expect(meaning(after) == meaning(before), "\(why) leaves \(before?.summary ?? "nothing") as it was", actual: after?.summary ?? "absent")
    }
}
