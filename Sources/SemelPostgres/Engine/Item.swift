#if Postgres
import Semel

/// One thing to do to one key, and what came of it.
final class Item: @unchecked Sendable {
    // Sendable is unchecked because an item is touched by one thread at a time: it is handed over through a lane's queue,
    // and back by resuming the caller.

    enum Work {
        case claim(ClaimRequest)
        case transition(Transition)
        case read
        case verify(owner: Owner, lease: Duration)
    }

    enum Answer {
        case claim(ClaimResult)
        case transition(TransitionResult)
        case record(Record?)
        case grant(Grant?)
        case failure(StoreError)
    }

    let id: OperationID
    let reference: OperationReference
    let work: Work
    var answer: Answer?
    /// Its place in its batch.
    var number = 0
    /// It was sent, and its answer was lost with the connection.
    var isInDoubt = false

    init(_ id: OperationID, _ work: Work) {
        self.id = id
        reference = OperationReference(id)
        self.work = work
    }

    init(_ request: ClaimRequest) {
        id = request.id
        reference = OperationReference(request.id)
        work = .claim(request)
    }

    init(_ transition: Transition) {
        id = transition.id
        reference = OperationReference(transition.id)
        work = .transition(transition)
    }
}

/// Work for a lane's thread, and the caller who waits for it.
final class Call: @unchecked Sendable {
    // Unchecked like its items.

    enum Content {
        case items([Item])
        /// A record with a caller's own statements.
        case write(Write)
        /// Anything else, with the connection to itself.
        case other((Session) throws -> Void)
    }

    let content: Content
    let enqueued: Duration
    private let caller: UnsafeContinuation<StoreError?, Never>
    var failure: StoreError?

    init(_ content: Content, at time: Duration, _ caller: UnsafeContinuation<StoreError?, Never>) {
        self.content = content
        enqueued = time
        self.caller = caller
    }

    func resume() { caller.resume(returning: failure) }
}
#endif
