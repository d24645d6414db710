internal import SemelCore

extension Fallback {
    /// Looks after the return of the primary: asks whether it is back, and merges what the second decided.
    ///
    /// Calls do this by themselves, one at a time and at most every ``Configuration/probe``. Call it for more than that, such as
    /// from a service that runs while there are no calls.
    public func tend() async {
        let isFirst = state.withLock { state in
            defer { state.isTending = true }
            return !state.isTending
        }
        guard isFirst else { return }
        defer {
            state.withLock { state in
                state.isTending = false
                state.lastTended = environment.uptime()
            }
        }
        if case .degraded = phase {
            guard await primary.health().isReady else { return }
            state.withLock { state in
                state.failures = 0
                state.phase = .merging(state.held.count)
            }
            tell()
        }
        guard case .merging = phase else { return }
        let held = Array(state.withLock { $0.held })
        for start in stride(from: 0, to: held.count, by: 64) {
            let part = Set(held[start..<min(start + 64, held.count)])
            await gate.close(part)
            let isGoingOn = await merge(part)
            gate.open(part)
            guard isGoingOn else { break }
        }
        let isOver = state.withLock { state in
            guard case .merging = state.phase else { return false }
            state.phase = state.held.isEmpty ? .primary : .merging(state.held.count)
            return state.held.isEmpty
        }
        if isOver { tell() }
    }

    func tendInTime() {
        let isTime = state.withLock { state in
            guard state.phase != .primary, !state.isTending else { return false }
            return environment.uptime() - state.lastTended >= configuration.probe
        }
        if isTime { environment.detach { await self.tend() } }
    }

    private static let act = OperatorAct(actor: "semel", reason: "decided by the second store while the primary was away, and now merged")

    /// - Returns: whether to go on; not when a store cannot be reached. What is not merged stays the second's.
    private func merge(_ ids: Set<OperationID>) async -> Bool {
        for id in ids {
            do throws(StoreError) {
                guard try await merge(id) else { continue }
                state.withLock { state in
                    state.held.remove(id)
                    state.know(id)
                }
            } catch {
                guard error.code == .unavailable || error.code == .stopped else { continue }
                let why = error.message
                state.withLock { $0.phase = .degraded(why) }
                tell()
                return false
            }
        }
        return true
    }

    /// Brings one key's record into the primary and removes it from the second. Every step can be said again.
    /// - Returns: whether the key is the primary's now.
    private func merge(_ id: OperationID) async throws(StoreError) -> Bool {
        guard let record = try await second.record(of: id) else { return true }
        switch record.state {
        case .claimed, .verifying, .streaming:
            // It ends where it runs. Whose holder is lost is brought over and lapses there, by its own rule: nobody may ever
            // ask for it again.
            guard try await second.leaseRemaining(of: record) <= .zero else { return false }
        case .completed, .uncertain:
            break
        }
        guard let policy = try await second.policy(record.policy) else { return false }
        let request = ClaimRequest(
            id: id, fingerprint: record.fingerprint, owner: record.owner,
            lease: record.state == .claimed || record.state == .verifying ? .milliseconds(50) : .seconds(30), onLapse: record.onLapse, policy: policy,
            mode: record.mode, retention: record.retention, traceID: record.traceID, parent: record.parent)
        let (outcome, retention) =
            record.outcome.map { ($0, record.retention) }
            // Its outcome has expired and only the fact remains.
            ?? (.unknownButApplied, Retention(response: .zero, key: record.retention.key))
        switch try await primary.claim(request) {
        case .granted(let grant):
            let change: Transition.Change? =
                switch record.state {
                case .completed: .complete(outcome, retention: retention)
                case .uncertain, .streaming: .suspend(reason: record.reason ?? RecordMachine.Reason.lapsed)
                case .claimed, .verifying: nil
                }
            if let change { guard try await primary.apply(change, to: id, token: grant.token) == .applied else { return false } }
            if record.state != .completed { state.withLock { $0.renamed.insert(grant.token, for: record.token) } }
        case .completed(let other):
            if record.state != .completed || other.outcome != outcome { collide() }
        case .expired:
            // It is what a merge that was interrupted leaves of a tombstone, or the primary's own.
            if record.outcome != nil { collide() }
        case .mismatch:
            collide()
        case .uncertain:
            if record.state == .completed {
                _ = try await primary.resolve(id, as: .applied(outcome), by: Self.act)
                collide()
            }
        case .inProgress, .tooManyKeys, .unreadable:
            return false
        }
        if record.state == .completed {
            return try await second.forget(id, by: Self.act) == .applied
        }
        return try await second.resolve(id, as: .notApplied, by: Self.act) == .applied
    }

    private func collide() { state.withLock { $0.collisions += 1 } }
}
