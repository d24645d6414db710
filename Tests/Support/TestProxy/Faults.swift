/// Faults that happen again and again, between what callers do.
extension TestProxy {
    /// Cuts all connections so many times, every other time in the middle of an answer.
    /// - Parameter work: what is to succeed before each cut.
    public func cut(rounds: Int, between work: () async throws -> Void) async throws {
        for round in 0..<rounds {
            try await work()
            let before = cuts
            if round % 2 == 0 { cut() } else { cut(afterAnswerBytes: 100 + 37 * round) }
            while cuts == before { try await Task.sleep(for: .milliseconds(2)) }
        }
    }

    /// Loses answers so many times, while what is asked happens, and then cuts the connections that wait for them.
    /// - Parameter work: what is to succeed before each loss.
    public func loseAnswers(rounds: Int, between work: () async throws -> Void) async throws {
        for _ in 0..<rounds {
            try await work()
            let before = droppedBytes
            mode = .dropAnswers
            while droppedBytes == before { try await Task.sleep(for: .milliseconds(2)) }
            // Time for more of them.
            try await Task.sleep(for: .milliseconds(50))
            cut()
            mode = .forward
        }
    }
}
