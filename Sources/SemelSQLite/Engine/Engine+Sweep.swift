import Semel

/// One walk over a range of finished rows for what has outlived its retention.
struct Sweep {
    enum Target: Equatable {
        case segment(Int64)
        /// The rows that no segment covers yet.
        case tail
    }

    enum Cause {
        case itself, asked
    }

    let target: Target
    let last: Int64
    /// The last row looked at.
    var position: Int64
    /// When the next of the rows passed will be due.
    var due = Int64.max
    /// Rows passed that stay.
    var staying = 0
    var report = PurgeReport(outcomes: 0, keys: 0)
}

extension Engine {
    /// By itself the store looks at a range again only after this long, so that rows which expire one after another are
    /// removed together.
    private static let patience = Duration.seconds(300)

    func isDue(by cause: Sweep.Cause) -> Bool { sweep != nil || nextTarget(by: cause) != nil }

    private func nextTarget(by cause: Sweep.Cause) -> Sweep? {
        let time = (cause == .asked ? now.retention : Timestamp(microseconds: now.retention.microseconds - Self.patience.microseconds))
            .microseconds
        if let segment = index.segments.values.filter({ $0.due <= time }).min(by: { $0.number < $1.number }) {
            return Sweep(target: .segment(segment.number), last: segment.lastRow, position: segment.base)
        }
        guard index.tailDue <= time else { return nil }
        return Sweep(target: .tail, last: .max, position: index.lastSealedRow)
    }

    /// Looks at about `rows` rows, in a transaction that is open, and removes what is due: outcomes first, which leaves a
    /// tombstone, then keys. A live record is not in these tables, so none can be removed (H23).
    ///
    /// - Returns: what was removed, or `nil` when nothing was due.
    @discardableResult
    func sweepSlice(rows: Int, removing limit: Int = .max, by cause: Sweep.Cause) throws -> PurgeReport? {
        guard var sweep = sweep ?? nextTarget(by: cause) else { return nil }
        var report = PurgeReport(outcomes: 0, keys: 0)
        let read = try database.prepare(
            """
            SELECT id, record FROM semel_completed WHERE id > ?1 AND id <= ?2
            UNION ALL SELECT id, record FROM semel_tombstone WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3
            """, isPersistent: false)
        try read.bind(sweep.position, at: 1)
        try read.bind(sweep.last, at: 2)
        try read.bind(Int64(rows), at: 3)
        var found: [(row: Int64, bytes: [UInt8])] = []
        while try read.step() { found.append((read.integer(0), read.bytes(1))) }

        for (row, bytes) in found {
            if report.outcomes + report.keys >= limit { break }
            sweep.position = row
            guard case .success(let (id, stored)) = decode(bytes) else {
                // What cannot be read is not forgotten.
                sweep.staying += 1
                continue
            }
            guard let record = RecordMachine.settled(stored, at: now) else {
                try delete(row)
                report.keys += 1
                continue
            }
            sweep.staying += 1
            if record.outcome == nil {
                if stored.outcome != nil, let policy = policies.number(of: record.policy) {
                    try bury(row, RecordCodec.encode(id, record, policy: policy))
                    report.outcomes += 1
                }
                sweep.due = min(sweep.due, record.keyUntil.microseconds)
            } else {
                sweep.due = min(sweep.due, record.responseUntil.microseconds)
            }
        }
        if found.count < rows, sweep.position == found.last?.row ?? sweep.position {
            try finish(sweep)
            self.sweep = nil
        } else {
            self.sweep = sweep
        }
        return report
    }

    private func finish(_ sweep: Sweep) throws {
        switch sweep.target {
        case .tail:
            let due = sweep.due
            let before = index.tailDue
            // Keys that finish while the walk is under way are later than it, and enter their own time.
            whenCommitted { [unowned self] in index.tailDue = index.tailDue == before ? due : min(index.tailDue, due) }
        case .segment(let number) where sweep.staying == 0:
            try database.execute(
                """
                DELETE FROM semel_piece WHERE id BETWEEN \(SealedKeys.pieceNumber(number, 0)) AND \(SealedKeys.pieceNumber(number, SealedKeys.pieces - 1));
                DELETE FROM semel_segment WHERE id = \(number)
                """)
            markDirty()
            whenCommitted { [unowned self] in index.remove(number) }
        case .segment(let number):
            try database.execute("UPDATE semel_segment SET due = \(sweep.due) WHERE id = \(number)")
            markDirty()
            whenCommitted { [unowned self] in index.setDue(sweep.due, of: number) }
        }
    }
}
