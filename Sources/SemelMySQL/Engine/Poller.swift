#if MySQL
import Semel

/// Wakes those who wait for what another process does: MySQL tells nobody, so somebody has to look.
///
/// What this process does wakes its waiters at once, without this. A key is looked at soon after somebody began to wait for
/// it, and then at growing intervals; all keys that are due together.
final class Poller: Sendable {
    private struct Watch {
        let row: RowID
        var due: Duration
        var interval = Poller.shortest
        /// What was seen last; `nil` before the first look.
        var stamp: Session.Stamp??
    }

    private struct State {
        var watched: [OperationID: Watch] = [:]
        var isRunning = false
    }

    private static let shortest = Duration.milliseconds(10)
    private static let longest = Duration.milliseconds(250)

    private let state = Locked(State())
    private let shared: Shared
    private let lanes: [Lane]

    init(_ shared: Shared, _ lanes: [Lane]) {
        self.shared = shared
        self.lanes = lanes
    }

    func watch(_ id: OperationID) {
        let row = RowID(id)
        let now = shared.environment.uptime()
        let starts = state.withLock { state in
            if state.watched[id] == nil {
                state.watched[id] = Watch(row: row, due: now)
            } else {
                // Somebody new waits; look at it more often again.
                state.watched[id]?.interval = Self.shortest
                state.watched[id]?.due = now
            }
            defer { state.isRunning = true }
            return !state.isRunning
        }
        if starts { shared.environment.detach { [self] in await run() } }
    }

    private func run() async {
        while true {
            do {
                // A tick of the clock that decides nothing but when to look.
                try await shared.environment.clock.sleep(for: Self.shortest)
            } catch {
                return
            }
            let now = shared.environment.uptime()
            let observed = state.withLock { Array($0.watched.keys) }.filter { shared.observations.isObserved($0) }
            let (goesOn, due) = state.withLock { state in
                let kept = Set(observed)
                state.watched = state.watched.filter { kept.contains($0.key) || $0.value.stamp == nil }
                state.isRunning = !state.watched.isEmpty
                return (state.isRunning, state.watched.filter { $0.value.due <= now }.map { ($0.key, $0.value.row) })
            }
            guard goesOn else { return }
            for (lane, part) in Dictionary(grouping: due, by: { $0.1.lane(of: lanes.count) }) {
                do {
                    let stamps = try await lanes[lane].submit { try $0.look(at: part.map(\.1)) }
                    for (id, row) in part { note(id, stamps[row]) }
                } catch {
                    if error.code == .stopped { return }
                    for (id, _) in part { postpone(id) }
                }
            }
        }
    }

    private func note(_ id: OperationID, _ stamp: Session.Stamp?) {
        let now = shared.environment.uptime()
        let hasChanged = state.withLock { state -> Bool in
            guard var watch = state.watched[id] else { return false }
            // At the first look nobody knows what was before: whoever waits looks for himself.
            let hasChanged = watch.stamp != .some(stamp)
            watch.interval = hasChanged ? Self.shortest : min(watch.interval * 3 / 2, Self.longest)
            watch.stamp = .some(stamp)
            watch.due = now + watch.interval
            state.watched[id] = watch
            return hasChanged
        }
        if hasChanged { shared.observations.signal(id) }
    }

    /// The server cannot be reached now.
    private func postpone(_ id: OperationID) {
        let later = shared.environment.uptime() + Self.longest
        state.withLock { $0.watched[id]?.due = later }
    }
}
#endif
