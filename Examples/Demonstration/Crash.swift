import Synchronization

/// The one `kill -9` of the gateway, at a moment when enough requests are in flight, and its restart.
final class Crash: Sendable {
    private struct State {
        var restart: Task<Void, any Error>?
        var inFlight: Int?
    }

    private let stage: Stage
    private let display: Display
    private let state = Mutex(State())

    init(stage: Stage, display: Display) {
        self.stage = stage
        self.display = display
    }

    /// How many requests were in flight when the gateway was killed; nil when it never was.
    var inFlight: Int? { state.withLock { $0.inFlight } }

    /// Kills the gateway and begins its restart. Called when the surge was sent, whose requests the service holds.
    func strike(_ tally: Tally) async throws {
        // They are to be at the service by now; it holds them for several times as long.
        try await Task.sleep(for: .milliseconds(200))
        let inFlight = tally.update { counts in
            counts.kills += 1
            return counts.inFlight
        }
        let process = stage.killGateway()
        display.say("kill -9 \(process): the gateway dies with \(inFlight) requests in flight")
        let restart = Task { [stage, display] in
            try await stage.restartGateway()
            display.say("the gateway is up again, with what it had recorded")
        }
        state.withLock { $0 = State(restart: restart, inFlight: inFlight) }
    }

    /// Waits until the gateway is up again, when it was killed.
    func recovery() async throws { try await state.withLock { $0.restart }?.value }
}
