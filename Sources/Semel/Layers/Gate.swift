/// Lets many be at work in many places at once, and one close some of the places: closing waits until nobody is inside,
/// and whoever comes meanwhile waits until they are opened.
///
/// Whoever enters several places enters all or none, so nobody waits inside a place for another one.
final class Gate<Place: Hashable & Sendable>: Sendable {
    private struct State {
        var inside: [Place: Int] = [:]
        var closed: Set<Place> = []
        var waiting: [CheckedContinuation<Void, Never>] = []
        var closing: [(places: Set<Place>, continuation: CheckedContinuation<Void, Never>)] = []

        func isClosed(_ places: Set<Place>) -> Bool { !closed.isEmpty && !closed.isDisjoint(with: places) }
        func isEmpty(_ places: Set<Place>) -> Bool { places.allSatisfy { inside[$0] == nil } }
    }

    private let state = Locked(State())

    /// Enters when none of the places is closed. Not cancelled with its task: places are closed for a moment only.
    func enter(_ places: Set<Place>) async {
        while !tryToEnter(places) {
            await withCheckedContinuation { continuation in
                let isOpen = state.withLock { state in
                    guard state.isClosed(places) else { return true }
                    state.waiting.append(continuation)
                    return false
                }
                if isOpen { continuation.resume() }
            }
        }
    }

    private func tryToEnter(_ places: Set<Place>) -> Bool {
        state.withLock { state in
            guard !state.isClosed(places) else { return false }
            for place in places { state.inside[place, default: 0] += 1 }
            return true
        }
    }

    func leave(_ places: Set<Place>) {
        let finished = state.withLock { state in
            for place in places {
                let count = (state.inside[place] ?? 1) - 1
                state.inside[place] = count == 0 ? nil : count
            }
            guard !state.closing.isEmpty else { return [CheckedContinuation<Void, Never>]() }
            let finished = state.closing.filter { state.isEmpty($0.places) }.map(\.continuation)
            state.closing.removeAll { closing in closing.places.allSatisfy { state.inside[$0] == nil } }
            return finished
        }
        for continuation in finished { continuation.resume() }
    }

    /// Closes places that are open, and returns when nobody is inside any more.
    func close(_ places: Set<Place>) async {
        await withCheckedContinuation { continuation in
            let isEmpty = state.withLock { state in
                state.closed.formUnion(places)
                guard !state.isEmpty(places) else { return true }
                state.closing.append((places, continuation))
                return false
            }
            if isEmpty { continuation.resume() }
        }
    }

    func open(_ places: Set<Place>) {
        let waiting = state.withLock { state in
            state.closed.subtract(places)
            defer { state.waiting = [] }
            return state.waiting
        }
        for continuation in waiting { continuation.resume() }
    }
}
