public import SemelCore

/// A store that can take the caller's own writes into the record's transaction (level `atomic`).
///
/// **Guarantee.** What `body` writes and the record that says so become durable together or not at all, and at most one
/// body per key ever does. A crash at any moment leaves both or neither; a repeat finds the record.
///
/// Not guaranteed: anything `body` does outside of the transaction it is given. It may run more than once (and be rolled
/// back each time but the last), so it must do nothing else.
public protocol TransactionalStore: OperationStore {
    /// The transaction lent to a body. Not valid outside of it.
    associatedtype Transaction

    /// Claims the key, runs `body`, and records its outcome, in one transaction.
    ///
    /// `body` runs on the store's own thread, not in the cooperative pool, and holds up what shares the connection: it
    /// should write and return. When it throws, everything is rolled back, nothing is recorded, and the error is thrown to
    /// the caller: the key may be tried again.
    ///
    /// - Throws: what `body` threw, or a ``StoreError``. After `indeterminate` whether it happened is unknown, and saying
    ///   the same again finds out.
    func perform(
        _ request: ClaimRequest, _ body: @escaping @Sendable (Transaction, Grant) throws -> AtomicStep
    ) async throws -> AtomicResult
}

/// How a body ends its transaction.
public enum AtomicStep: Hashable, Sendable {
    /// Keep its writes and record this.
    case commit(Outcome)
    /// Undo its writes and record this: a failure that is the same however often it is tried.
    case fail(Outcome)

    public var outcome: Outcome {
        switch self {
        case .commit(let outcome), .fail(let outcome): outcome
        }
    }
}

/// What came of ``TransactionalStore/perform(_:_:)``.
public enum AtomicResult: Hashable, Sendable {
    /// The body ran now, and this was recorded.
    case performed(Outcome, Grant)
    /// The body did not run. This is what the claim was answered: completed, in progress, mismatch …; or granted for
    /// verifying only, when an earlier holder's effect may lie outside of this database.
    case notRun(ClaimResult)
}
