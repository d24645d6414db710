internal import SemelCore

/// What came of moving slots to another shard.
public struct MoveReport: Sendable {
    /// The epoch of the map that holds now.
    public var epoch: UInt64
    /// Records copied, repeats included.
    public var records: Int
    /// For how long the keys that moved were frozen.
    public var frozen: Duration
    /// Why copies of what moved are still in the shard it came from; `nil` when there are none. They are not seen any more,
    /// and are removed before anything is moved there again.
    public var leftovers: StoreError?
}

extension Sharded where Shard: RelocatableStore {
    /// Moves slots to another shard, with every record in them, while both go on working.
    ///
    /// First everything is copied, while it is noted which keys are touched meanwhile, and those are copied again until
    /// few are left. Then the slots are frozen: whoever is at work on one of their keys finishes, whoever comes waits. The
    /// rest is copied, the map of the next epoch is made durable in the home shard, and the slots open at their new place.
    /// Only then are the old copies removed. So at every moment exactly one shard decides about a key (H59).
    ///
    /// A crash before the map is durable leaves everything where it was, a crash after it leaves old copies, which nobody
    /// sees. An error before that point is thrown, and nothing has moved.
    ///
    /// - Throws: `indeterminate` when nobody knows whether the map was made: this value then answers `stopped` until
    ///   it is opened anew. `damaged` when a record cannot be read: it must not be left behind in silence.
    @discardableResult
    public func move(_ slots: Set<Int>, to name: String) async throws(StoreError) -> MoveReport {
        guard let target = names.firstIndex(of: name), slots.allSatisfy({ (0..<ShardMap.slotCount).contains($0) }) else {
            throw StoreError(.misconfigured, "there is no shard \(name), or a slot is not one of 0 to \(ShardMap.slotCount - 1)")
        }
        await moving.acquire()
        defer { moving.release() }
        let (map, owners, stopped) = state.withLock { ($0.map, $0.owners, $0.stopped) }
        if let stopped { throw stopped }
        let leaving = slots.filter { owners[$0] != target }
        let sources = Set(leaving.map { owners[$0] })
        var report = MoveReport(epoch: map.epoch, records: 0, frozen: .zero, leftovers: nil)
        guard !leaving.isEmpty else { return report }

        // What an earlier move left at the target would outlive what is true now.
        try await clear(leaving, from: shards[target])

        await gate.close(leaving)
        state.withLock { $0.copied = (leaving, []) }
        gate.open(leaving)
        defer { state.withLock { $0.copied = nil } }

        for source in sources { report.records += try await copyAll(leaving, from: shards[source], to: shards[target]) }
        for _ in 0..<8 {
            let touched = state.withLock { state in
                defer { state.copied?.touched = [] }
                return state.copied?.touched ?? []
            }
            report.records += try await copy(touched, owners, to: shards[target])
            if touched.count < 200 { break }
        }

        let start = mapRecord.environment.uptime()
        await gate.close(leaving)
        defer { gate.open(leaving) }
        let rest = state.withLock { $0.copied?.touched ?? [] }
        report.records += try await copy(rest, owners, to: shards[target])
        for source in sources { try await shards[target].adopt([], above: try await shards[source].highestEpoch()) }

        let next = map.moving(leaving, to: name)
        do throws(StoreError) {
            try await mapRecord.publish(next)
        } catch {
            if error.code == .indeterminate || error.code == .inUse {
                let why = StoreError(
                    .stopped, "it is not known which shard map holds (\(error.message)): open the shards anew", underlying: error)
                state.withLock { $0.stopped = why }
            }
            throw error
        }
        state.withLock { state in
            state.map = next
            state.owners = Self.owners(in: next, names)
            state.copied = nil
        }
        report.epoch = next.epoch
        report.frozen = mapRecord.environment.uptime() - start
        // Watchers of the old place are signalled by the removal; they must find the new one open. The second opening, by the
        // defer above, finds nothing closed.
        gate.open(leaving)
        do throws(StoreError) {
            for source in sources { try await clear(leaving, from: shards[source]) }
        } catch {
            report.leftovers = error
        }
        return report
    }

    private func copyAll(_ slots: Set<Int>, from source: Shard, to target: Shard) async throws(StoreError) -> Int {
        var (count, cursor): (Int, String?) = (0, nil)
        repeat {
            let page = try await source.relocatable(where: Self.isIn(slots), after: cursor, limit: 500)
            try await target.adopt(page.records, above: .zero)
            count += page.records.count
            cursor = page.cursor
        } while cursor != nil
        return count
    }

    /// Makes single keys at the target what they are at their source.
    private func copy(_ ids: Set<OperationID>, _ owners: [Int], to target: Shard) async throws(StoreError) -> Int {
        var count = 0
        for (source, part) in Dictionary(grouping: ids, by: { owners[ShardMap.slot(of: $0)] }) {
            for start in stride(from: 0, to: part.count, by: 500) {
                let some = Array(part[start..<min(start + 500, part.count)])
                let records = try await shards[source].relocatable(some)
                let present = Set(records.map(\.id))
                try await target.adopt(records, above: .zero)
                try await target.relinquish(some.filter { !present.contains($0) })
                count += records.count
            }
        }
        return count
    }

    private func clear(_ slots: Set<Int>, from shard: Shard) async throws(StoreError) {
        var cursor: String?
        repeat {
            let page = try await shard.relocatable(where: Self.isIn(slots), after: cursor, limit: 500)
            try await shard.relinquish(page.records.map(\.id))
            cursor = page.cursor
        } while cursor != nil
    }

    /// The map's own records stay in the home shard.
    private static func isIn(_ slots: Set<Int>) -> @Sendable (OperationID) -> Bool {
        { $0.scope != ShardMapRecord.scope && slots.contains(ShardMap.slot(of: $0)) }
    }
}
