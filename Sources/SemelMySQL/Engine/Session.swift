#if MySQL
import Foundation
import Semel

/// A lane's connection, and how its transactions are brought to an end whatever becomes of the server.
final class Session {
    let shared: Shared
    private let counting: Connection.RowCount
    private var open: Connection?
    private(set) var server: Server?
    /// The last try to reach the server failed; then the next caller is not kept waiting as long.
    private var isDown = false

    // The transaction under way.
    private(set) var now = StoreTime(.distantPast)
    private var incarnation = Incarnation(rawValue: 0)
    private var seen = Timestamp.distantPast
    private var readAt = Duration.zero
    private var drawn = Epoch.zero

    init(_ shared: Shared, counting: Connection.RowCount) {
        self.shared = shared
        self.counting = counting
    }

    private var uptime: Duration { shared.environment.uptime() }
    var failpoints: Failpoints { shared.environment.failpoints }

    // MARK: Connecting

    /// The connection of the transaction under way.
    var connection: Connection {
        guard let open else { preconditionFailure("statements run inside of persist(_:)") }
        return open
    }

    private func connect() throws {
        guard open == nil else { return }
        let place = shared.target.description
        let connection = try Connection(to: shared.target, timeout: shared.configuration.timeout, counting: counting)
        do {
            server = try Server(connection, at: place)
            try Schema.require(connection, at: place)
        } catch let error as StoreError where error.code != .newerSchema {
            // It was all right when the store was opened; somebody is at work on it, or a failover is under way.
            throw StoreError(.unavailable, error.message, underlying: error)
        }
        open = connection
        isDown = false
    }

    private func disconnect() { open = nil }

    private func rollBack() {
        guard let open else { return }
        do {
            try open.execute("ROLLBACK")
        } catch {
            // The server undoes what a lost connection left open.
            disconnect()
        }
    }

    /// In an idle moment: the server ends connections that say nothing.
    func stayAlive() {
        if let open, !open.isAlive { disconnect() }
    }

    // MARK: Transactions

    /// The COMMIT was sent, and no answer came.
    private struct CommitLost: Error {
        let error: MySQLError
    }

    /// Somebody else was at the same row, in a moment when it was not locked yet.
    struct Conflict: Error {}

    /// What several callers share failed for a reason that may be one's own: each is to be tried alone.
    struct Split: Error {
        let maybeDone: Bool
    }

    /// Runs a unit of work, which ends with ``commit()`` or without having written, until the server has answered it.
    ///
    /// Deadlocks, lost connections and the like are tried again, for as long as the store's patience. When a COMMIT went
    /// unanswered the unit runs again and is told so: what it did the first time is there, or will never be, once it holds
    /// the lock on the row again. So a unit finds out by saying the same again.
    ///
    /// - Parameter splits: throw ``Split`` where a unit for one caller alone might go well.
    func persist<Value>(maybeDone: Bool = false, splits: Bool = false, _ unit: (_ maybeDone: Bool) throws -> Value) throws -> Value {
        var maybeDone = maybeDone
        var schedule = RetrySchedule(Self.retries(within: shared.configuration.patience))
        var random = shared.environment.generator
        let start = uptime
        while true {
            let cause: MySQLError
            do {
                try connect()
                return try unit(maybeDone)
            } catch let lost as CommitLost {
                disconnect()
                maybeDone = true
                cause = lost.error
            } catch let error as MySQLError {
                if error.isConnectionLost || error.isReadOnly { disconnect() } else { rollBack() }
                let isTransient = error.isConnectionLost || error.isReadOnly || error.isDeadlock || error.isLockTimeout || error.isInterrupted
                if splits, !isTransient || error.isLockTimeout { throw Split(maybeDone: maybeDone) }
                guard isTransient else { throw maybeDone ? indeterminate(error) : shared.storeError(error) }
                cause = error
            } catch is Conflict {
                rollBack()
                cause = MySQLError(code: 1062, message: "others changed the same rows again and again")
            } catch {
                rollBack()
                throw maybeDone ? indeterminate(error) : error
            }
            let isUnreachable = open == nil
            let pause = isDown && isUnreachable ? nil : schedule.next(elapsed: uptime - start, using: &random)
            guard let pause else {
                isDown = isUnreachable
                if splits, !isUnreachable { throw Split(maybeDone: maybeDone) }
                if maybeDone { throw indeterminate(cause) }
                let error = shared.storeError(cause)
                // A read-only server is one that will take writes again, or give its name to one that does.
                throw cause.isReadOnly ? StoreError(.unavailable, error.message, underlying: cause) : error
            }
            Thread.sleep(forTimeInterval: Double(pause.components.attoseconds) * 1e-18 + Double(pause.components.seconds))
        }
    }

    private static func retries(within patience: Duration) -> RetrySchedule.Configuration {
        do {
            return try RetrySchedule.Configuration(
                from: .milliseconds(4), upTo: .milliseconds(400), attempts: 1000, deadline: max(patience, .milliseconds(1)))
        } catch {
            preconditionFailure("\(error)")
        }
    }

    private func indeterminate(_ error: any Error) -> StoreError {
        StoreError(
            .indeterminate, "\(shared.target.description): the answer to a COMMIT was lost, and what became of it cannot be found out now: \(error). Remedy: say the same again",
            underlying: error)
    }

    /// Makes the transaction durable; what it wrote may be answered when this returns.
    func commit() throws {
        // About once a second, and last: whoever holds that row waits for nobody any more.
        if now.retention - seen >= .seconds(1) { try noteTime() }
        failpoints.pass(.beforeCommit)
        do throws(MySQLError) {
            try connection.execute("COMMIT")
        } catch let error where error.isDeadlock || error.code == 1180 {
            // A cluster refused it, or the engine did: it was undone.
            throw MySQLError(code: 1213, sqlState: "40001", message: error.message)
        } catch {
            throw CommitLost(error: error)
        }
        failpoints.pass(.afterCommit)
    }

    /// Undoes what the unit has done so far; it may go on, in a new transaction.
    func startOver() throws {
        try connection.execute("ROLLBACK")
    }

    func storeError(_ error: any Error) -> StoreError { shared.storeError(error) }

    // MARK: Clock and epochs

    /// Reads the server's clock, which also begins the transaction. It never goes back: the highest time that was seen is kept
    /// in the database, about once a second.
    func readClock() throws {
        guard let row = try connection.statement(Tables.clock).query().first, let time = row[0].integer, let highest = row[1].integer,
            let number = row[2].integer, let version = row[3].integer
        else { throw StoreError(.missingSchema, "\(shared.target.description): the table semel_state is empty. Remedy: restore it from a backup, with all of the store's tables") }
        guard version <= Schema.version else { throw Schema.newer(version, shared.target.description) }
        seen = Timestamp(microseconds: highest)
        now = StoreTime(max(Timestamp(microseconds: time), seen))
        incarnation = Incarnation(rawValue: UInt16(clamping: number))
        readAt = uptime
    }

    /// Reads it again where time went by, as it does in waiting for a lock.
    func refreshClock() throws {
        if uptime - readAt > .milliseconds(20) { try readClock() }
    }

    func nextEpoch(after previous: Epoch) -> Epoch { previous.next(at: now.retention, in: incarnation) }

    /// One that this session has not drawn before, also while the time stands still: what stands under it was written now.
    func drawEpoch() -> Epoch {
        drawn = nextEpoch(after: drawn)
        return drawn
    }

    /// A row with an epoch as high as this one may go: no time that is still in use gives one as low (``Tables/freeTime``).
    var forgettableEpoch: Epoch {
        Epoch.zero.next(at: Timestamp(microseconds: now.retention.microseconds - Tables.freeTime.microseconds), in: incarnation)
    }

    /// Writes the time into the transaction under way.
    func noteTime() throws {
        var parameters = Parameters()
        parameters.append(now.retention.microseconds)
        parameters.append(now.retention.microseconds)
        try connection.statement("UPDATE semel_state SET seen = ? WHERE id = 1 AND seen < ?").execute(parameters)
        seen = max(seen, now.retention)
    }

    func raiseIncarnation() throws -> Incarnation {
        var raised: Incarnation?
        return try persist { maybeDone in
            try readClock()
            let row = try connection.rows("SELECT incarnation FROM semel_state WHERE id = 1 FOR UPDATE").first
            let current = UInt16(clamping: row?[0].integer ?? 0)
            if maybeDone, let raised, current >= raised.rawValue { return raised }
            guard current < Incarnation.limit else {
                throw StoreError(.misconfigured, "\(shared.target.description): the incarnation is at its limit of \(Incarnation.limit). Remedy: begin with a new database")
            }
            let next = Incarnation(rawValue: current + 1)
            raised = next
            try connection.execute("UPDATE semel_state SET incarnation = \(next.rawValue) WHERE id = 1")
            try commit()
            return next
        }
    }
}
#endif
