/// Why a change under optimistic locking was not made.
public struct OptimisticLockFailure: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Reason: String, Hashable, Sendable, CaseIterable {
        /// The version was not the one that was read.
        case conflict
        /// The state does not allow the change.
        case forbidden
        case missing
        /// The database gave up on the transaction (a deadlock, a serialization failure), as the caller recognised.
        case database
        /// Every attempt that the schedule allows has failed.
        case exhausted
    }

    public var reason: Reason
    public var message: String

    public init(reason: Reason, message: String) {
        self.reason = reason
        self.message = message
    }

    public var description: String { message }
}

/// Repeats a read-change-write while others change the same row: with growing, random pauses, a bounded number of times,
/// inside a deadline. Every failure is counted (`semel_optimistic_lock_failures_total{operation,reason}`).
///
/// ```swift
/// let retry = OptimisticRetry("pay-order", schedule: try .init(from: .milliseconds(100), upTo: .seconds(2), attempts: 4, deadline: .seconds(5)))
/// try await retry.run { _ in
///     try await database.transaction { transaction in
///         let row = try await orders.read([], key: [42], in: .postgres).run(in: transaction)
///         …
///         return try await orders.move(to: "PAID", key: [42], from: row.version, in: .postgres).run(in: transaction).get()
///     }
/// }
/// ```
///
/// Only a conflict is tried again, and an error that `isRetryable` knows: another state or a missing row would be the same the
/// next time. The body is the *whole* transaction, begun anew and read anew each time.
public struct OptimisticRetry: Sendable {
    public let operation: String
    public let schedule: RetrySchedule.Configuration
    private let metrics: SemelMetrics?
    private let environment: Environment
    private let isRetryable: @Sendable (any Error) -> Bool

    /// - Parameters:
    ///   - operation: one of a fixed set of names, for the metric; never a key.
    ///   - isRetryable: whether an error of the driver means that the database gave up on the transaction, and undid it.
    public init(
        _ operation: String, schedule: RetrySchedule.Configuration, metrics: SemelMetrics? = nil, environment: Environment = .live,
        isRetryable: @escaping @Sendable (any Error) -> Bool = { _ in false }
    ) {
        self.operation = operation
        self.schedule = schedule
        self.metrics = metrics
        self.environment = environment
        self.isRetryable = isRetryable
    }

    /// - Parameter body: gets the number of the attempt, from 1.
    /// - Throws: what the body throws last; an ``OptimisticLockFailure`` of the reason `exhausted` when every attempt met
    ///   a conflict; `CancellationError`.
    public nonisolated(nonsending) func run<Value>(_ body: (_ attempt: Int) async throws -> Value) async throws -> Value {
        var plan = RetrySchedule(schedule)
        var generator = environment.generator
        let start = environment.uptime()
        while true {
            let failure: OptimisticLockFailure
            do {
                return try await body(plan.attempt)
            } catch let error as OptimisticLockFailure {
                metrics?.optimisticLockFailed(operation: operation, reason: error.reason)
                guard error.reason == .conflict || error.reason == .database else { throw error }
                failure = error
            } catch  where isRetryable(error) {
                metrics?.optimisticLockFailed(operation: operation, reason: .database)
                failure = OptimisticLockFailure(reason: .database, message: "\(error)")
            }
            guard let pause = plan.next(elapsed: environment.uptime() - start, using: &generator) else {
                metrics?.optimisticLockFailed(operation: operation, reason: .exhausted)
                throw OptimisticLockFailure(
                    reason: .exhausted, message: "\(operation) failed \(plan.attempt) times, at last because \(failure.message)")
            }
            try await environment.clock.sleep(for: pause)
        }
    }
}
