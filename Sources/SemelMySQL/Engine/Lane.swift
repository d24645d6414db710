#if MySQL
import Dispatch
import Foundation
import Semel

/// A thread with a connection, and its queue.
///
/// Natural batching: whatever was queued while one transaction ran is the next one. There is no timer, so a lone call waits
/// for nothing; under load a hundred calls share one transaction.
final class Lane: Sendable {
    private struct Queue {
        var jobs: [Job] = []
        var isAsleep = false
        var isClosing = false
        var whenClosed: [UnsafeContinuation<Void, Never>] = []
        var isClosed = false
    }

    private let queue = Locked(Queue())
    private let wake = DispatchSemaphore(value: 0)
    private let closed: StoreError

    init(_ shared: Shared, _ name: String, counting: Connection.RowCount) {
        closed = StoreError(.stopped, "\(shared.target.description): the store is closed")
        let thread = Thread { [self] in
            serve(Session(shared, counting: counting))
            announceClosed()
        }
        thread.name = name
        thread.stackSize = 1 << 20
        thread.start()
    }

    func submit<Value: Sendable>(_ body: @escaping @Sendable (Session) throws -> Value) async throws(StoreError) -> Value {
        let result = await withUnsafeContinuation { (caller: UnsafeContinuation<Result<Value, StoreError>, Never>) in
            enqueue(WorkJob(caller, body))
        }
        return try result.get()
    }

    func enqueue(_ job: Job) {
        let (isRefused, wakes) = queue.withLock { queue in
            if queue.isClosing { return (true, false) }
            queue.jobs.append(job)
            defer { queue.isAsleep = false }
            return (false, queue.isAsleep)
        }
        if isRefused {
            job.fail(closed)
            job.resume()
        } else if wakes {
            wake.signal()
        }
    }

    /// Refuses new work; what was queued is still done.
    func beginClosing() {
        let wakes = queue.withLock { queue in
            queue.isClosing = true
            defer { queue.isAsleep = false }
            return queue.isAsleep
        }
        if wakes { wake.signal() }
    }

    /// Returns when everything queued is done and the connection is closed.
    func close() async {
        beginClosing()
        await withUnsafeContinuation { (caller: UnsafeContinuation<Void, Never>) in
            let isClosed = queue.withLock { queue in
                if !queue.isClosed { queue.whenClosed.append(caller) }
                return queue.isClosed
            }
            if isClosed { caller.resume() }
        }
    }

    // MARK: The thread

    /// The server ends connections that are silent for longer (``Tables/readingTime``).
    private static let silence = DispatchTimeInterval.seconds(20)
    /// How much one transaction takes.
    private static let batchLimit = 4 * Tables.largest

    private func serve(_ session: Session) {
        while true {
            switch next() {
            case .jobs(let jobs):
                var batch: [ItemsJob] = []
                var items = 0
                func flush() {
                    guard !batch.isEmpty else { return }
                    session.run(batch)
                    Self.answer(batch)
                    batch = []
                    items = 0
                }
                for job in jobs {
                    if let job = job as? ItemsJob {
                        batch.append(job)
                        items += job.items.count
                        if items >= Self.batchLimit { flush() }
                    } else if let work = job as? any Work {
                        flush()
                        work.run(session)
                        job.resume()
                    }
                }
                flush()
            case .sleep:
                if wake.wait(timeout: .now() + Self.silence) == .timedOut { session.stayAlive() }
            case .close:
                return
            }
        }
    }

    /// Resuming a task from here wakes a thread of the pool, which takes longer than the job did: a batch crosses over
    /// as one.
    private static func answer(_ jobs: [ItemsJob]) {
        if jobs.count < 4 {
            for job in jobs { job.resume() }
        } else {
            Task.detached(priority: .high) { for job in jobs { job.resume() } }
        }
    }

    private func announceClosed() {
        let callers = queue.withLock { queue in
            queue.isClosed = true
            defer { queue.whenClosed = [] }
            return queue.whenClosed
        }
        for caller in callers { caller.resume() }
    }

    private enum Next {
        case jobs([Job])
        case sleep, close
    }

    private func next() -> Next {
        queue.withLock { queue in
            if !queue.jobs.isEmpty {
                defer {
                    queue.jobs = []
                    queue.jobs.reserveCapacity(64)
                }
                queue.isAsleep = false
                return .jobs(queue.jobs)
            }
            if queue.isClosing { return .close }
            queue.isAsleep = true
            return .sleep
        }
    }
}
#endif
