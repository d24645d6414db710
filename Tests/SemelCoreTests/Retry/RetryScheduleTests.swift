import SemelCore
import Testing

/// Randomness at one end of its range: `1` gives the least, `.max` the greatest. (With 0, the rejection sampling of the
/// standard library would never end.)
private struct Extreme: RandomNumberGenerator {
    let word: UInt64
    func next() -> UInt64 { word }
}

@Suite("The schedule of retries")
struct RetryScheduleTests {
    private func schedule(
        from: Duration = .milliseconds(200), upTo: Duration = .seconds(30), attempts: Int = 8, deadline: Duration? = nil
    ) throws -> RetrySchedule {
        RetrySchedule(try .init(from: from, upTo: upTo, attempts: attempts, deadline: deadline))
    }

    @Test("bounds double from the first pause to the longest, and pauses fill them from nothing to the bound (full jitter)")
    func bounds() throws {
        var random = SeededRandom.fresh()
        let bounds: [Duration] = [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000].map { .milliseconds($0) }
        var least = [Duration](repeating: .seconds(99), count: bounds.count)
        var greatest = [Duration](repeating: .zero, count: bounds.count)
        for _ in 0..<2_000 {
            var schedule = try schedule(attempts: 11)
            for index in bounds.indices {
                let pause = try #require(schedule.next(elapsed: .zero, using: &random))
                #expect(pause >= .zero && pause <= bounds[index], "seed \(random.seed)")
                least[index] = min(least[index], pause)
                greatest[index] = max(greatest[index], pause)
            }
        }
        // With 2,000 samples, a range not reached by a twentieth at one end has a probability of 10⁻⁴⁴.
        for index in bounds.indices {
            #expect(least[index] < bounds[index] / 20, "seed \(random.seed)")
            #expect(greatest[index] > bounds[index] - bounds[index] / 20, "seed \(random.seed)")
        }
    }

    @Test("there are exactly as many attempts as configured, the first included", arguments: [1, 2, 8])
    func attempts(limit: Int) throws {
        var random = SeededRandom.fresh()
        var schedule = try schedule(attempts: limit)
        for attempt in 1..<limit {
            #expect(schedule.attempt == attempt)
            #expect(schedule.next(elapsed: .zero, using: &random) != nil)
        }
        #expect(schedule.attempt == limit)
        #expect(schedule.next(elapsed: .zero, using: &random) == nil)
        #expect(schedule.next(elapsed: .zero, using: &random) == nil)
        #expect(schedule.attempt == limit)
    }

    @Test("every attempt begins before the deadline, whatever the attempts take")
    func deadline() throws {
        var random = SeededRandom.fresh()
        for _ in 0..<2_000 {
            let deadline = Duration.milliseconds(Int64.random(in: 1...5_000, using: &random))
            var schedule = try schedule(attempts: 50, deadline: deadline)
            var elapsed = Duration.zero
            while true {
                elapsed += .microseconds(Int64.random(in: 0...300_000, using: &random))
                let floor: Duration? = Bool.random(using: &random) ? .milliseconds(Int64.random(in: 0...2_000, using: &random)) : nil
                guard let pause = schedule.next(elapsed: elapsed, retryAfter: floor, using: &random) else { break }
                #expect(pause >= floor ?? .zero)
                #expect(elapsed + pause < deadline, "seed \(random.seed)")
                elapsed += pause
            }
        }
    }

    @Test("with the most unlucky jitter the pause still ends before the deadline; at and after it there is none")
    func edge() throws {
        var most = Extreme(word: .max)
        var schedule = try schedule(from: .seconds(10), deadline: .seconds(1))
        let pause = try #require(schedule.next(elapsed: .milliseconds(400), using: &most))
        #expect(pause < .milliseconds(600))
        #expect(pause > .milliseconds(599))
        #expect(schedule.next(elapsed: .seconds(1), using: &most) == nil)
        #expect(schedule.next(elapsed: .seconds(5), using: &most) == nil)
    }

    @Test("what the other side asked for is the least pause, also beyond the longest, and is spread by jitter")
    func retryAfter() throws {
        var random = SeededRandom.fresh()
        var pauses: Set<Duration> = []
        for _ in 0..<100 {
            var schedule = try schedule()
            let pause = try #require(schedule.next(elapsed: .zero, retryAfter: .seconds(60), using: &random))
            #expect(pause >= .seconds(60) && pause <= .milliseconds(60_200))
            pauses.insert(pause)
        }
        #expect(pauses.count > 90)
        // A negative one is none.
        var least = Extreme(word: 1)
        var schedule = try schedule()
        #expect(schedule.next(elapsed: .zero, retryAfter: .seconds(-5), using: &least) == .zero)
    }

    @Test("a pause that was asked for and reaches the deadline is a reason to give up at once")
    func retryAfterBeyondDeadline() throws {
        var random = SeededRandom.fresh()
        var schedule = try schedule(deadline: .seconds(10))
        #expect(schedule.next(elapsed: .seconds(5), retryAfter: .seconds(5), using: &random) == nil)
        #expect(schedule.attempt == 1)
        #expect(schedule.next(elapsed: .seconds(5), retryAfter: .milliseconds(4_999), using: &random) != nil)
    }

    @Test("each attempt gets an equal share of the time that is left")
    func share() throws {
        var random = Extreme(word: 1)
        var schedule = try schedule(attempts: 4, deadline: .seconds(12))
        #expect(schedule.share(elapsed: .zero) == .seconds(3))
        _ = schedule.next(elapsed: .seconds(3), using: &random)
        #expect(schedule.share(elapsed: .seconds(3)) == .seconds(3))
        _ = schedule.next(elapsed: .seconds(4), using: &random)
        _ = schedule.next(elapsed: .seconds(4), using: &random)
        #expect(schedule.share(elapsed: .seconds(4)) == .seconds(8))
        #expect(schedule.share(elapsed: .seconds(20)) == .zero)
        #expect(try self.schedule().share(elapsed: .seconds(20)) == nil)
    }

    @Test("the same randomness gives the same schedule")
    func reproducible() throws {
        func pauses(seed: UInt64) throws -> [Duration?] {
            var random = SeededRandom(seed: seed)
            var schedule = try schedule()
            return (0..<10).map { _ in schedule.next(elapsed: .zero, using: &random) }
        }
        #expect(try pauses(seed: 7) == pauses(seed: 7))
        #expect(try pauses(seed: 7) != pauses(seed: 8))
    }

    @Test("enormous configurations neither overflow nor trap")
    func extremes() throws {
        var random = SeededRandom.fresh()
        var schedule = try schedule(from: .nanoseconds(1), upTo: .seconds(Int64.max), attempts: 500)
        for _ in 1..<500 { #expect(schedule.next(elapsed: .zero, using: &random) != nil) }
        var tight = try self.schedule(deadline: .nanoseconds(1))
        #expect(tight.next(elapsed: .zero, using: &random) == .zero)
    }

    @Test("a configured hour is an hour (R3)")
    func units() throws {
        var most = Extreme(word: .max)
        let configuration = try RetrySchedule.Configuration(
            from: DurationText.parse("3600s"), upTo: DurationText.parse("1d"), attempts: 2, deadline: nil)
        var schedule = RetrySchedule(configuration)
        let pause = try #require(schedule.next(elapsed: .zero, using: &most))
        #expect(pause > .seconds(3599) && pause <= .seconds(3600))
    }

    @Test("configurations that make no sense are refused")
    func refused() {
        #expect(throws: RetryConfigurationError.firstPause) { _ = try schedule(from: .zero) }
        #expect(throws: RetryConfigurationError.firstPause) { _ = try schedule(from: .seconds(-1)) }
        #expect(throws: RetryConfigurationError.longestPause) { _ = try schedule(from: .seconds(2), upTo: .seconds(1)) }
        #expect(throws: RetryConfigurationError.attempts) { _ = try schedule(attempts: 0) }
        #expect(throws: RetryConfigurationError.deadline) { _ = try schedule(deadline: .zero) }
    }
}
