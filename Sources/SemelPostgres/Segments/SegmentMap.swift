#if Postgres
import Semel

/// One table of records. The last one, the *current* segment, takes the claims of new keys; the others are *sealed*: no key
/// is ever added to them again.
struct Segment: Sendable {
    let number: Int32
    /// Drawn when the segment was sealed, and so different after a restored backup too; `nil` for the current one.
    let mark: Int64?
    let statements: TableStatements
    /// All keys that were in it when it was sealed; `nil` while it is not made or not read yet.
    var filter: BlockedBloomFilter?

    init(_ number: Int32, mark: Int64?, filter: BlockedBloomFilter?, in schema: String) {
        self.number = number
        self.mark = mark
        self.filter = filter
        // A connection keeps the statements on so many tables prepared, and forgets others for them.
        statements = TableStatements(schema: schema, table: Self.table(number), name: mark == nil ? "current" : "sealed_\(number % 16)")
    }

    static func table(_ number: Int32) -> String { "segment_\(number)" }

    /// `false`: no record of the key is in it.
    func mayHold(_ reference: OperationReference) -> Bool { filter?.mayContain(reference.high) ?? true }
}

/// The segments as a process last saw them. Whether they still are the same is decided in the database, in the transaction
/// that claims, by the map's version.
///
/// **Invariants.** A key has at most one record in all segments together. A record moves only into the current segment.
struct SegmentMap: Sendable {
    /// Drawn anew with each change, so that no two maps have the same one, not even after a restored backup.
    let version: Int64
    /// The oldest first, the current one last.
    var all: [Segment]

    var current: Segment { all[all.count - 1] }
    var sealed: ArraySlice<Segment> { all.dropLast() }

    /// `false`: if the key has a record, it is in the current segment.
    func isMaybeSealed(_ reference: OperationReference) -> Bool { sealed.contains { $0.mayHold(reference) } }

    /// The segments that can hold a key's record. In this order a record that moves meanwhile is met.
    func places(of reference: OperationReference) -> [Segment] { all.filter { $0.mayHold(reference) } }

    /// Items by the segments that can hold their keys' records, the oldest segment first.
    func split<Item>(_ items: [Item], by reference: (Item) -> OperationReference) -> [(segment: Segment, items: [Item])] {
        all.compactMap { segment in
            let own = segment.filter == nil ? items : items.filter { segment.mayHold(reference($0)) }
            return own.isEmpty ? nil : (segment, own)
        }
    }
}

/// The map in the database is not the one that this process knows: know it, and try again.
struct StaleMap: Error {}

extension SegmentMap {
    private static func query(_ schema: String) -> String {
        """
        SELECT m.version, s.number, s.mark, \(Statements.microseconds) - s.began, s.keys
        FROM \(schema).segment_map m, \(schema).segment s ORDER BY s.number
        """
    }

    /// Reads the map, and keeps the filters of those segments that are known.
    /// - Returns: the map, and what it says of its current segment.
    static func read(
        _ connection: Connection, in schema: String, within time: Duration, keeping known: SegmentMap? = nil
    ) throws -> (map: SegmentMap, age: Duration, keys: Int) {
        let rows = try connection.run([.text(query(schema))], within: time)[0].get()
        guard rows.count > 0, rows.isNull(rows.count - 1, 2) else {
            throw StoreError(.damaged, "the table of the segments names no current one")
        }
        var filters: [Int64: BlockedBloomFilter] = [:]
        for segment in known?.all ?? [] { if let mark = segment.mark, let filter = segment.filter { filters[mark] = filter } }
        let all = (0..<rows.count).map { row in
            let mark: Int64? = rows.isNull(row, 2) ? nil : rows.integer(row, 2)
            return Segment(rows.integer(row, 1), mark: mark, filter: mark.flatMap { filters[$0] }, in: schema)
        }
        let last = rows.count - 1
        return (
            SegmentMap(version: rows.integer(0, 0), all: all), .microseconds(rows.integer(last, 3, as: Int64.self)),
            Int(rows.integer(last, 4, as: Int64.self))
        )
    }
}
#endif
