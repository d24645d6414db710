import Dispatch
import Foundation
import Semel

/// The thread that owns the connection, and its queue.
///
/// Whatever was queued while one transaction ran is the next one: under load hundreds of calls share one sync of the disk.
final class Writer: Sendable {
    private let queue = BatchQueue<Job>()
    private let closed: StoreError

    /// Opens the engine on the new thread.
    init(path: String, _ open: @escaping @Sendable () throws -> Engine) async throws(StoreError) {
        closed = StoreError(.stopped, "\(path): the store is closed")
        let result = await withUnsafeContinuation { (opened: UnsafeContinuation<Result<Void, StoreError>, Never>) in
            let thread = Thread { [self] in
                main(open, path: path, opened)
                // The connection is gone, and with it the lock on the file; now everybody may be told.
                queue.announceEnd()
            }
            thread.name = "semel-sqlite"
            thread.stackSize = 1 << 20
            thread.start()
        }
        try result.get()
    }

    func submit<Value: Sendable>(_ body: @escaping @Sendable (Engine) throws -> Value) async throws(StoreError) -> Value {
        let result = await withUnsafeContinuation { (caller: UnsafeContinuation<Result<Value, StoreError>, Never>) in
            enqueue(ValueJob(caller, body))
        }
        return try result.get()
    }

    func enqueue(_ job: Job) {
        guard !queue.enqueue(job) else { return }
        job.fail(closed)
        job.resume()
    }

    /// Refuses new work; what was queued is still done.
    func beginClosing() { queue.close() }

    /// Returns when everything queued is done and the file is closed.
    func close() async {
        queue.close()
        await queue.end()
    }

    // MARK: The thread

    private static let idle = DispatchTimeInterval.milliseconds(50)
    private static let longIdle = DispatchTimeInterval.seconds(5)

    /// Opens the engine, serves it until the store is closed, and gives it up by returning.
    private func main(
        _ open: @Sendable () throws -> Engine, path: String, _ opened: UnsafeContinuation<Result<Void, StoreError>, Never>
    ) {
        let engine: Engine
        do {
            engine = try open()
        } catch {
            opened.resume(
                returning: .failure(error as? StoreError ?? StoreError(.unavailable, "\(path): \(error)", underlying: error)))
            return
        }
        opened.resume(returning: .success(()))
        var pause = Self.idle
        while true {
            switch queue.next(within: pause) {
            case .jobs(let jobs):
                engine.run(jobs)
                Self.answer(jobs)
                engine.checkpointIfNeeded()
                pause = Self.idle
            case .nothing:
                pause = engine.tidyUp() ? .nanoseconds(0) : Self.longIdle
            case .end:
                engine.close()
                return
            }
        }
    }

    /// Resuming a task from here wakes a thread of the pool, which takes longer than the job did: a batch crosses over
    /// as one.
    private static func answer(_ jobs: [Job]) {
        if jobs.count < 4 {
            for job in jobs { job.resume() }
        } else {
            Task.detached(priority: .high) { for job in jobs { job.resume() } }
        }
    }
}

extension Engine {
    /// One slice of housekeeping.
    /// - Returns: whether there is more to do.
    func tidyUp() -> Bool {
        var isMore = true
        let isCommitted = housekeep {
            if index.isSealing {
                for _ in 0..<8 { try index.sealPiece() }
                markDirty()
            } else if configuration.purgesByItself, isDue(by: .itself) {
                try sweepSlice(rows: 1000, by: .itself)
            } else {
                isMore = false
            }
        }
        checkpointIfNeeded()
        return isMore && isCommitted
    }
}
