internal import SemelCore

/// One listing over several stores: their pages merged by the time of the last change, in pages of their own.
///
/// The cursor holds a cursor of each store. Every store's position moves exactly past what was shown of it, so no operation
/// is shown twice or left out unless it changes between two pages, as in a listing of one store.
struct MergedListing {
    let stores: [any OperationStore]
    /// Whether an operation of a store is to be shown: it is not, for example, where a copy of it lies elsewhere.
    let shows: @Sendable (_ store: Int, StoredOperation) -> Bool

    private enum Position: Equatable {
        case start
        case after(String)
        case end

        var cursor: String? { if case .after(let cursor) = self { cursor } else { nil } }
    }

    func page(_ query: OperationQuery) async throws(StoreError) -> OperationPage {
        var now = Timestamp.distantPast
        guard var positions = query.cursor.map(positions(of:)) ?? Array(repeating: .start, count: stores.count) else {
            return OperationPage(operations: [], cursor: nil, now: now)
        }
        var pages: [[StoredOperation]] = []
        var ends: [Position] = []
        for (index, store) in stores.enumerated() {
            let (operations, end, time) = try await read(store, query, from: positions[index], atLeast: query.limit)
            pages.append(operations)
            ends.append(end)
            now = max(now, time)
        }
        // Which operations make up the page, and how far that goes into each store.
        var heads = pages.map { $0[...] }
        var taken = Array(repeating: 0, count: stores.count)
        var shown = 0
        while shown < query.limit,
            let next = heads.indices.filter({ !heads[$0].isEmpty }).min(by: { heads[$0].first!.isBefore(heads[$1].first!) })
        {
            let operation = heads[next].removeFirst()
            taken[next] += 1
            if shows(next, operation) { shown += 1 }
        }
        var found: [StoredOperation] = []
        for index in stores.indices {
            if heads[index].isEmpty {
                found += pages[index].filter { shows(index, $0) }
                positions[index] = ends[index]
            } else if taken[index] > 0 {
                // Read again, for the cursor behind the last one shown; what is read now is what is shown.
                var part = query
                part.limit = taken[index]
                part.cursor = positions[index].cursor
                let page = try await stores[index].operations(part)
                found += page.operations.filter { shows(index, $0) }
                positions[index] = page.cursor.map(Position.after) ?? .end
            }
        }
        found.sort { $0.isBefore($1) }
        return OperationPage(operations: found, cursor: cursor(of: positions), now: now)
    }

    /// At least so many operations, unless there are no more.
    private func read(
        _ store: any OperationStore, _ query: OperationQuery, from start: Position, atLeast count: Int
    ) async throws(StoreError) -> ([StoredOperation], Position, Timestamp) {
        var (operations, position, now): ([StoredOperation], Position, Timestamp) = ([], start, .distantPast)
        while position != .end, operations.count < count {
            var part = query
            part.limit = count - operations.count
            part.cursor = position.cursor
            let page = try await store.operations(part)
            operations += page.operations
            position = page.cursor.map(Position.after) ?? .end
            now = page.now
        }
        return (operations, position, now)
    }

    // MARK: Cursors

    /// A store that is done is `-`, one that is not begun is `+`, any other the length of its cursor and the cursor.
    private func cursor(of positions: [Position]) -> String? {
        guard positions.contains(where: { $0 != .end }) else { return nil }
        return positions.map { position in
            switch position {
            case .end: "-"
            case .start: "+"
            case .after(let cursor): "\(cursor.utf8.count):\(cursor)"
            }
        }.joined()
    }

    private func positions(of cursor: String) -> [Position]? {
        var rest = Array(cursor.utf8)[...]
        var positions: [Position] = []
        while let first = rest.first {
            switch first {
            case UInt8(ascii: "-"), UInt8(ascii: "+"):
                positions.append(first == UInt8(ascii: "-") ? .end : .start)
                rest.removeFirst()
            default:
                guard let colon = rest.firstIndex(of: UInt8(ascii: ":")),
                    let length = Int(String(decoding: rest[..<colon], as: UTF8.self)), length >= 0, length <= rest.endIndex - colon - 1
                else { return nil }
                let start = colon + 1
                positions.append(.after(String(decoding: rest[start..<start + length], as: UTF8.self)))
                rest = rest[(start + length)...]
            }
        }
        return positions.count == stores.count ? positions : nil
    }
}

extension StoredOperation {
    fileprivate func isBefore(_ other: StoredOperation) -> Bool {
        record.changedAt != other.record.changedAt
            ? record.changedAt < other.record.changedAt
            : (reference.high, reference.low) < (other.reference.high, other.reference.low)
    }
}
