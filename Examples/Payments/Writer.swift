import Foundation

/// The one thread that owns the database.
///
/// What callers ask for while a transaction is under way gathers into the next one, so hundreds of payments share one sync
/// of the disk, and a lone one waits for nothing. An answer is given after the commit that made it durable.
/// Reads go the same way, so each sees every write answered before it.
final class Writer: @unchecked Sendable {
    private struct Job {
        /// Runs inside the transaction, and returns what tells the caller once it is committed.
        let run: (Connection) -> Delivery
        /// Tells the caller that the transaction failed.
        let fail: (any Error) -> Void
    }
    private typealias Delivery = () -> Void

    private let condition = NSCondition()
    // Guarded by `condition`.
    private var waiting: [Job] = []
    private var isClosing = false
    private var closed: [CheckedContinuation<Void, Never>] = []
    private var hasEnded = false

    /// Opens the database and starts the thread.
    init(path: String) throws {
        let connection = try Connection(path: path)
        try Ledger.migrate(connection)
        nonisolated(unsafe) let lent = connection
        let thread = Thread { [self] in serve(lent) }
        thread.name = "payments-writer"
        thread.start()
    }

    /// Performs `body` in a transaction. When it throws, what it wrote is undone, and nobody else's.
    ///
    /// - Throws: what `body` throws, or the error of the commit: the effect is then not known to be durable.
    func perform<Success: Sendable>(_ body: @escaping @Sendable (Connection) throws -> Success) async throws -> Success {
        try await withCheckedThrowingContinuation { continuation in
            enqueue(
                Job(
                    run: { connection in
                        let result = Result { try connection.undoingOnError { try body(connection) } }
                        return { continuation.resume(with: result) }
                    },
                    fail: { continuation.resume(throwing: $0) }
                )
            )
        }
    }

    /// Ends the thread after everything that waits, and closes the database.
    func close() async {
        await withCheckedContinuation { continuation in
            condition.withLock {
                isClosing = true
                if hasEnded { continuation.resume() } else { closed.append(continuation) }
                condition.signal()
            }
        }
    }

    private func enqueue(_ job: Job) {
        condition.withLock {
            precondition(!isClosing, "the database was closed while requests were still served")
            waiting.append(job)
            condition.signal()
        }
    }

    private func serve(_ connection: Connection) {
        while let jobs = next() {
            do {
                try connection.run("BEGIN IMMEDIATE")
                let deliveries = jobs.map { $0.run(connection) }
                try connection.run("COMMIT")
                for deliver in deliveries { deliver() }
            } catch {
                // This fails when no transaction is open, which is what it is for.
                try? connection.run("ROLLBACK")
                for job in jobs { job.fail(error) }
            }
        }
        connection.close()
        condition.withLock {
            hasEnded = true
            for continuation in closed { continuation.resume() }
        }
    }

    /// Waits for work and takes all there is; nil when the writer is closed and nothing is left.
    private func next() -> [Job]? {
        condition.lock()
        defer { condition.unlock() }
        while waiting.isEmpty {
            if isClosing { return nil }
            condition.wait()
        }
        defer { waiting = [] }
        return waiting
    }
}

extension Connection {
    /// Performs `body` so that what it wrote is undone when it throws, and nothing else of the transaction.
    fileprivate func undoingOnError<Success>(_ body: () throws -> Success) throws -> Success {
        try run("SAVEPOINT one")
        do {
            let success = try body()
            try run("RELEASE one")
            return success
        } catch {
            try run("ROLLBACK TO one")
            try run("RELEASE one")
            throw error
        }
    }
}
