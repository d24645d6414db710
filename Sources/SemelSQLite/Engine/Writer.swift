import Dispatch
import Foundation
import Semel

/// The thread that owns the connection, and its queue.
///
/// Natural batching: whatever was queued while one transaction ran is the next one. There is no timer, so a lone call
/// waits for nothing; under load hundreds of calls share one sync of the disk.
final class Writer: Sendable {
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

    /// Opens the engine on the new thread.
    init(path: String, _ open: @escaping @Sendable () throws -> Engine) async throws(StoreError) {
        closed = StoreError(.stopped, "\(path): the store is closed")
        let result = await withUnsafeContinuation { (opened: UnsafeContinuation<Result<Void, StoreError>, Never>) in
            let thread = Thread { [self] in
                main(open, path: path, opened)
                // The connection is gone, and with it the lock on the file; now everybody may be told.
                announceClosed()
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

    /// Returns when everything queued is done and the file is closed.
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
            switch next() {
            case .jobs(let jobs):
                engine.run(jobs)
                Self.answer(jobs)
                engine.checkpointIfNeeded()
                pause = Self.idle
            case .sleep:
                if wake.wait(timeout: .now() + pause) == .timedOut {
                    pause = engine.tidyUp() ? .nanoseconds(0) : Self.longIdle
                }
            case .close:
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
