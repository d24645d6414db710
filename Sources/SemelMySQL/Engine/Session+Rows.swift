#if MySQL
import Semel

/// What stands under a key.
enum Stored {
    /// Nothing; under a token, when the key was forgotten not long ago.
    case absent(after: FencingToken?)
    case record(Record)
    /// A record that this program cannot read: nothing may be done to its key.
    case unreadable(String)

    init(_ row: Row?) {
        guard let row else { self = .absent(after: nil); return }
        guard !row.isFree else { self = .absent(after: row.token); return }
        do {
            self = .record(try row.decode().1)
        } catch {
            self = .unreadable(error.description)
        }
    }

    var record: Record? { if case .record(let record) = self { record } else { nil } }

    /// The highest epoch that is known of the key.
    var epoch: Epoch {
        switch self {
        case .absent(let token): token?.epoch ?? .zero
        case .record(let record): record.epoch
        case .unreadable: .zero
        }
    }
}

extension Session {
    // MARK: Reading

    /// Rows by their keys, in portions.
    func rows(_ ids: [RowID], _ statements: [Int: String], _ each: (MySQLRow) throws -> Void) throws {
        var start = 0
        while start < ids.count {
            let portion = ids[start..<min(start + Tables.largest, ids.count)]
            start += portion.count
            let size = Tables.size(for: portion.count)
            var parameters = Parameters(reservingCapacity: 32 * size)
            for id in portion { parameters.append(id.bytes) }
            for _ in portion.count..<size { parameters.append(portion.last!.bytes) }
            for row in try connection.statement(statements[size]!).query(parameters) { try each(row) }
        }
    }

    /// Locks rows, in the order of their keys so that nobody waits for each other, and reads them.
    func lock(_ ids: [RowID]) throws -> [RowID: Row] {
        try read(ids.sorted(), Tables.lock)
    }

    func read(_ ids: [RowID], _ statements: [Int: String] = Tables.read) throws -> [RowID: Row] {
        var found: [RowID: Row] = [:]
        try rows(ids, statements) {
            let row = try Row($0)
            found[row.id] = row
        }
        return found
    }

    // MARK: Writing

    /// How much one statement carries.
    private var budget: Int { min(4 << 20, (server?.largestPacket ?? 1 << 20) / 2) }

    /// Cuts a list into portions that fit into a statement each.
    func portions<Element>(_ elements: [Element], bytes: (Element) -> Int) -> [ArraySlice<Element>] {
        var portions: [ArraySlice<Element>] = []
        var start = 0
        var size = 0
        for (index, element) in elements.enumerated() {
            let more = bytes(element)
            if index - start == Tables.largest || index > start && size + more > budget {
                portions.append(elements[start..<index])
                (start, size) = (index, 0)
            }
            size += more
        }
        if start < elements.count { portions.append(elements[start...]) }
        return portions
    }

    /// - Returns: how many rows were affected; what that means is the statement's.
    func write(_ rows: ArraySlice<Row>, _ statements: [Int: String]) throws -> Int {
        let size = Tables.size(for: rows.count)
        var parameters = Parameters(reservingCapacity: rows.reduce(0) { $0 + $1.byteCount } + 128 * size)
        for row in rows { row.append(to: &parameters) }
        for _ in rows.count..<size { rows.last!.append(to: &parameters) }
        return try connection.statement(statements[size]!).execute(parameters)
    }

    /// Inserts rows of keys that were absent when they were looked at.
    func insert(_ rows: [Row]) throws {
        for portion in portions(rows, bytes: \.byteCount) where try write(portion, Tables.insert) != portion.count { throw Conflict() }
    }

    /// Writes over rows that are locked, each by a different one.
    func overwrite(_ rows: [Row]) throws {
        for portion in portions(rows, bytes: \.byteCount) where try write(portion, Tables.overwrite) != 2 * portion.count { throw Conflict() }
    }

    /// The row that follows from what the record machine decided; `nil` when nothing is to be written.
    func row(_ id: RowID, _ operation: OperationID, _ change: RecordMachine.Change, before: Stored) -> Row? {
        switch change {
        case .keep: nil
        case .put(let record): Row(id, operation, record)
        case .remove: before.record.map { .free(id, after: $0.token, at: now.retention) }
        }
    }

    // MARK: What stands beside the records

    /// Keeps the text of policies, in the transaction under way.
    func keep(_ policies: [PinnedPolicy]) throws {
        for policy in policies.sorted(by: { ($0.hash.high, $0.hash.low) < ($1.hash.high, $1.hash.low) }) {
            var parameters = Parameters()
            parameters.append(policy.hash.bytes)
            parameters.append(Array(policy.scene.utf8))
            parameters.append(Array(policy.text.utf8))
            try connection.statement("INSERT INTO semel_policy (hash, scene, text) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE hash = semel_policy.hash")
                .execute(parameters)
        }
    }

    func policy(_ hash: PolicyHash) throws -> PinnedPolicy? {
        if let policy = shared.policy(hash) { return policy }
        var parameters = Parameters()
        parameters.append(hash.bytes)
        guard let row = try connection.statement("SELECT scene, text FROM semel_policy WHERE hash = ?").query(parameters).first,
            let scene = row[0].bytes, let text = row[1].bytes
        else { return nil }
        let policy = PinnedPolicy(scene: String(decoding: scene, as: UTF8.self), text: String(decoding: text, as: UTF8.self))
        shared.noteKept([policy])
        return policy
    }

    /// Whether a claim need not count the live records of its scope.
    func isFarFrom(limit: Int) throws -> Bool {
        if let answer = shared.isFarFrom(limit: limit, admitting: 1) { return answer }
        shared.noteCounted(try count(live: nil, upTo: limit))
        return shared.isFarFrom(limit: limit, admitting: 1) ?? false
    }

    /// Counts live records, of one scope or all, up to a number.
    func count(live scope: RowID?, upTo limit: Int) throws -> Int {
        var parameters = Parameters()
        if let scope { parameters.append(scope.bytes) }
        parameters.append(Int64(limit))
        let condition = scope == nil ? "live IS NOT NULL" : "live = ?"
        let rows = try connection.statement("SELECT COUNT(*) FROM (SELECT 1 FROM semel_record WHERE \(condition) LIMIT ?) AS counted").query(parameters)
        return Int(rows[0][0].integer ?? 0)
    }

    /// Nobody else who counts the live records of these scopes goes on until the transaction ends.
    func lock(scopes: some Collection<RowID>) throws {
        try lock(Set(scopes.map { $0.lock(of: Tables.scopeLocks) }))
    }

    func lock(_ locks: Set<Int64>) throws {
        let numbers = locks.sorted().map(String.init).joined(separator: ", ")
        let found = try connection.rows("SELECT id FROM semel_lock WHERE id IN (\(numbers)) ORDER BY id FOR UPDATE")
        guard found.count == locks.count else {
            throw StoreError(.missingSchema, "\(shared.target.description): rows of the table semel_lock are missing. Remedy: restore it from a backup, with all of the store's tables")
        }
    }
}

extension Row {
    /// About how much it takes in a statement.
    var byteCount: Int { 200 + head.count + (outcome?.count ?? 0) }
}

extension PolicyHash {
    var bytes: [UInt8] {
        var writer = ByteWriter(reservingCapacity: 16)
        writer.write(high)
        writer.write(low)
        return writer.bytes
    }
}
#endif
