public import SemelCore

/// Reads before it claims, for stores where a replay by a plain read is cheaper than one by a claim, and knows when the
/// read can be skipped.
///
/// A filter of the keys seen here says *surely absent* for nearly every new key: those go straight to the store's atomic
/// claim. For a key that *may* be present the record is read first, and a completed one with the same fingerprint is
/// replayed; everything else is claimed like any other. So the filter may only skip a read and never decides: a false
/// positive costs a read, and a key that it does not know (another process claimed it, the filter was lost) costs
/// nothing but the shortcut (H32, R5).
///
/// It holds at least the last ``capacity`` keys in two halves; when one is full the older one is dropped.
public final class MembershipFilter<Base: OperationStore>: StoreLayer {
    private struct State {
        var current: BlockedBloomFilter
        var previous: BlockedBloomFilter

        func mayContain(_ hash: UInt64) -> Bool { current.mayContain(hash) || previous.mayContain(hash) }

        mutating func insert(_ hash: UInt64) {
            guard !current.mayContain(hash) else { return }
            if current.count >= current.capacity {
                swap(&current, &previous)
                current.removeAll()
            }
            current.insert(hash)
        }
    }

    public let base: Base
    /// How many keys it holds at least before it forgets the oldest.
    public let capacity: Int
    /// The most records of one batch that are read one by one; larger numbers are claimed at once.
    private let readLimit: Int
    private let state: Locked<State>
    private let reads = Locked((skipped: 0, made: 0))

    /// - Parameters:
    ///   - falsePositiveRate: how often a new key may cost a read.
    ///   - readLimit: a batch with more possible keys than this is claimed at once.
    public init(_ base: Base, capacity: Int = 1_000_000, falsePositiveRate: Double = 0.001, readLimit: Int = 16) {
        self.base = base
        self.capacity = max(1, capacity)
        self.readLimit = readLimit
        // Both halves are asked, so each may have half of the rate.
        let empty = BlockedBloomFilter(capacity: capacity, falsePositiveRate: falsePositiveRate / 2)
        state = Locked(State(current: empty, previous: empty))
    }

    /// Goes on with a filter saved before.
    /// - Throws: when the bytes are damaged or of another program; begin with an empty filter then, which is only slower.
    public init(_ base: Base, restoring bytes: [UInt8], readLimit: Int = 16) throws(BlockedBloomFilter.RestoreError) {
        let halves: (ArraySlice<UInt8>, ArraySlice<UInt8>)
        do {
            var reader = ByteReader(bytes)
            halves = (try reader.readLengthPrefixed(), try reader.readLengthPrefixed())
            try reader.finish()
        } catch {
            throw BlockedBloomFilter.RestoreError(description: "the saved filter cannot be read: \(error)")
        }
        let current = try BlockedBloomFilter(restoring: Array(halves.0))
        self.base = base
        self.readLimit = readLimit
        capacity = current.capacity
        state = Locked(State(current: current, previous: try BlockedBloomFilter(restoring: Array(halves.1))))
    }

    /// The filter as bytes with checksums. A filter saved a while ago is as right as a new one, only less useful.
    public func saved() -> [UInt8] {
        let halves = state.withLock { ($0.current, $0.previous) }
        var writer = ByteWriter()
        writer.writeLengthPrefixed(halves.0.saved())
        writer.writeLengthPrefixed(halves.1.saved())
        return writer.bytes
    }

    /// How many reads were skipped because the key was surely absent, and how many were made.
    public var readCounts: (skipped: Int, made: Int) { reads.withLock { $0 } }

    public func claim(_ requests: [ClaimRequest]) async throws(StoreError) -> [ClaimResult] {
        let hashes = requests.map { OperationReference($0.id).high }
        let possible = state.withLock { state in requests.indices.filter { state.mayContain(hashes[$0]) } }
        reads.withLock { $0.skipped += requests.count - possible.count }
        var answers = [ClaimResult?](repeating: nil, count: requests.count)
        if !possible.isEmpty, possible.count <= readLimit {
            reads.withLock { $0.made += possible.count }
            for (index, answer) in await replays(possible.map { ($0, requests[$0]) }) { answers[index] = answer }
        }
        let open = answers.indices.filter { answers[$0] == nil }
        guard !open.isEmpty else { return answers.compactMap(\.self) }
        // Before the answer: after a lost one the key may be there.
        state.withLock { state in for index in open { state.insert(hashes[index]) } }
        let results = try await base.claim(open.count == requests.count ? requests : open.map { requests[$0] })
        for (index, result) in zip(open, results) { answers[index] = result }
        return answers.compactMap(\.self)
    }

    private func replays(_ requests: [(Int, ClaimRequest)]) async -> [(Int, ClaimResult)] {
        await withTaskGroup(of: (Int, ClaimResult)?.self) { group in
            for (index, request) in requests {
                group.addTask { await self.replay(request).map { (index, $0) } }
            }
            return await group.reduce(into: []) { found, answer in if let answer { found.append(answer) } }
        }
    }

    private func replay(_ request: ClaimRequest) async -> ClaimResult? {
        do throws(StoreError) {
            guard let record = try await base.record(of: request.id), record.state == .completed, record.outcome != nil,
                record.fingerprint == request.fingerprint
            else { return nil }
            return .completed(record)
        } catch {
            // Whatever is wrong, the claim that follows meets it and says so in its own way.
            return nil
        }
    }
}

extension MembershipFilter: TransactionalStore where Base: TransactionalStore {
    public func perform(
        _ request: ClaimRequest, _ body: @escaping @Sendable (Base.Transaction, Grant) throws -> AtomicStep
    ) async throws -> AtomicResult {
        let hash = OperationReference(request.id).high
        if state.withLock({ $0.mayContain(hash) }), let answer = await replay(request) { return .notRun(answer) }
        state.withLock { $0.insert(hash) }
        return try await base.perform(request, body)
    }
}
