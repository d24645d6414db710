package import SemelCore

/// The world as the runtime sees it: time, chance, tasks, and the places where a test may make it fail.
///
/// Nothing in the runtime reads a clock, draws a number or starts a task except through this, so the same code runs in
/// production and in a simulation in virtual time.
public struct Environment: Sendable {
    /// For sleeping and for deadlines of this process; never for deciding a lease or a retention.
    public var clock: any Clock<Duration>
    /// Time on ``clock`` since an arbitrary start.
    public var uptime: @Sendable () -> Duration
    public var random: @Sendable () -> UInt64
    /// Where the runtime's own tasks run; `nil` for the global executor.
    public var executor: (any TaskExecutor)?
    public var failpoints: Failpoints

    public init<C: Clock<Duration>>(
        clock: C, random: @escaping @Sendable () -> UInt64, executor: (any TaskExecutor)? = nil, failpoints: Failpoints = .none
    ) {
        let start = clock.now
        self.clock = clock
        uptime = { start.duration(to: clock.now) }
        self.random = random
        self.executor = executor
        self.failpoints = failpoints
    }

    /// The machine's own clock and randomness, and the failpoints named by `SEMEL_FAILPOINTS`, if any.
    public static let live = Environment(
        clock: ContinuousClock(),
        random: {
            let pool = RandomPool()
            return { pool.next() }
        }(),
        failpoints: .fromProcessEnvironment)

    /// Starts a task that outlives its caller.
    @discardableResult
    public func detach<Value: Sendable>(_ work: @escaping @Sendable () async -> Value) -> Task<Value, Never> {
        Task.detached(executorPreference: executor) { await work() }
    }

    /// Starts a task that its caller's cancellation does not reach, and that keeps the caller's task-local values. As far
    /// as it comes without waiting, it runs at once and on the caller's thread, where the system can do that: handing it
    /// to another thread, and its value back, would cost more than a short piece of work does.
    package func detachHere<Value: Sendable>(_ work: @escaping @Sendable () async -> Value) -> Task<Value, Never> {
        if executor == nil, #available(macOS 26.0, *) { return Task.immediate { await work() } }
        return Task(executorPreference: executor) { await work() }
    }

    /// A generator that draws from ``random``.
    public var generator: some RandomNumberGenerator { Generator(draw: random) }

    private struct Generator: RandomNumberGenerator {
        let draw: @Sendable () -> UInt64
        func next() -> UInt64 { draw() }
    }

    package func newOwner() -> Owner { Owner(high: random(), low: random()) }
}
