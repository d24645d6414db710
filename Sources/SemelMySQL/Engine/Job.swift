#if MySQL
import Semel

/// Work for a lane's thread, and the caller who waits for it.
class Job: @unchecked Sendable {
    // Sendable is unchecked because a job is touched by one thread at a time: it is handed over through the lane's queue,
    // and back by resuming the caller.

    func fail(_ error: StoreError) {}
    func resume() {}
}

/// Work with transactions of its own.
final class WorkJob<Value: Sendable>: Job, @unchecked Sendable {
    private let body: @Sendable (Session) throws -> Value
    private let caller: UnsafeContinuation<Result<Value, StoreError>, Never>
    private var result: Result<Value, StoreError>?

    init(_ caller: UnsafeContinuation<Result<Value, StoreError>, Never>, _ body: @escaping @Sendable (Session) throws -> Value) {
        self.caller = caller
        self.body = body
    }

    override func fail(_ error: StoreError) { result = .failure(error) }

    override func resume() {
        guard let result else { preconditionFailure("a caller is answered when its job has run") }
        caller.resume(returning: result)
    }
}

extension WorkJob: Work {
    func run(_ session: Session) {
        do {
            result = .success(try body(session))
        } catch {
            result = .failure(session.storeError(error))
        }
    }
}

protocol Work {
    func run(_ session: Session)
}

/// Something to do to one key, that shares a transaction with whatever else is waiting.
struct Item: Sendable {
    enum Wish: Sendable {
        case claim(ClaimRequest)
        case apply(Transition)
        case read
    }

    enum Answer: Sendable {
        case claimed(ClaimResult)
        case applied(TransitionResult)
        case record(Record?)
        /// Nothing was done to this key, and nothing could be.
        case failed(StoreError)
    }

    let row: RowID
    let id: OperationID
    let wish: Wish

    init(_ id: OperationID, _ wish: Wish) {
        self.row = RowID(id)
        self.id = id
        self.wish = wish
    }
}

/// Items of one caller.
final class ItemsJob: Job, @unchecked Sendable {
    typealias Answers = Result<[Item.Answer], StoreError>
    let items: [Item]
    var answers: Answers = .success([])
    private let finish: @Sendable (Answers) -> Void

    init(_ items: [Item], _ finish: @escaping @Sendable (Answers) -> Void) {
        self.items = items
        self.finish = finish
    }

    override func fail(_ error: StoreError) { answers = .failure(error) }
    override func resume() { finish(answers) }
}
#endif
