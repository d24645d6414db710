/// All the clients: each repeats its request, with the same key, until it is answered for good.
struct Storm: Sendable {
    let plan: Plan
    let tally: Tally
    private let slots: Slots
    private let client: Client
    private let display: Display

    /// How long a client goes on retrying before it gives up.
    private static let patience = Duration.seconds(60)
    /// How long the gateway has to resolve all that is uncertain.
    private static let resolutionLimit = Duration.seconds(60)

    init(plan: Plan, concurrency: Int, display: Display) {
        self.plan = plan
        tally = Tally(payments: plan.payments.count)
        slots = Slots(concurrency)
        client = Client(connections: concurrency * 2)
        self.display = display
    }

    func close() async { await client.close() }

    /// Sends everything, and returns when every client was answered or gave up.
    func blow(_ target: Target, crash: Crash?, controlPlane: ControlPlane?) async throws {
        display.say("\(plan.requests) requests for \(plan.payments.count) payments, each repeated by several clients at once and later")
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await observe(controlPlane) }
            group.addTask { try await send(to: target, crash) }
            defer { group.cancelAll() }
            try await group.next()
        }
        display.say("every client has its answer: \(progress(tally.counts))")
    }

    private func send(to target: Target, _ crash: Crash?) async throws {
        try await withThrowingDiscardingTaskGroup { group in
            for (index, burst) in plan.bursts.enumerated() {
                // Those who have sent already go on; new ones hold back while the gateway starts again.
                try await crash?.recovery()
                try Task.checkCancellation()
                for request in burst {
                    await slots.acquire()
                    group.addTask { try await persist(request, target) }
                }
                if index == plan.surge { try await crash?.strike(tally) }
            }
        }
        try await crash?.recovery()
    }

    /// One client. It holds a slot when this is called.
    private func persist(_ request: Plan.Request, _ target: Target) async throws {
        tally.update { $0.begun += 1 }
        let clock = ContinuousClock()
        let start = clock.now
        var isFirst = true
        while true {
            let attempt = await attempt(
                request.payment, target,
                fault: isFirst ? request.fault : nil, hangsUpAfter: isFirst ? request.hangsUpAfter : nil)
            slots.release()
            guard let pause = settle(request.payment, attempt) else { return }
            if start.duration(to: clock.now) > Self.patience {
                tally.update { $0.gaveUp += 1 }
                return
            }
            try await Task.sleep(for: pause)
            await slots.acquire()
            isFirst = false
        }
    }

    private func attempt(
        _ payment: Int, _ target: Target, fault: Plan.Fault? = nil, hangsUpAfter: Duration? = nil
    ) async -> Attempt {
        let kills = tally.update { counts in
            counts.inFlight += 1
            return counts.kills
        }
        let attempt = await client.pay(plan.payments[payment], at: target, fault: fault, hangsUpAfter: hangsUpAfter)
        tally.update { counts in
            counts.inFlight -= 1
            switch attempt {
            case .notConnected: counts.notConnected += 1
            case .lost:
                counts.sent += 1
                counts.lost += 1
                if counts.kills > kills { counts.lostByKill += 1 }
            case .hungUp:
                counts.sent += 1
                counts.hungUp += 1
            case .answered: counts.sent += 1
            }
        }
        return attempt
    }

    /// Enters how an attempt ended, and says after what pause to try again; nil when it is over.
    private func settle(_ payment: Int, _ attempt: Attempt) -> Duration? {
        let jitter = Duration.milliseconds(Int.random(in: 20...300))
        guard case .answered(let answer) = attempt else { return jitter }
        return tally.update { counts in
            switch (answer.status, answer.problem) {
            case (200..<300, nil):
                counts.succeed(payment, answer)
                return nil
            case (409, "outcome-unavailable"), (409, "outcome-expired"):
                counts.answersNotKept += 1
                counts.payments[payment].isDone = true
                return nil
            case (409, "in-progress"): counts.inProgress += 1
            case (409, "outcome-uncertain"): counts.uncertain += 1
            case (429, _), (500..., _): counts.errors += 1
            default:
                let text = answer.problem ?? String(decoding: answer.body.prefix(200), as: UTF8.self)
                counts.unexpected["\(answer.status) \(text)", default: 0] += 1
                return nil
            }
            return min(answer.retryAfter ?? .zero, .seconds(5)) + jitter
        }
    }

    /// Waits until the gateway has resolved all that was uncertain, by asking the service.
    func awaitResolution(by controlPlane: ControlPlane) async throws {
        let clock = ContinuousClock()
        let start = clock.now
        while true {
            let uncertain = try await controlPlane.uncertain(client)
            tally.update { $0.mostUncertain = max($0.mostUncertain, uncertain) }
            if uncertain == 0 { break }
            guard start.duration(to: clock.now) < Self.resolutionLimit else {
                throw Failure("\(uncertain) operations are still uncertain after \(Self.resolutionLimit)")
            }
            display.progress("\(uncertain) operations are uncertain; the gateway asks the service")
            try await Task.sleep(for: .milliseconds(200))
        }
        display.say("no operation is uncertain any more; there were up to \(tally.counts.mostUncertain)")
    }

    /// Retries every payment once more: each must be answered for good.
    func retryAll(_ target: Target) async throws {
        display.say("the last retry of every payment")
        try await withThrowingDiscardingTaskGroup { group in
            for payment in plan.payments.indices {
                await slots.acquire()
                group.addTask { try await confirm(payment, target) }
            }
        }
    }

    private func confirm(_ payment: Int, _ target: Target) async throws {
        for _ in 0..<20 {
            let attempt = await attempt(payment, target)
            slots.release()
            guard let pause = settle(payment, attempt) else {
                tally.update { $0.payments[payment].isConfirmed = $0.payments[payment].isDone }
                return
            }
            try await Task.sleep(for: pause)
            await slots.acquire()
        }
        slots.release()
    }

    /// Compares what clients were told with what the service did.
    func ledger(from target: Target, inFlightAtKill: Int?) async throws -> Ledger {
        try await Ledger(plan, tally.counts, inFlightAtKill: inFlightAtKill, service: target.payments, client)
    }

    /// Shows the progress and keeps the peak of what is uncertain, until it is cancelled.
    private func observe(_ controlPlane: ControlPlane?) async throws {
        while true {
            try await Task.sleep(for: .milliseconds(200))
            // Between the kill and the restart nobody answers.
            if let controlPlane, let uncertain = try? await controlPlane.uncertain(client) {
                tally.update { $0.mostUncertain = max($0.mostUncertain, uncertain) }
            }
            display.progress(progress(tally.counts))
        }
    }

    private func progress(_ counts: Tally.Counts) -> String {
        "sent \(counts.sent), answered \(counts.firstAnswers + counts.replays) (\(counts.replays) replayed), "
            + "told to wait \(counts.inProgress + counts.uncertain), interrupted \(counts.hungUp + counts.lost), in flight \(counts.inFlight)"
    }
}
