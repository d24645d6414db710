import Semel
import SemelTesting
import Testing

@Suite("Performing an operation once around a closure")
struct PerformTests {
    let store = MemoryStore()

    func scene(_ policy: Policy, clock: ManualClock? = nil) throws -> Scene {
        try Operations(store: store, environment: clock?.environment() ?? .live).scene(policy)
    }

    func charge(_ effect: Effect = .deduplicates(keeps: .seconds(90_000)), onError: ErrorRule? = nil) throws -> Scene {
        try scene(Policy(scene: "charge", effect: effect, onError: onError))
    }

    @Test("the closure runs once and its value is replayed")
    func runsOnce() async throws {
        let scene = try charge()
        let runs = Locked(0)
        let first = try await scene.perform("k", payload: 42) { _ in
            runs.withLock { $0 += 1 }
            return "done"
        }
        let second = try await scene.perform("k", payload: 42) { _ in
            runs.withLock { $0 += 1 }
            return "again"
        }
        guard case .performed("done", _) = first, case .replayed("done", let receipt) = second else {
            Issue.record("first \(first), second \(second)")
            return
        }
        #expect(runs.withLock { $0 } == 1)
        #expect(receipt == first.receipt)
    }

    @Test("falsy values replay as what they were, never as nothing (R16)")
    func falsyValues() async throws {
        let scene = try charge()
        func check<Value: Codable & Sendable & Equatable>(_ key: String, _ value: Value, other: Value) async throws {
            _ = try await scene.perform(key, payload: 1) { _ in value }
            let replay = try await scene.perform(key, payload: 1) { _ in other }
            guard case .replayed(let replayed, _) = replay else {
                Issue.record("\(key) ran again")
                return
            }
            #expect(replayed == value)
        }
        try await check("zero", 0, other: 1)
        try await check("false", false, other: true)
        try await check("empty string", "", other: "x")
        try await check("empty list", [Int](), other: [1])
        try await check("empty dictionary", [String: Int](), other: ["a": 1])
        try await check("nil", Int?.none, other: 1)
    }

    @Test("the same key with another payload is refused, while running and after (H25)")
    func mismatch() async throws {
        let scene = try charge()
        _ = try await scene.perform("k", payload: ["amount": 1]) { _ in
            await #expect(throws: OperationError.self) {
                _ = try await scene.perform("k", payload: ["amount": 2]) { _ in 0 }
            }
            return 1
        }
        let error = await #expect(throws: OperationError.self) {
            _ = try await scene.perform("k", payload: ["amount": 2]) { _ in 0 }
        }
        #expect(error?.code == .refused(.mismatch))
    }

    @Test("an identical retry passes its own payload check, whatever the order of fields (R18)")
    func identicalRetry() async throws {
        struct Order: Codable { var id: String, lines: [String: Int] }
        let scene = try charge()
        let order = Order(id: "7", lines: ["a": 1, "b": 2, "c": 3, "d": 4])
        _ = try await scene.perform("k", payload: order) { _ in 1 }
        for _ in 0..<20 {
            let replay = try await scene.perform("k", payload: Order(id: "7", lines: ["d": 4, "c": 3, "b": 2, "a": 1])) { _ in 2 }
            #expect(replay.value == 1)
        }
    }

    @Test("a permanent failure is recorded and thrown again; a transient one releases the key")
    func failures() async throws {
        let scene = try charge()
        let declined = PermanentFailure(code: "declined", message: "no funds")
        for _ in 0..<2 {
            let error = await #expect(throws: PermanentFailure.self) {
                _ = try await scene.perform("permanent", payload: 1) { _ -> Int in throw declined }
            }
            #expect(error == declined)
        }
        struct Flaky: Error {}
        await #expect(throws: Flaky.self) {
            _ = try await scene.perform("transient", payload: 1) { _ -> Int in throw Flaky() }
        }
        let retried = try await scene.perform("transient", payload: 1) { attempt in attempt.grant.attempt }
        guard case .performed = retried else {
            Issue.record("the retry did not run: \(retried)")
            return
        }
    }

    @Test("an error of an unknown target leaves the operation uncertain; only a proof releases it (H2)")
    func uncertainErrors() async throws {
        let durable = try Operations(store: StoreDouble.durable(store)).scene(Policy(scene: "charge", effect: .unknown))
        #expect(durable.guarantee == .atMostOnce)
        struct Lost: Error {}
        struct Refused: NotApplied {}
        await #expect(throws: Lost.self) { _ = try await durable.perform("k", payload: 1) { _ -> Int in throw Lost() } }
        let error = await #expect(throws: OperationError.self) { _ = try await durable.perform("k", payload: 1) { _ in 1 } }
        #expect(error?.code == .refused(.uncertain(reason: "error")))

        await #expect(throws: Refused.self) { _ = try await durable.perform("l", payload: 1) { _ -> Int in throw Refused() } }
        #expect(try await durable.perform("l", payload: 1) { _ in 5 }.value == 5)
    }

    @Test("a release whose answer was lost is a release, and the key is free (R11)")
    func lostRelease() async throws {
        struct Refused: NotApplied {}
        let double = StoreDouble.durable(store)
        let scene = try Operations(store: double).scene(Policy(scene: "charge", effect: .unknown))
        let released = Locked<TransitionResult?>(nil)
        await #expect(throws: Refused.self) {
            _ = try await scene.perform("k", payload: 1) { attempt -> Int in
                double.set { $0.lostAnswers = [StoreError(.indeterminate, "the answer was lost by the test")] }
                let result = try await attempt.release()
                released.withLock { $0 = result }
                throw Refused()
            }
        }
        #expect(released.withLock { $0 } == .applied)
        #expect(try await scene.perform("k", payload: 1) { _ in 2 }.value == 2)
    }

    @Test("the end of another operation, performed inside the closure, is an error like any other")
    func nestedEnd() async throws {
        let scene = try charge(.unknown, onError: .uncertain)
        let other = OperationReference(OperationID(scope: Scope("other"), key: try OperationKey("other")))
        await #expect(throws: OperationError.self) {
            _ = try await scene.perform("k", payload: 1) { _ -> Int in
                throw OperationError(code: .superseded, operation: other, message: "the inner operation was taken over")
            }
        }
        let error = await #expect(throws: OperationError.self) { _ = try await scene.perform("k", payload: 1) { _ in 1 } }
        #expect(error?.code == .refused(.uncertain(reason: "error")))
    }

    @Test("a value that cannot be written down is an error after the effect, and leaves no claim behind")
    func unencodable() async throws {
        let scene = try charge(.unknown, onError: .uncertain)
        await #expect(throws: EncodingError.self) { _ = try await scene.perform("k", payload: 1) { _ in Double.nan } }
        let error = await #expect(throws: OperationError.self) { _ = try await scene.perform("k", payload: 1) { _ in 1.0 } }
        #expect(error?.code == .refused(.uncertain(reason: "error")))
    }

    @Test("a store that cannot be reached is an error, never 'already handled' (R2)")
    func storeDown() async throws {
        let runs = Locked(0)
        let scene = try Operations(store: StoreDouble.durable(store) { $0.claim = StoreError(.unavailable, "cut off by the test") }).scene(Policy(scene: "charge", effect: .unknown))
        let error = await #expect(throws: StoreError.self) {
            _ = try await scene.perform("k", payload: 1) { _ in runs.withLock { $0 += 1 } == () }
        }
        #expect(error?.code == .unavailable)
        #expect(runs.withLock { $0 } == 0)
    }

    @Test("nothing counts as done before the work is: a run that dies is run again (R1, R8)")
    func diesInTheMiddle() async throws {
        let clock = ManualClock()
        let time = ManualStoreClock()
        let store = MemoryStore(clock: time)
        let scene = try Operations(store: store, environment: clock.environment()).scene(
            Policy(scene: "charge", effect: .deduplicates(keeps: .seconds(90_000)), lease: .seconds(1)))
        let call = OperationCall(id: OperationID(scope: Scope(), key: try OperationKey("k")), fingerprint: Fingerprint(of: []))
        do {
            guard case .run(let attempt) = try await scene.begin(call) else {
                Issue.record("the first claim was not granted")
                return
            }
            // The process dies here: the attempt is dropped without a word.
            _ = attempt
        }
        time.advance(by: .seconds(2))
        guard case .run(let second) = try await scene.begin(call) else {
            Issue.record("the work that died is taken for done")
            return
        }
        #expect(second.grant.kind == .reclaimed)
        #expect(second.grant.attempt == 2)
    }

    @Test("of many callers with one key one runs, and those that may wait get its value (H40)")
    func stampede() async throws {
        let scene = try scene(
            Policy(scene: "charge", effect: .deduplicates(keeps: .seconds(90_000)), onConcurrent: .wait(.seconds(30), waiters: 100)))
        let runs = Locked(0)
        let values = try await withThrowingTaskGroup(of: Int.self) { group in
            for _ in 0..<64 {
                group.addTask {
                    try await scene.perform("k", payload: 1) { _ in
                        runs.withLock { $0 += 1 }
                        await Task.yield()
                        return 7
                    }.value
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(values == Array(repeating: 7, count: 64))
        #expect(runs.withLock { $0 } == 1)
    }

    @Test("no more callers wait than the policy allows, and none longer")
    func boundedWaiting() async throws {
        let clock = ManualClock()
        let scene = try scene(
            Policy(scene: "charge", effect: .deduplicates(keeps: .seconds(90_000)), onConcurrent: .wait(.seconds(5), waiters: 1)),
            clock: clock)
        let (started, start) = AsyncStream<Void>.makeStream()
        let (finish, finishing) = AsyncStream<Void>.makeStream()
        async let first = scene.perform("k", payload: 1) { _ in
            start.yield()
            for await _ in finish { break }
            return 1
        }
        for await _ in started { break }
        let waiter = Task { try await scene.perform("k", payload: 1) { _ in 2 } }
        await clock.sleepers(atLeast: 2)  // the heartbeat and the waiter
        let refused = await #expect(throws: OperationError.self) { _ = try await scene.perform("k", payload: 1) { _ in 3 } }
        guard case .refused(.inProgress) = refused?.code else {
            Issue.record("a second waiter was let in: \(String(describing: refused))")
            return
        }
        clock.advance(by: .seconds(6))
        await #expect(throws: OperationError.self) { _ = try await waiter.value }
        finishing.yield()
        #expect(try await first.value == 1)
    }

    @Test("a heartbeat keeps the lease of a slow closure alive; a hung one is given up (H8)")
    func heartbeatAndProgress() async throws {
        let clock = ManualClock()
        let time = ManualStoreClock()
        let store = MemoryStore(clock: time)
        let scene = try Operations(store: store, environment: clock.environment()).scene(
            Policy(scene: "charge", effect: .deduplicates(keeps: .seconds(90_000)), lease: .seconds(3), progress: .seconds(60)))
        let (started, start) = AsyncStream<Void>.makeStream()
        let running = Task {
            try await scene.perform("k", payload: 1) { _ -> Int in
                start.yield()
                try await clock.sleep(for: .seconds(1_000_000))
                return 1
            }
        }
        for await _ in started { break }
        for second in 0..<59 {
            await clock.sleepers(atLeast: 2)  // the closure and the heartbeat
            time.advance(by: .seconds(1))
            clock.advance(by: .seconds(1))
            if second % 3 == 2 {
                let other = await #expect(throws: OperationError.self) { _ = try await scene.perform("k", payload: 1) { _ in 2 } }
                guard case .refused(.inProgress) = other?.code else {
                    Issue.record("the lease lapsed after \(second) s under a heartbeat: \(String(describing: other))")
                    return
                }
            }
        }
        await clock.sleepers(atLeast: 2)
        clock.advance(by: .seconds(2))
        let hung = await #expect(throws: OperationError.self) { _ = try await running.value }
        #expect(hung?.code == .hung)
        time.advance(by: .seconds(4))
        #expect(try await scene.perform("k", payload: 1) { _ in 3 }.value == 3)
    }

    @Test("a closure that was taken over does not overwrite its successor's result (H5, H6, R17)")
    func zombie() async throws {
        let time = ManualStoreClock()
        let store = MemoryStore(clock: time)
        let scene = try Operations(store: store, environment: ManualClock().environment()).scene(
            Policy(scene: "charge", effect: .deduplicates(keeps: .seconds(90_000)), lease: .seconds(1)))
        let (started, start) = AsyncStream<Void>.makeStream()
        let (finish, finishing) = AsyncStream<Void>.makeStream()
        let zombie = Task {
            try await scene.perform("k", payload: 1) { _ in
                start.yield()
                for await _ in finish { break }
                return "zombie"
            }
        }
        for await _ in started { break }
        time.advance(by: .seconds(2))
        #expect(try await scene.perform("k", payload: 1) { _ in "successor" }.value == "successor")
        finishing.yield()
        let error = await #expect(throws: OperationError.self) { _ = try await zombie.value }
        #expect(error?.code == .superseded)
        #expect(try await scene.perform("k", payload: 1) { _ in "third" }.value == "successor")
    }

    @Test("a lost operation whose target can be asked is verified under a higher epoch before it runs again")
    func verification() async throws {
        let time = ManualStoreClock()
        let clock = ManualClock()
        let store = StoreDouble.durable(clock: time)
        let scene = try Operations(store: store, environment: clock.environment()).scene(
            Policy(scene: "charge", effect: .queryable(inFlight: .seconds(1), isFenced: true), lease: .seconds(1)))
        #expect(scene.guarantee == .fencedAndVerified)
        struct Lost: Error {}
        let epochs = Locked([Epoch]())
        await #expect(throws: Lost.self) {
            _ = try await scene.perform("k", payload: 1) { attempt -> Int in
                epochs.withLock { $0.append(attempt.epoch) }
                throw Lost()
            }
        }
        time.advance(by: .seconds(2))
        let applied = try await scene.perform("k", payload: 1, verify: { attempt in
            epochs.withLock { $0.append(attempt.epoch) }
            return .applied(11)
        }) { _ in 12 }
        guard case .replayed(11, _) = applied else {
            Issue.record("what the target said was applied ran again: \(applied)")
            return
        }
        #expect(epochs.withLock { $0[0] < $0[1] })

        await #expect(throws: Lost.self) { _ = try await scene.perform("l", payload: 1) { _ -> Int in throw Lost() } }
        time.advance(by: .seconds(2))
        let unknown = await #expect(throws: OperationError.self) {
            _ = try await scene.perform("l", payload: 1, verify: { _ in .unknown }) { _ in 12 }
        }
        #expect(unknown?.code == .refused(.uncertain(reason: "verification-unknown")))
        time.advance(by: .seconds(2))
        #expect(try await scene.perform("l", payload: 1, verify: { _ in .notApplied }) { _ in 13 }.value == 13)
    }

    @Test("a number of seconds cannot be handed to a duration (R3)")
    func typedDurations() {
        #expect(Policy(scene: "s", effect: .unknown, lease: .seconds(3600)).lease == .milliseconds(3_600_000))
        #expect(throws: (any Error).self) { _ = try DurationText.parse("3600") }
    }

    @Test("one key in two scenes is a key used twice, never a replay of the other's result (H25)")
    func twoScenes() async throws {
        let operations = Operations(store: store)
        let charges = try operations.scene(Policy(scene: "charge", effect: .deduplicates(keeps: .seconds(90_000))))
        let shipments = try operations.scene(Policy(scene: "ship", effect: .deduplicates(keeps: .seconds(90_000))))
        _ = try await charges.perform("order-42", payload: "lamp") { _ in true }
        let error = await #expect(throws: OperationError.self) {
            _ = try await shipments.perform("order-42", payload: "lamp") { _ in true }
        }
        #expect(error?.code == .refused(.mismatch))
    }

    @Test("a caller that is cancelled while it waits out the time in flight does not ask, and does not run (H2)")
    func cancelledWhileWaiting() async throws {
        let time = ManualStoreClock()
        let clock = ManualClock()
        let store = StoreDouble.durable(clock: time)
        let scene = try Operations(store: store, environment: clock.environment()).scene(
            Policy(scene: "charge", effect: .queryable(inFlight: .seconds(100), isFenced: false), lease: .seconds(1000)))
        struct Lost: Error {}
        await #expect(throws: Lost.self) { _ = try await scene.perform("k", payload: 1) { _ -> Int in throw Lost() } }
        let asked = Locked(false)
        let retry = Task {
            try await scene.perform("k", payload: 1, verify: { _ in
                asked.withLock { $0 = true }
                return .notApplied
            }) { _ in 1 }
        }
        await clock.sleepers(atLeast: 2)  // the heartbeat and the wait
        retry.cancel()
        await #expect(throws: CancellationError.self) { _ = try await retry.value }
        #expect(!asked.withLock { $0 })
        let record = try await store.record(of: OperationID(scope: Scope(), key: try OperationKey("k")))
        #expect(record?.state == .uncertain)
    }

    @Test("a target that forgets keys is not given one again after it may have forgotten it (H22)")
    func forgetfulTarget() async throws {
        let time = ManualStoreClock()
        let store = MemoryStore(clock: time)
        let scene = try Operations(store: store, environment: ManualClock().environment()).scene(
            Policy(scene: "charge", effect: .deduplicates(keeps: .seconds(86_400)), lease: .seconds(1)))
        let call = OperationCall(id: OperationID(scope: Scope(), key: try OperationKey("k")), fingerprint: Fingerprint(of: []))
        for (pause, mayRun) in [(3600, true), (3600, true), (86_400, false)] {
            if case .run = try await scene.begin(call) {} else { Issue.record("it may run") }
            time.advance(by: .seconds(pause))
            if !mayRun {
                guard case .refused(.uncertain("target-may-have-forgotten")) = try await scene.begin(call) else {
                    Issue.record("a key was sent again that the target may have forgotten")
                    return
                }
            }
        }
    }

    @Test("a closure without a transaction cannot claim to be atomic")
    func closureIsNotAtomic() async throws {
        let scene = try Operations(store: StoreDouble.durable(store, isTransactional: true)).scene(Policy(scene: "charge", effect: .localTransaction))
        let error = await #expect(throws: OperationError.self) { _ = try await scene.perform("k", payload: 1) { _ in 1 } }
        #expect(error?.code == .misused)
    }

    @Test("the late result of an owner that nobody replaced counts, although its lease lapsed (H5)")
    func lateButOwn() async throws {
        let clock = ManualClock()
        let time = ManualStoreClock()
        let store = StoreDouble.durable(clock: time)
        let scene = try Operations(store: store, environment: clock.environment()).scene(
            Policy(scene: "charge", effect: .unknown, lease: .seconds(3)))
        let (started, start) = AsyncStream<Void>.makeStream()
        let (finish, finishing) = AsyncStream<Void>.makeStream()
        let late = Task {
            try await scene.perform("k", payload: 1) { _ in
                start.yield()
                for await _ in finish { break }
                return 7
            }
        }
        for await _ in started { break }
        await clock.sleepers(atLeast: 1)
        time.advance(by: .seconds(10))  // the process stood still past its lease
        let other = await #expect(throws: OperationError.self) { _ = try await scene.perform("k", payload: 1) { _ in 8 } }
        #expect(other?.code == .refused(.uncertain(reason: "lease-lapsed")))
        clock.advance(by: .seconds(10))  // its heartbeat is refused
        finishing.yield()
        #expect(try await late.value.value == 7)
        #expect(try await scene.perform("k", payload: 1) { _ in 8 }.value == 7)
    }

    @Test("a waiter looks again only when there is something to see, however long the lease is renewed")
    func noHotLoop() async throws {
        let clock = ManualClock()
        let time = ManualStoreClock()
        let counted = StoreDouble(MemoryStore(clock: time))
        let scene = try Operations(store: counted, environment: clock.environment()).scene(
            Policy(
                scene: "charge", effect: .deduplicates(keeps: .seconds(90_000)), onConcurrent: .wait(.seconds(60), waiters: 5),
                lease: .seconds(3)))
        let (started, start) = AsyncStream<Void>.makeStream()
        let (finish, finishing) = AsyncStream<Void>.makeStream()
        let first = Task {
            try await scene.perform("k", payload: 1) { _ in
                start.yield()
                for await _ in finish { break }
                return 1
            }
        }
        for await _ in started { break }
        let waiter = Task { try await scene.perform("k", payload: 1) { _ in 2 }.value }
        for _ in 0..<10 {
            await clock.sleepers(atLeast: 2)  // the heartbeat and the waiter
            time.advance(by: .seconds(1))
            clock.advance(by: .seconds(1))
        }
        await clock.sleepers(atLeast: 2)
        finishing.yield()
        #expect(try await waiter.value == 1)
        #expect(try await first.value.value == 1)
        #expect(counted.claims < 20)
    }
}
