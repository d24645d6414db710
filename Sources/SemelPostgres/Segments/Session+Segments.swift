#if Postgres
import Semel

extension Session {
    /// Knows the map as it is in the database now.
    @discardableResult
    func refreshMap() throws -> SegmentMap { try shared.segments.refresh(shared, connection()) }

    // MARK: Sealing

    /// Seals the current segment when it is full or old. What keeps it from that is tried again later: until then the
    /// segment only grows.
    func sealIfDue() {
        guard shared.segments.beginSealing(at: shared.environment.uptime()) else { return }
        var hasSucceeded = false
        var failure: StoreError?
        do {
            hasSucceeded = try seal()
        } catch {
            if error is Connection.Lost { disconnect() } else { giveUpTransaction() }
            failure = shared.error(error)
        }
        shared.segments.endSealing(hasSucceeded, failure, at: shared.environment.uptime())
    }

    /// Seals the current segment and begins the next.
    ///
    /// Claims share a lock from before they look at the map until they are committed. Having that lock alone, nobody's claim
    /// is under way: whoever claims next sees the new map, and every key of the old one.
    /// - Returns: whether there is another map now, made here or elsewhere.
    private func seal() throws -> Bool {
        guard let map = try beginChange(patience: shared.segments.sealingPatience) else { return false }
        guard map.version == shared.segments.map.version else {
            giveUpTransaction()
            try refreshMap()
            return true
        }
        let schema = shared.target.quotedSchema
        let old = map.current.number
        // The table is made before, so that all others wait only for a commit.
        _ = try run(Schema.segment(old + 1, in: schema).map { .text($0) })
        return try change(
            [
                "UPDATE \(schema).segment SET sealed = \(Statements.microseconds), mark = \(newMark()) WHERE number = \(old)",
                "INSERT INTO \(schema).segment (number, began) VALUES (\(old + 1), \(Statements.microseconds))",
            ])
    }

    /// Drops a sealed segment, whole.
    private func drop(_ number: Int32) throws -> Bool {
        guard let map = try beginChange(patience: .milliseconds(250)) else { return false }
        guard map.sealed.contains(where: { $0.number == number }) else {
            giveUpTransaction()
            return false
        }
        let schema = shared.target.quotedSchema
        return try change(["DELETE FROM \(schema).segment WHERE number = \(number)", "DROP TABLE \(schema).\(Segment.table(number))"])
    }

    /// Begins a transaction that is to change the map.
    /// - Parameter patience: how long it may wait for those who claim, while all new claims wait for it.
    /// - Returns: the map as it is; `nil` when somebody else is about to change it.
    private func beginChange(patience: Duration) throws -> SegmentMap? {
        let isAlone = try run([
            .text("BEGIN"), .text("SET LOCAL lock_timeout = '\(max(1, patience.milliseconds))ms'"), .text("SELECT pg_try_advisory_xact_lock(\(shared.target.changeLock))"),
        ])[2]
        guard isAlone.flag(0, 0) else {
            giveUpTransaction()
            return nil
        }
        return try SegmentMap.read(connection(), in: shared.target.quotedSchema, within: answerLimit).map
    }

    /// Changes the map with the lock on it, and commits.
    private func change(_ statements: [String]) throws -> Bool {
        var commands: [Connection.Command] = [.text("SELECT pg_advisory_xact_lock(\(shared.target.mapLock))")]
        commands += statements.map { .text($0) }
        commands += [.text("UPDATE \(shared.target.quotedSchema).segment_map SET version = \(newMark())"), .text("COMMIT")]
        do {
            _ = try run(commands)
        } catch let error as PostgresError where error.isTimeout {
            giveUpTransaction()
            return false
        }
        try refreshMap()
        return true
    }

    private func newMark() -> Int64 { Int64.random(in: 1 ... .max) }

    // MARK: Leaving

    /// Drops the sealed segments whose completed records have all outlived their key retentions. What is still live in them
    /// moves to the current segment first, unless it is more than a quarter.
    /// - Returns: how many keys went with them.
    func dropOutlived() throws -> Int {
        try refreshMap()
        var keys = 0
        let schema = shared.target.quotedSchema
        for segment in shared.segments.map.sealed {
            let found = try run([
                .text("SELECT until <= \(Statements.microseconds), is_settled, keys FROM \(schema).segment WHERE number = \(segment.number)")
            ])[0]
            guard found.count == 1 else { continue }
            var isOver = !found.isNull(0, 0) && found.flag(0, 0)
            var isSettled = found.flag(0, 1)
            var count = found.integer(0, 2, as: Int64.self)
            if found.isNull(0, 0) { (isOver, isSettled, count) = try settle(segment) }
            if isOver, !isSettled {
                // A segment that is live for a good part stays, or the same records would move again and again.
                let live = try run([
                    .text("SELECT count(*) FROM \(schema).\(Segment.table(segment.number)) WHERE \(Statements.isLive)")
                ])[0].integer(0, 0, as: Int64.self)
                guard live * 4 <= count else { continue }
                try moveLive(from: segment)
                // Without anything live nothing in it can change any more, but for what is removed.
                let keys: Int64
                (isOver, isSettled, keys) = try settle(segment)
                count = keys
            }
            guard isOver, isSettled else { continue }
            // Another time, when somebody claims in a long transaction, or changes the map too.
            guard try drop(segment.number) else { break }
            keys += Int(count)
        }
        return keys
    }

    /// Moves what is live into the current segment, a part at a time.
    private func moveLive(from segment: Segment) throws {
        let schema = shared.target.quotedSchema
        let table = "\(schema).\(Segment.table(segment.number))"
        while true {
            let map = shared.segments.map
            let replies = try run([
                .prepared(shared.statements.share, Parameters()),
                .text(
                    """
                    WITH moved AS (
                        DELETE FROM \(table) WHERE (SELECT version FROM \(schema).segment_map) = \(map.version) AND id IN (
                            SELECT id FROM \(table) WHERE \(Statements.isLive) ORDER BY id LIMIT 1000 FOR UPDATE)
                        RETURNING \(Statements.columns))
                    INSERT INTO \(schema).\(Segment.table(map.current.number)) (\(Statements.columns)) SELECT \(Statements.columns) FROM moved
                    """),
                .prepared(shared.statements.version, Parameters()),
            ])
            guard replies[2].integer(0, 0, as: Int64.self) == map.version else {
                try refreshMap()
                continue
            }
            shared.segments.added(replies[1].affected)
            if replies[1].affected < 1000 { return }
        }
    }

    /// Reads a sealed segment through, and writes down when all its completed records are outlived, and whether that is final.
    private func settle(_ segment: Segment) throws -> (isOver: Bool, isSettled: Bool, keys: Int64) {
        let schema = shared.target.quotedSchema
        let long = Duration.seconds(3600)
        let replies = try connection().run(
            [
                .text("BEGIN"), .text("SET LOCAL enable_seqscan = on"), .text("SET LOCAL statement_timeout = '\(long.milliseconds)ms'"),
                .text(
                    """
                    UPDATE \(schema).segment s SET until = f.until, is_settled = f.live = 0, keys = f.keys
                    FROM (
                        SELECT coalesce(max(\(Statements.forgotten)) FILTER (WHERE NOT \(Statements.isLive)), 0) AS until,
                            count(*) FILTER (WHERE \(Statements.isLive)) AS live, count(*) AS keys
                        FROM \(schema).\(Segment.table(segment.number))) f
                    WHERE s.number = \(segment.number)
                    RETURNING s.until <= \(Statements.microseconds), s.is_settled, s.keys
                    """), .text("COMMIT"),
            ], within: long
        ).map { reply throws(PostgresError) in try reply.get() }
        guard replies[3].count == 1 else { return (false, false, 0) }
        return (replies[3].flag(0, 0), replies[3].flag(0, 1), replies[3].integer(0, 2))
    }

    // MARK: Filters

    /// How often a stranger is looked for in a sealed segment in vain.
    private static let falsePositiveRate = 0.001
    /// How many blocks of a table are read at a time.
    private static let blocks = 1000

    /// A sealed segment's filter: as it is kept, or made of its keys and then kept for others.
    /// - Returns: `nil` when there is no such segment any more, or somebody else is making filters.
    func filter(of segment: Segment, isOver: () -> Bool) throws -> BlockedBloomFilter? {
        guard let mark = segment.mark else { return nil }
        let schema = shared.target.quotedSchema
        let place = "WHERE number = \(segment.number) AND mark = \(mark)"
        // One view for all that is read: a row that is changed meanwhile lies elsewhere then, and must not be missed.
        let replies = try run([
            .text("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"), .text("SELECT pg_try_advisory_xact_lock(\(shared.target.filterLock))"),
            .text("SELECT filter FROM \(schema).segment \(place)"),
        ])
        defer { giveUpTransaction() }
        guard replies[2].count == 1 else { return nil }
        // One that cannot be read is made anew.
        if let bytes = replies[2].optionalBytes(0, 0), let filter = try? BlockedBloomFilter(restoring: bytes) { return filter }
        guard replies[1].flag(0, 0) else { return nil }

        let table = "\(schema).\(Segment.table(segment.number))"
        let found = try run([.text("SELECT pg_relation_size('\(table)') / current_setting('block_size')::bigint")])[0]
        // Its table may be dropped just now.
        guard !found.isNull(0, 0) else { return nil }
        let size = found.integer(0, 0, as: Int64.self)
        var hashes: [UInt64] = []
        for start in stride(from: 0, through: size, by: Self.blocks) {
            if isOver() { return nil }
            let rows = try run([.text("SELECT id FROM \(table) WHERE ctid >= '(\(start),0)'::tid AND ctid < '(\(start + Int64(Self.blocks)),0)'::tid")])[0]
            for row in 0..<rows.count { hashes.append(rows.reference(row, 0).high) }
        }
        // No key is added to a sealed segment, so these are all, and will be.
        var filter = BlockedBloomFilter(capacity: hashes.count, falsePositiveRate: Self.falsePositiveRate)
        for hash in hashes { filter.insert(hash) }
        var parameters = Parameters()
        parameters.add(filter.saved())
        _ = try run([.text("COMMIT"), .text("UPDATE \(schema).segment SET filter = $1::bytea \(place)", parameters)])
        return filter
    }
}
#endif
