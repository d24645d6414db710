import Synchronization

/// What clients sent and were told, counted while it happens.
final class Tally: Sendable {
    /// What is known of one payment.
    struct Payment: Sendable {
        /// The first answer of success that any client got; all others must be the same.
        var body: [UInt8]?
        /// A client was told that it was done, with or without the answer itself.
        var isDone = false
        /// The last retry, after the storm, was answered for good.
        var isConfirmed = false
    }

    struct Counts: Sendable {
        var payments: [Payment]
        /// Requests begun for the first time by their clients.
        var begun = 0
        /// Requests sent, retries included.
        var sent = 0
        var inFlight = 0
        var firstAnswers = 0
        var replays = 0
        /// Recorded as done, with an answer that was not kept.
        var answersNotKept = 0
        var inProgress = 0
        var uncertain = 0
        var errors = 0
        var hungUp = 0
        /// Sent, and the connection was lost.
        var lost = 0
        /// Of the lost, those that were in flight when the gateway was killed.
        var lostByKill = 0
        /// Not sent: nobody listened.
        var notConnected = 0
        /// Clients that gave up before an answer for good; the last retry asks again for them.
        var gaveUp = 0
        var differentBodies = 0
        /// Answers that no client should get, with how often.
        var unexpected: [String: Int] = [:]
        var guarantees: Set<String> = []
        var mostUncertain = 0
        var kills = 0
    }

    private let state: Mutex<Counts>

    init(payments: Int) { state = Mutex(Counts(payments: Array(repeating: Payment(), count: payments))) }

    var counts: Counts { state.withLock { $0 } }

    func update<Result: Sendable>(_ change: (inout Counts) -> Result) -> Result {
        state.withLock { counts in change(&counts) }
    }
}

extension Tally.Counts {
    /// Enters an answer of success and says whether it agrees with those before it.
    mutating func succeed(_ payment: Int, _ answer: Answer) {
        payments[payment].isDone = true
        if answer.isReplayed { replays += 1 } else { firstAnswers += 1 }
        if let guarantee = answer.guarantee { guarantees.insert(guarantee) }
        guard let body = payments[payment].body else {
            payments[payment].body = answer.body
            return
        }
        if body != answer.body { differentBodies += 1 }
    }
}
