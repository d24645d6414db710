/// The record's rules, as a pure function of the record, the request and the store's time.
///
/// Every store in this process applies exactly this; stores that decide inside a server (a script, an SQL statement) are
/// held to it by the store laws. A store loads the record, asks the machine, writes the change it returns, and answers
/// the result only when that change is durable.
public enum RecordMachine {
    /// What a store must do to the stored record.
    public enum Change: Hashable, Sendable {
        case keep
        case put(Record)
        case remove
    }

    /// The record as it stands at `now`: what has lapsed has lapsed, what has expired is gone.
    ///
    /// Expiry is decided here, when reading; deleting is housekeeping and may come at any later time.
    public static func settled(_ record: Record?, at now: StoreTime) -> Record? {
        guard var record else { return nil }
        switch record.state {
        case .completed:
            if now.retention >= record.keyUntil { return nil }
            if now.retention >= record.responseUntil { record.outcome = nil }
        case .claimed where record.leaseUntil <= now.lease && record.onLapse == .uncertain,
            .streaming where record.leaseUntil <= now.lease:
            // Whoever held it may still finish: the epoch stays, so a late *complete* of its own is accepted.
            record.reason = record.state == .streaming ? Reason.interruptedStream : Reason.lapsed
            record.changedAt = leaseEnd(of: record, at: now)
            record.state = .uncertain
        case .claimed, .verifying, .streaming, .uncertain:
            break
        }
        return record
    }

    /// One claim.
    ///
    /// - Parameters:
    ///   - liveRecords: how many live records the scope holds now; asked only when the request has a limit.
    ///   - nextEpoch: draws an epoch that is higher than the one given and than any the store gave for this key before.
    public static func claim(
        _ request: ClaimRequest, on stored: Record?, at now: StoreTime, liveRecords: () -> Int,
        nextEpoch: (_ previous: Epoch) -> Epoch
    ) -> (ClaimResult, Change) {
        guard let record = settled(stored, at: now) else {
            if let limit = request.liveLimit, liveRecords() >= limit { return (.tooManyKeys, .keep) }
            let record = Record(
                state: .claimed, epoch: nextEpoch(.zero), owner: request.owner, fingerprint: request.fingerprint,
                policy: request.policy.hash, mode: request.mode, onLapse: request.onLapse, retention: request.retention,
                attempt: 1, leaseUntil: now.lease + request.lease, createdAt: now.retention, changedAt: now.retention,
                traceID: request.traceID, parent: request.parent)
            return (.granted(grant(.first, record, at: now)), .put(record))
        }
        let settling: Change = record == stored || record.state == .completed ? .keep : .put(record)

        // Before anything else, in every state: the same key with another payload is another operation (H25).
        guard record.fingerprint == request.fingerprint else { return (.mismatch, settling) }

        switch record.state {
        case .completed:
            return (record.outcome == nil ? .expired : .completed(record), .keep)
        case .uncertain:
            return (.uncertain(record), settling)
        case .claimed, .verifying, .streaming:
            if record.leaseUntil > now.lease {
                // Its own claim, whose answer was lost (H14).
                if record.owner == request.owner, record.state != .streaming {
                    var given = grant(record.state == .verifying ? .verify : .again, record, at: now)
                    // The holder before lost its right when this one took over, at the latest.
                    if record.attempt > 1 || record.state == .verifying { given.previousChange = record.changedAt }
                    return (.granted(given), .keep)
                }
                return (.inProgress(leaseRemaining: record.leaseUntil - now.lease), .keep)
            }
            return takeOver(record, owner: request.owner, lease: request.lease, at: now, nextEpoch: nextEpoch)
        }
    }

    /// The holder's lease lapsed and the rule lets somebody else go on, under a higher epoch (H1).
    private static func takeOver(
        _ record: Record, owner: Owner, lease: Duration, at now: StoreTime, nextEpoch: (Epoch) -> Epoch
    ) -> (ClaimResult, Change) {
        var next = record
        next.epoch = nextEpoch(record.epoch)
        next.owner = owner
        next.leaseUntil = now.lease + lease
        next.changedAt = now.retention
        next.attempt += 1
        let verifies = record.onLapse == .verify
        next.state = verifies ? .verifying : .claimed
        var given = grant(verifies ? .verify : .reclaimed, next, at: now)
        given.previousChange = leaseEnd(of: record, at: now)
        return (.granted(given), .put(next))
    }

    /// When a lapsed lease ended, on the retention clock: from then on its holder had no right to send anything.
    private static func leaseEnd(of record: Record, at now: StoreTime) -> Timestamp {
        min(now.retention, now.retention + (record.leaseUntil - now.lease))
    }

    /// One transition of the holder.
    public static func apply(_ transition: Transition, to stored: Record?, at now: StoreTime) -> (TransitionResult, Change) {
        guard let stored, stored.token == transition.token, var record = settled(stored, at: now) else {
            return (.superseded, .keep)
        }
        switch (transition.change, record.state) {
        case (.complete(let outcome, let retention), .claimed), (.complete(let outcome, let retention), .verifying),
            (.complete(let outcome, let retention), .streaming), (.complete(let outcome, let retention), .uncertain):
            complete(&record, with: outcome, retention: retention, at: now)
            return (.applied, .put(record))
        case (.complete(let outcome, _), .completed):
            // The answer to the first *complete* was lost and its owner says it again (R11).
            return (record.outcome == outcome ? .applied : .superseded, .keep)

        case (.release, .claimed), (.release, .verifying), (.release, .uncertain):
            return (.applied, .remove)

        case (.suspend(let reason), .claimed), (.suspend(let reason), .verifying), (.suspend(let reason), .streaming):
            record.state = .uncertain
            record.reason = reason
            record.changedAt = now.retention
            // From here on its holder has no right to send anything; a bounded time in flight counts from here.
            record.leaseUntil = now.lease
            return (.applied, .put(record))
        case (.suspend, .uncertain):
            return (.applied, record == stored ? .keep : .put(record))

        case (.stream, .claimed):
            record.state = .streaming
            record.changedAt = now.retention
            return (.applied, .put(record))
        case (.stream, .streaming):
            return (.applied, .keep)

        case (.renew(let lease), .claimed), (.renew(let lease), .verifying), (.renew(let lease), .streaming):
            // A lease that lapsed but that nobody took over is still its owner's: the epoch is the proof.
            record.leaseUntil = max(record.leaseUntil, now.lease + lease)
            return (.applied, .put(record))

        case (.proceed(let lease), .verifying):
            record.state = .claimed
            record.leaseUntil = now.lease + lease
            record.changedAt = now.retention
            return (.applied, .put(record))

        case (.proceed, .claimed) where record.onLapse == .verify:
            // Said again because the first answer was lost (R11).
            return (.applied, .keep)

        case (.release, .streaming), (.release, .completed), (.suspend, .completed), (.stream, _), (.renew, _), (.proceed, _):
            return (.superseded, .keep)
        }
    }

    /// Takes an uncertain or lapsed operation over in order to ask its target: the epoch rises *before* the question is
    /// put, so that whoever held it is fenced off by a target that remembers epochs.
    ///
    /// `nil` when there is nothing to verify: the record is absent, completed, or held by somebody whose lease runs.
    public static func verify(
        _ stored: Record?, owner: Owner, lease: Duration, at now: StoreTime, nextEpoch: (Epoch) -> Epoch
    ) -> (Grant?, Change) {
        guard let record = settled(stored, at: now), record.state != .completed else { return (nil, .keep) }
        guard record.state == .uncertain || record.leaseUntil <= now.lease else { return (nil, .keep) }
        var next = record
        next.state = .verifying
        next.epoch = nextEpoch(record.epoch)
        next.owner = owner
        next.leaseUntil = now.lease + lease
        next.onLapse = .verify
        next.changedAt = now.retention
        var given = grant(.verify, next, at: now)
        given.previousChange = leaseEnd(of: record, at: now)
        return (given, .put(next))
    }

    /// What an operator, or a resolver without a claim, decided about an uncertain operation. The epoch rises, so the
    /// owner that was given up changes nothing any more (H61).
    ///
    /// *Superseded* unless the record is uncertain, or lapsed: a decision never overrides somebody at work.
    /// - Parameter expected: the epoch the decision is about; *superseded* when the record is at another.
    public static func resolve(
        _ resolution: Resolution, on stored: Record?, expecting expected: Epoch? = nil, at now: StoreTime,
        nextEpoch: (Epoch) -> Epoch
    ) -> (TransitionResult, Change) {
        guard var record = settled(stored, at: now), record.state != .completed, record.isAt(expected),
            record.state == .uncertain || record.leaseUntil <= now.lease
        else { return (.superseded, .keep) }
        switch resolution {
        case .notApplied:
            return (.applied, .remove)
        case .applied(let outcome):
            record.epoch = nextEpoch(record.epoch)
            complete(&record, with: outcome ?? .unknownButApplied, retention: nil, at: now)
            return (.applied, .put(record))
        }
    }

    /// An operator's wish to let a finished key run again. *Superseded* while the operation is live: that takes ``resolve``.
    /// - Parameter expected: the epoch the decision is about; *superseded* when the record is at another.
    public static func forget(
        _ stored: Record?, expecting expected: Epoch? = nil, at now: StoreTime
    ) -> (TransitionResult, Change) {
        guard let record = settled(stored, at: now), !record.isLive, record.isAt(expected) else { return (.superseded, .keep) }
        return (.applied, .remove)
    }

    private static func complete(_ record: inout Record, with outcome: Outcome, retention: Retention?, at now: StoreTime) {
        record.state = .completed
        record.outcome = outcome
        record.reason = nil
        record.changedAt = now.retention
        record.leaseUntil = .distantPast
        if let retention { record.retention = retention }
    }

    private static func grant(_ kind: Grant.Kind, _ record: Record, at now: StoreTime) -> Grant {
        Grant(
            kind: kind, token: record.token, leaseRemaining: record.leaseUntil - now.lease, attempt: record.attempt,
            createdAt: record.createdAt, grantedAt: now.retention, policy: record.policy, traceID: record.traceID)
    }

    /// Why a record became uncertain by itself.
    public enum Reason {
        public static let lapsed = "lease-lapsed"
        public static let interruptedStream = "stream-interrupted"
    }
}

extension Record {
    /// Whether a decision that was made about this epoch, or about none, is about this record.
    fileprivate func isAt(_ expected: Epoch?) -> Bool { expected == nil || epoch == expected }
}
