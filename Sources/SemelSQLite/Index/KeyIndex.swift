/// Finds the rows of finished operations by the 64-bit hash of their key.
///
/// Client keys are random, so one ever-growing sorted index would touch another page for each. Here the newest keys stand
/// in memory (``RecentKeys``, built anew from their rows when the store is opened); when there are many, they are sealed:
/// written down in order, a piece at a time between batches, and remembered by a filter (``KeyFilter``). A new key costs
/// the same however many there are: a look into memory, seldom one into a sealed piece.
///
/// An index entry is a hint. Rows are never numbered twice, and whoever finds one reads the row and compares the whole
/// key; so an entry whose transaction was rolled back, or whose row was purged, is harmless.
final class KeyIndex {
    private let readPiece: Statement
    private let writePiece: Statement
    private let writeSegment: Statement

    /// The most keys in memory, and the number of keys sealed together.
    private let limit: Int
    private var recent: RecentKeys
    /// Full tables on their way to disk, oldest first.
    private var sealing: [Sealing] = []
    private(set) var segments: [Int64: SealedKeys] = [:]
    private var filters: [KeyFilter] = []
    /// The segment under each bit of each filter.
    private var columns: [[Int64?]] = []
    private var lastNumber: Int64
    /// When something among the rows that no segment covers yet will first be due for removal.
    var tailDue = Int64.max

    private struct Sealing {
        let keys: RecentKeys
        let number: Int64
        let due: Int64
        let filter: KeyFilter
        let column: Int
        var nextPrefix = 0

        var isWritten: Bool { nextPrefix == SealedKeys.pieces }
    }

    init(_ database: Database, limit: Int) throws(SQLiteError) {
        self.limit = limit
        readPiece = try database.prepare("SELECT entries FROM semel_piece WHERE id = ?1")
        writePiece = try database.prepare("INSERT OR REPLACE INTO semel_piece (id, entries) VALUES (?1, ?2)")
        writeSegment = try database.prepare("INSERT INTO semel_segment (id, base, last, due) VALUES (?1, ?2, ?3, ?4)")

        let read = try database.prepare("SELECT id, base, last, due FROM semel_segment ORDER BY id", isPersistent: false)
        var last: Int64 = 0
        var found: [SealedKeys] = []
        while try read.step() {
            found.append(SealedKeys(number: read.integer(0), base: read.integer(1), lastRow: read.integer(2), due: read.integer(3)))
            last = max(last, read.integer(2))
        }
        lastNumber = found.last?.number ?? 0
        lastSealedRow = last
        recent = RecentKeys(after: last, limit: limit)
        for segment in found {
            let (filter, column) = takeColumn(for: segment.number)
            let pieces = try database.prepare("SELECT entries FROM semel_piece WHERE id BETWEEN ?1 AND ?2", isPersistent: false)
            try pieces.bind(SealedKeys.pieceNumber(segment.number, 0), at: 1)
            try pieces.bind(SealedKeys.pieceNumber(segment.number, SealedKeys.pieces - 1), at: 2)
            while try pieces.step() {
                pieces.withBytes(0) { SealedKeys.forEach(in: $0) { filter.insert($0.hash, column: column) } }
            }
            segments[segment.number] = segment
        }
    }

    /// The last row that a sealed segment covers; what follows is in memory.
    private(set) var lastSealedRow: Int64

    /// Enters a row, which is higher than every row entered before.
    /// - Parameter due: when housekeeping may first remove something of it.
    func insert(_ hash: UInt64, row: Int64, due: Int64) {
        if recent.isFull || !recent.insert(hash, row: row) {
            beginSealing()
            guard recent.insert(hash, row: row) else { preconditionFailure("row \(row) does not follow row \(recent.base)") }
        }
        tailDue = min(tailDue, due)
    }

    /// The rows that may hold a key of this hash, newest first.
    func rows(under hash: UInt64) throws(SQLiteError) -> [Int64] {
        var found = recent.rows(under: hash)
        for table in sealing { found += table.keys.rows(under: hash) }
        for (group, filter) in filters.enumerated() {
            var candidates = filter.columns(of: hash)
            while candidates != 0 {
                let column = candidates.trailingZeroBitCount
                candidates &= candidates - 1
                if let number = columns[group][column], let segment = segments[number] {
                    found += try rows(under: hash, in: segment)
                }
            }
        }
        return found.count > 1 ? found.sorted(by: >) : found
    }

    private func rows(under hash: UInt64, in segment: SealedKeys) throws(SQLiteError) -> [Int64] {
        try readPiece.bind(SealedKeys.pieceNumber(segment.number, SealedKeys.prefix(of: hash)), at: 1)
        guard try readPiece.step() else { return [] }
        defer { readPiece.reset() }
        return readPiece.withBytes(0) { SealedKeys.distances(under: hash, in: $0).map { segment.base + Int64($0) } }
    }

    // MARK: Sealing

    var isSealing: Bool { !sealing.isEmpty }

    /// How many pieces to write so that sealing keeps ahead of `keys` new ones.
    func piecesToSeal(for keys: Int) -> Int { isSealing ? 1 + 2 * keys * SealedKeys.pieces / limit : 0 }

    /// Puts the recent keys aside for sealing and begins a new table.
    private func beginSealing() {
        lastNumber += 1
        let (filter, column) = takeColumn(for: lastNumber)
        sealing.append(Sealing(keys: recent, number: lastNumber, due: tailDue, filter: filter, column: column))
        recent = RecentKeys(after: recent.lastRow, limit: limit)
    }

    /// Writes the next piece of the oldest table. With the last one the segment becomes valid, in the same transaction;
    /// after a crash before that, it is built and written again.
    func sealPiece() throws(SQLiteError) {
        guard let index = sealing.firstIndex(where: { !$0.isWritten }) else { return }
        let table = sealing[index]
        let entries = table.keys.entries(prefix: table.nextPrefix, width: SealedKeys.prefixBits)
        try writePiece.run(SealedKeys.pieceNumber(table.number, table.nextPrefix), SealedKeys.encode(entries))
        for entry in entries { table.filter.insert(entry.hash, column: table.column) }
        sealing[index].nextPrefix += 1
        if sealing[index].isWritten {
            try writeSegment.bind(table.number, at: 1)
            try writeSegment.bind(table.keys.base, at: 2)
            try writeSegment.bind(table.keys.lastRow, at: 3)
            try writeSegment.bind(table.due, at: 4)
            try writeSegment.run()
        }
    }

    /// Call after every commit: a segment whose last piece is now durable takes over from the table in memory.
    func committed() {
        while let table = sealing.first, table.isWritten {
            segments[table.number] = SealedKeys(number: table.number, base: table.keys.base, lastRow: table.keys.lastRow, due: table.due)
            lastSealedRow = table.keys.lastRow
            sealing.removeFirst()
        }
    }

    /// Call after every rollback: pieces may have been lost with it.
    func rolledBack() {
        for index in sealing.indices { sealing[index].nextPrefix = 0 }
    }

    // MARK: Removal

    func setDue(_ due: Int64, of segment: Int64) { segments[segment]?.due = due }

    /// Forgets a segment whose rows are all gone.
    func remove(_ number: Int64) {
        segments[number] = nil
        for group in columns.indices {
            for column in columns[group].indices where columns[group][column] == number {
                columns[group][column] = nil
                filters[group].clear(column: column)
            }
        }
    }

    private func takeColumn(for segment: Int64) -> (KeyFilter, Int) {
        for group in columns.indices {
            if let free = columns[group].firstIndex(of: nil) {
                columns[group][free] = segment
                return (filters[group], free)
            }
        }
        filters.append(KeyFilter(limit: limit))
        columns.append(Array(repeating: nil, count: KeyFilter.columns))
        columns[columns.count - 1][0] = segment
        return (filters[filters.count - 1], 0)
    }
}
