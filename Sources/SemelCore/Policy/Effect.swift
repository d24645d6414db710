/// What the target of an operation's effect can do; the level follows from it.
public enum Effect: Hashable, Sendable {
    /// The effect is written in the record's own transaction.
    case localTransaction
    /// The target has a unique key and answers a repeat with the first result, for at least this long.
    case deduplicates(keeps: Duration)
    /// The target can be asked, linearizably, whether a key was applied.
    /// - inFlight: no request of ours arrives later than this after it was sent.
    /// - isFenced: the target refuses any epoch lower than the highest it has seen for the key, queries included.
    case queryable(inFlight: Duration, isFenced: Bool)
    /// Nothing is known about the target.
    case unknown
}

/// What a 5xx answer or a thrown error means. A 500 or 504 proves nothing about the effect.
public enum ErrorRule: UInt8, Sendable, CaseIterable {
    /// It is the result: record it and replay it.
    case replay = 1
    /// The key may run again; only for levels that can.
    case rerun = 2
    /// Nobody knows: nothing runs until it is resolved.
    case uncertain = 3
}

/// What a second request meets while the first one runs.
public enum ConcurrencyRule: Hashable, Sendable {
    /// It is refused at once.
    case conflict
    /// At most `waiters` of them wait, each at most this long, for the outcome.
    case wait(Duration, waiters: Int)
}

/// What happens while the store cannot be reached.
public enum StoreFailureRule: UInt8, Sendable, CaseIterable {
    /// Nothing runs (503).
    case closed = 1
    /// Everything runs, unprotected, at a lower level that is shown.
    case open = 2
}
