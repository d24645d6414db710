#if Postgres
import Foundation
import Semel

/// What the threads of a store know of its segments, and when the current one is to be sealed.
///
/// Nothing here decides anything: a claim is made under the lock that keeps the map as it is, and only if the map in the
/// database has the version that the claim was prepared with.
final class Segments: Sendable {
    private let state: Locked<State>
    private let limit: (keys: Int, age: Duration)

    private struct State {
        var map: SegmentMap
        /// When the current segment was begun, on this process's own clock.
        var began: Duration
        /// The keys of the current segment, as all processes have told; and those of this one that are not told yet.
        var told = 0
        var untold = 0
        var isSealing = false
        var failures = 0
        var nextSealing = Duration.zero
        /// Why the last attempt to seal failed.
        var problem: StoreError?
        var isLoading = false
        var isClosing = false
    }

    init(_ found: (map: SegmentMap, age: Duration, keys: Int), keys: Int, age: Duration, at now: Duration) {
        limit = (keys, age)
        state = Locked(State(map: found.map, began: now - found.age, told: found.keys))
    }

    var map: SegmentMap { state.withLock { $0.map } }

    /// So many new keys went into the current segment.
    func added(_ count: Int) { state.withLock { $0.untold += count } }

    // MARK: The map

    /// Reads the map anew, and the filters that it asks for, those in the background.
    @discardableResult
    func refresh(_ shared: Shared, _ connection: Connection) throws -> SegmentMap {
        let found = try SegmentMap.read(
            connection, in: shared.target.quotedSchema, within: shared.configuration.answerLimit, keeping: map)
        let now = shared.environment.uptime()
        state.withLock { state in
            if state.map.current.number != found.map.current.number { state.untold = 0 }
            state.map = found.map
            // Filters that were read meanwhile are not lost: they are read again.
            state.began = now - found.age
            state.told = found.keys
        }
        loadFilters(shared)
        return found.map
    }

    /// What this process has to tell of the current segment.
    func untold() -> (segment: Int32, count: Int) { state.withLock { ($0.map.current.number, $0.untold) } }

    /// What all processes together have told of a segment.
    func heard(_ keys: Int, of segment: Int32, telling count: Int) {
        state.withLock { state in
            guard state.map.current.number == segment else { return }
            state.untold -= count
            state.told = keys
        }
    }

    // MARK: Sealing

    /// Whether the caller is the thread that seals the current segment now.
    func beginSealing(at now: Duration, regardless: Bool = false) -> Bool {
        state.withLock { state in
            let keys = state.told + state.untold
            guard !state.isSealing, regardless || now >= state.nextSealing, keys > 0 else { return false }
            guard regardless || keys >= limit.keys || now - state.began >= limit.age else { return false }
            state.isSealing = true
            return true
        }
    }

    /// How long sealing may wait for those who claim, while all new claims wait for it. Longer after each failure, and never
    /// so long that the server looks for a deadlock.
    var sealingPatience: Duration { state.withLock { .milliseconds(min(500, 25 << min($0.failures, 5))) } }

    func endSealing(_ hasSucceeded: Bool, _ failure: StoreError?, at now: Duration) {
        state.withLock { state in
            state.isSealing = false
            state.problem = failure
            state.failures = hasSucceeded ? 0 : state.failures + 1
            // Waiting stays a small part of the time.
            state.nextSealing = hasSucceeded ? now : now + .milliseconds(min(20_000, 250 << min(state.failures, 7)))
        }
    }

    /// Why the current segment cannot be sealed, if so.
    var problem: StoreError? { state.withLock { $0.problem } }

    // MARK: Filters

    func close() { state.withLock { $0.isClosing = true } }
    /// A thread reads or makes filters.
    var isLoading: Bool { state.withLock { $0.isLoading } }
    private var isClosing: Bool { state.withLock { $0.isClosing } }

    /// Reads or makes the filters that are missing, on a thread of its own. Until they are there, every key is looked for in
    /// their segments.
    func loadFilters(_ shared: Shared) {
        let starts = state.withLock { state in
            guard !state.isLoading, !state.isClosing, state.map.sealed.contains(where: { $0.filter == nil }) else { return false }
            state.isLoading = true
            return true
        }
        guard starts else { return }
        let thread = Thread { [self] in
            let session = Session(shared, for: .records)
            while let missing = nextToLoad() {
                do {
                    if let filter = try session.filter(of: missing, isOver: { self.isClosing }) {
                        install(filter, for: missing)
                        continue
                    }
                } catch {
                    // The segment may be gone, or the server: look at the map, later.
                    session.disconnect()
                }
                for _ in 0..<20 where !isClosing { session.pause(.milliseconds(25)) }
                // Whatever fails here fails again, and is told, where the store is used.
                if !isClosing, let connection = try? session.connection() { _ = try? refresh(shared, connection) }
            }
        }
        thread.name = "semel-pg-filters"
        thread.stackSize = 1 << 20
        thread.start()
    }

    private func nextToLoad() -> Segment? {
        state.withLock { state in
            let next = state.isClosing ? nil : state.map.sealed.last { $0.filter == nil }
            if next == nil { state.isLoading = false }
            return next
        }
    }

    private func install(_ filter: BlockedBloomFilter, for segment: Segment) {
        state.withLock { state in
            if let index = state.map.all.firstIndex(where: { $0.mark == segment.mark }) { state.map.all[index].filter = filter }
        }
    }

    /// Whether every sealed segment has its filter; for tests.
    var hasAllFilters: Bool { state.withLock { $0.map.sealed.allSatisfy { $0.filter != nil } } }
}
#endif
