#if Postgres
import Foundation
import Semel

/// A thread with a connection of its own, and what waits for it.
final class Lane: Sendable {
    private let queue = BatchQueue<Call>()
    private let shared: Shared

    init(_ shared: Shared, for purpose: Session.Purpose, name: String) {
        self.shared = shared
        let queue = queue
        let thread = Thread {
            Self.serve(queue, Session(shared, for: purpose))
            queue.announceEnd()
        }
        thread.name = name
        thread.stackSize = 1 << 20
        thread.start()
    }

    deinit { queue.close() }

    func perform(_ items: [Item]) async -> StoreError? { await submit(.items(items)) }

    func perform(_ write: Write) async -> StoreError? { await submit(.write(write)) }

    /// Runs `body` on the lane's thread, with its connection to itself.
    func submit<Value: Sendable>(_ body: @escaping @Sendable (Session) throws -> Value) async throws(StoreError) -> Value {
        let result = Locked(Value?.none)
        let failure = await submit(
            .other { session in
                let value = try body(session)
                result.withLock { $0 = value }
            })
        if let failure { throw failure }
        guard let value = result.withLock({ $0 }) else { throw StoreError(.refused, "the call was not run") }
        return value
    }

    private func submit(_ content: Call.Content) async -> StoreError? {
        await withUnsafeContinuation { caller in
            let call = Call(content, at: shared.environment.uptime(), caller)
            if !queue.enqueue(call) {
                call.failure = StoreError(.stopped, "\(shared.target.place): the store is closed")
                call.resume()
            }
        }
    }

    func beginClosing() { queue.close() }

    /// Does what was submitted, and returns when the connection is closed.
    func close() async {
        queue.close()
        await queue.end()
    }

    // MARK: The thread

    private static func serve(_ queue: BatchQueue<Call>, _ session: Session) {
        while true {
            switch queue.next(within: .seconds(60)) {
            case .nothing: continue
            case .end: return
            case .jobs(let calls):
                run(calls, session)
                answer(calls)
            }
        }
    }

    /// Resuming a task from here wakes a thread of the pool, which takes longer than the call did: a batch crosses over
    /// as one.
    private static func answer(_ calls: [Call]) {
        if calls.count < 4 {
            for call in calls { call.resume() }
        } else {
            Task.detached(priority: .high) { for call in calls { call.resume() } }
        }
    }

    private static func run(_ calls: [Call], _ session: Session) {
        session.sealIfDue()
        var items: [Item] = []
        for call in calls { if case .items(let own) = call.content { items += own } }
        if !items.isEmpty {
            session.shared.configuration.metrics?.batch(of: items.count)
            Batch(items, session).run()
        }
        let writes = calls.compactMap { if case .write(let write) = $0.content { write } else { nil } }
        if !writes.isEmpty { WriteBatch(writes, session).run() }
        for call in calls {
            guard case .other(let body) = call.content else { continue }
            do {
                try body(session)
            } catch let lost as Connection.Lost {
                session.disconnect()
                call.failure = session.shared.error(lost)
            } catch {
                call.failure = session.shared.error(error)
            }
        }
    }
}
#endif
