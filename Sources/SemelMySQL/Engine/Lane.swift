#if MySQL
import Dispatch
import Foundation
import Semel

/// A thread with a connection, and what waits for it.
final class Lane: Sendable {
    private let queue = BatchQueue<Job>()
    private let closed: StoreError

    init(_ shared: Shared, _ name: String, counting: Connection.RowCount) {
        closed = StoreError(.stopped, "\(shared.target.description): the store is closed")
        let queue = queue
        let thread = Thread {
            Self.serve(queue, Session(shared, counting: counting))
            queue.announceEnd()
        }
        thread.name = name
        thread.stackSize = 1 << 20
        thread.start()
    }

    deinit { queue.close() }

    func submit<Value: Sendable>(_ body: @escaping @Sendable (Session) throws -> Value) async throws(StoreError) -> Value {
        let result = await withUnsafeContinuation { (caller: UnsafeContinuation<Result<Value, StoreError>, Never>) in
            enqueue(WorkJob(caller, body))
        }
        return try result.get()
    }

    func enqueue(_ job: Job) {
        if !queue.enqueue(job) {
            job.fail(closed)
            job.resume()
        }
    }

    /// Refuses new work; what was queued is still done.
    func beginClosing() { queue.close() }

    /// Returns when everything queued is done and the connection is closed.
    func close() async {
        queue.close()
        await queue.end()
    }

    // MARK: The thread

    /// The server ends connections that are silent for longer (``Tables/readingTime``).
    private static let silence = DispatchTimeInterval.seconds(20)
    /// How much one transaction takes.
    private static let batchLimit = 4 * Tables.largest

    private static func serve(_ queue: BatchQueue<Job>, _ session: Session) {
        while true {
            switch queue.next(within: silence) {
            case .jobs(let jobs):
                var batch: [ItemsJob] = []
                var items = 0
                func flush() {
                    guard !batch.isEmpty else { return }
                    session.run(batch)
                    answer(batch)
                    batch = []
                    items = 0
                }
                for job in jobs {
                    if let job = job as? ItemsJob {
                        batch.append(job)
                        items += job.items.count
                        if items >= batchLimit { flush() }
                    } else if let work = job as? any Work {
                        flush()
                        work.run(session)
                        job.resume()
                    }
                }
                flush()
            case .nothing: session.stayAlive()
            case .end: return
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
}
#endif
