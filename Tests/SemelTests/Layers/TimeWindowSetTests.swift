import Semel
import SemelTesting
import Testing

@Suite("The time-window set")
struct TimeWindowSetTests {
    private let clock = ManualStoreClock()
    private let base: InterruptibleStore<MemoryStore>
    private let set: TimeWindowSet<InterruptibleStore<MemoryStore>>

    init() {
        base = InterruptibleStore(MemoryStore(clock: clock))
        set = TimeWindowSet(base, name: "badges", window: .seconds(600), limit: 100, clock: clock)
    }

    private func key(_ text: String) throws -> OperationKey { try OperationKey(text) }

    private struct NotNew: Error {}

    private func place(_ text: String) async throws -> TimeWindowSet<InterruptibleStore<MemoryStore>>.Place {
        guard case .new(let place) = try await set.enter(try key(text)) else { throw NotNew() }
        return place
    }

    private func isRepeated(_ text: String, in set: TimeWindowSet<InterruptibleStore<MemoryStore>>) async throws -> Bool {
        if case .repeated = try await set.enter(try key(text)) { true } else { false }
    }

    @Test("takes each key once within the window, and again after it")
    func once() async throws {
        #expect(try await place("door 7, event 1").keep() == .applied)
        #expect(try await isRepeated("door 7, event 1", in: set))
        clock.advance(by: .seconds(599))
        #expect(try await isRepeated("door 7, event 1", in: set))
        clock.advance(by: .seconds(2))
        #expect(try await place("door 7, event 1").keep() == .applied)
    }

    @Test("keeps what is done and not what is begun: a crash before the work is done loses nothing (R1)")
    func twoSteps() async throws {
        let first = try await place("event")
        guard case .taken(let lease) = try await set.enter(try key("event")) else { return _ = Issue.record("it is taken") }
        #expect(lease <= .seconds(30))
        clock.advance(by: .seconds(31))
        let second = try await place("event")
        #expect(try await first.keep() == .superseded)
        #expect(try await second.giveUp() == .applied)
        #expect(try await place("event").keep() == .applied)
    }

    @Test("answers repeats of what it kept without its store, and is the same in another process")
    func local() async throws {
        try await place("event").keep()
        base.set(.down)
        #expect(try await isRepeated("event", in: set))
        base.set(.up)
        let other = TimeWindowSet(base, name: "badges", window: .seconds(600), clock: clock)
        #expect(try await isRepeated("event", in: other))
    }

    @Test("is bounded in memory, and answers the same beyond it")
    func bounded() async throws {
        for number in 0..<250 { try await place("\(number)").keep() }
        #expect(set.remembered == 100)
        for number in 0..<250 { #expect(try await isRepeated("\(number)", in: set)) }
    }

    @Test("refuses an event of before the window: it cannot be told from a new one any more (H24)")
    func tooOld() async throws {
        let now = clock.now().retention
        let entries = try await set.enter(
            try (0..<3).map { try key("\($0)") }, occurredAt: [now + .seconds(-600), now + .seconds(-599), nil])
        guard case .tooOld = entries[0], case .new = entries[1], case .new = entries[2] else { return _ = Issue.record("\(entries)") }
    }

    @Test("tells the two badges of one millisecond apart by the device's own event ids, and a backlog's repeats together")
    func backlog() async throws {
        let ids = ["gate 1/17", "gate 1/18", "gate 1/17"]
        let entries = try await set.enter(try ids.map { try key($0) }, occurredAt: [nil, nil, nil])
        guard case .new = entries[0], case .new = entries[1], case .taken = entries[2] else { return _ = Issue.record("\(entries)") }
    }
}
