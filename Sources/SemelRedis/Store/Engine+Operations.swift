internal import Semel

extension Engine {
    // MARK: Claiming

    func claim(_ requests: [ClaimRequest]) async throws(StoreError) -> [ClaimResult] {
        for request in requests where !policies.isKept(request.policy) {
            try await preparing { () async throws(StoreError) in try await policies.keep(request.policy) }
        }
        let incarnation = requests.isEmpty ? 0 : try await currentIncarnation()
        if requests.count == 1 {
            return [try await claim(requests[0], try subject(requests[0].id), KeySpace.number(of: requests[0].id.scope), incarnation)]
        }
        var results = [ClaimResult?](repeating: nil, count: requests.count)
        var subjects: [Subject] = []
        subjects.reserveCapacity(requests.count)
        for request in requests { subjects.append(try subject(request.id)) }

        // Of a scope that may reach its limit within this batch, one claim is decided after another, in their order.
        var scopes: [Scope: (number: UInt64, count: Int, limit: Int)] = [:]
        for request in requests {
            let known = scopes[request.id.scope] ?? (KeySpace.number(of: request.id.scope), 0, .max)
            scopes[request.id.scope] = (known.number, known.count + 1, min(known.limit, request.liveLimit ?? .max))
        }
        var tight: Set<Scope> = []
        for (scope, (number, count, limit)) in scopes {
            if limit == .max {
                counts.note(number, count: count)
            } else if try await !counts.admits(number, limit: limit, count: count) {
                tight.insert(scope)
            }
        }
        for wave in Self.waves(requests.map(\.id)) {
            let wave = tight.isEmpty ? wave : wave.filter { !tight.contains(requests[$0].id.scope) }
            var calls: [Call] = []
            calls.reserveCapacity(wave.count)
            for index in wave {
                let request = requests[index]
                calls.append(
                    call(
                        request, subjects[index], scopes[request.id.scope]?.number ?? 0, incarnation, mayCreate: true,
                        watches: await isWatched(request.id)))
            }
            var failure: StoreError?
            do throws(StoreError) {
                let replies = calls.isEmpty ? [] : try await run(calls)
                for (index, reply) in zip(wave, replies) {
                    do throws(StoreError) {
                        results[index] = try await result(of: reply, requests[index], subjects[index], incarnation)
                    } catch { failure = failure ?? error }
                }
            } catch { failure = error }
            if let failure { throw Self.failure(failure, whereOthersHappened: results.contains { $0 != nil }) }
        }
        for (index, request) in requests.enumerated() where tight.contains(request.id.scope) {
            do throws(StoreError) {
                results[index] = try await claim(request, subjects[index], scopes[request.id.scope]?.number ?? 0, incarnation)
            } catch {
                throw Self.failure(error, whereOthersHappened: results.contains { $0 != nil })
            }
        }
        return results.compactMap(\.self)
    }

    /// Where some of a batch happened, it cannot be said that nothing did.
    private static func failure(_ error: StoreError, whereOthersHappened: Bool) -> StoreError {
        guard whereOthersHappened, error.code != .indeterminate else { return error }
        return StoreError(.indeterminate, "Some of the batch took effect and some did not: \(error.message)", underlying: error)
    }

    /// The positions of a batch in rounds, none of which holds a key twice: what repeats a key meets what the earlier left,
    /// also when a cluster is just moving it.
    static func waves(_ ids: [OperationID]) -> [[Int]] {
        var seen: [OperationID: Int] = [:]
        seen.reserveCapacity(ids.count)
        var waves: [[Int]] = []
        for (index, id) in ids.enumerated() {
            let round = seen[id, default: 0]
            seen[id] = round + 1
            if waves.count == round { waves.append([]) }
            waves[round].append(index)
        }
        return waves
    }

    private func claim(
        _ request: ClaimRequest, _ subject: Subject, _ scope: UInt64, _ incarnation: UInt16
    ) async throws(StoreError) -> ClaimResult {
        let watches = await isWatched(request.id)
        guard let limit = request.liveLimit else {
            counts.note(scope)
            return try await claim(request, subject, scope, incarnation, mayCreate: true, watches: watches)
        }
        if try await counts.admits(scope, limit: limit) {
            return try await claim(request, subject, scope, incarnation, mayCreate: true, watches: watches)
        }
        return try await counts.nearLimit(scope, limit: limit) { mayCreate throws(StoreError) in
            try await self.claim(request, subject, scope, incarnation, mayCreate: mayCreate, watches: watches)
        }
    }

    private func claim(
        _ request: ClaimRequest, _ subject: Subject, _ scope: UInt64, _ incarnation: UInt16, mayCreate: Bool, watches: Bool
    ) async throws(StoreError) -> ClaimResult {
        let reply = try await run(call(request, subject, scope, incarnation, mayCreate: mayCreate, watches: watches))
        return try await result(of: reply, request, subject, incarnation)
    }

    private func call(
        _ request: ClaimRequest, _ subject: Subject, _ scope: UInt64, _ incarnation: UInt16, mayCreate: Bool, watches: Bool
    ) -> Call {
        var numbers: [UInt8] = []
        numbers.reserveCapacity(26)
        numbers.appendNumber(RecordCodec.microseconds(request.lease), bytes: 7)
        numbers.appendNumber(leastTime(subject.bucket), bytes: 7)
        numbers.appendNumber(UInt64(incarnation), bytes: 2)
        numbers.appendNumber(scope, bytes: 7)
        numbers.append((mayCreate ? 1 : 0) + (watches ? 2 : 0))
        numbers.appendNumber(UInt64(subject.identity.count), bytes: 2)
        return Call(
            script: Scripts.claim, keys: [subject.name, keys.index(subject.bucket)],
            arguments: [
                RecordCodec.head(request, policy: PolicyNumber(request.policy.hash)), RecordCodec.kept(request, identity: subject.identity),
                numbers,
            ], bucket: subject.bucket)
    }

    private func result(
        of reply: RESPValue, _ request: ClaimRequest, _ subject: Subject, _ incarnation: UInt16
    ) async throws(StoreError) -> ClaimResult {
        let answer: Answer
        do throws(StoreError) {
            answer = try self.answer(reply, subject.bucket)
        } catch {
            if error.code == .damaged { return .unreadable(error.message) }
            throw error
        }
        let now = answer.now
        switch answer.kind {
        case .first:
            signal(subject.id)
            let epoch = Epoch.zero.next(at: now, in: Incarnation(rawValue: incarnation))
            return .granted(
                Grant(
                    kind: .first, token: FencingToken(epoch: epoch, owner: request.owner),
                    leaseRemaining: .microseconds(Int64(RecordCodec.microseconds(request.lease))), attempt: 1, createdAt: now,
                    grantedAt: now, policy: request.policy.hash, traceID: request.traceID))
        case .expired: return .expired
        case .tooManyKeys: return .tooManyKeys
        case .mismatch: return .mismatch
        case .inProgress:
            return .inProgress(leaseRemaining: Timestamp(microseconds: Int64(Self.number(answer.rest.prefix(7)))) - now)
        case .again, .verifyAgain, .completed, .uncertain, .unreadable, .reclaimed, .verify:
            let isTaken = answer.kind == .reclaimed || answer.kind == .verify
            let record: Record
            switch try await decode(isTaken ? answer.rest.dropFirst(7) : answer.rest) {
            case .success(let decoded):
                guard decoded.id == subject.id else {
                    return .unreadable("the record under this key's name is of another key")
                }
                record = decoded.record
            case .failure(let failure): return .unreadable(failure.description)
            }
            switch answer.kind {
            case .completed: return .completed(record)
            case .uncertain: return .uncertain(record)
            case .again, .verifyAgain:
                var grant = Self.grant(answer.kind == .again ? .again : .verify, record, now)
                // The holder before lost its right when this one took over, at the latest.
                if record.attempt > 1 || record.state == .verifying { grant.previousChange = record.changedAt }
                return .granted(grant)
            case .reclaimed, .verify:
                signal(subject.id)
                var grant = Self.grant(answer.kind == .verify ? .verify : .reclaimed, record, now)
                grant.previousChange = Timestamp(microseconds: Int64(Self.number(answer.rest.prefix(7))))
                return .granted(grant)
            default: return .unreadable("the record cannot be taken apart by the store's script")
            }
        case .nothing, .applied, .superseded:
            throw StoreError(.damaged, "A claim was given an answer that is none: \(answer.kind).")
        }
    }

    private static func grant(_ kind: Grant.Kind, _ record: Record, _ now: Timestamp) -> Grant {
        Grant(
            kind: kind, token: record.token, leaseRemaining: record.leaseUntil - now, attempt: record.attempt, createdAt: record.createdAt,
            grantedAt: now, policy: record.policy, traceID: record.traceID)
    }

    private static func number(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }

    // MARK: Finishing

    func apply(_ transitions: [Transition]) async throws(StoreError) -> [TransitionResult] {
        if transitions.count == 1 {
            let subject = try subject(transitions[0].id)
            let reply = try await run(call(transitions[0], subject))
            return [try result(of: reply, transitions[0])]
        }
        var results = [TransitionResult](repeating: .superseded, count: transitions.count)
        let subjects = try transitions.map { transition throws(StoreError) in try subject(transition.id) }
        var isAnyDone = false
        for wave in Self.waves(transitions.map(\.id)) {
            let calls = wave.map { call(transitions[$0], subjects[$0]) }
            var failure: StoreError?
            do throws(StoreError) {
                for (index, reply) in zip(wave, try await run(calls)) {
                    do throws(StoreError) {
                        results[index] = try result(of: reply, transitions[index])
                        isAnyDone = true
                    } catch { failure = failure ?? error }
                }
            } catch { failure = error }
            if let failure { throw Self.failure(failure, whereOthersHappened: isAnyDone) }
        }
        return results
    }

    private func call(_ transition: Transition, _ subject: Subject) -> Call {
        var token: [UInt8] = []
        token.reserveCapacity(32)
        token.appendNumber(transition.token.owner.high, bytes: 8)
        token.appendNumber(transition.token.owner.low, bytes: 8)
        token.appendEpoch(transition.token.epoch)
        token.appendNumber(leastTime(subject.bucket), bytes: 7)
        let names = [subject.name, keys.index(subject.bucket)]
        func change(_ what: Character, _ argument: [UInt8] = []) -> Call {
            Call(script: Scripts.change, keys: names, arguments: [token, Array(String(what).utf8), argument], bucket: subject.bucket)
        }
        func lease(_ duration: Duration) -> [UInt8] {
            var bytes: [UInt8] = []
            bytes.appendNumber(RecordCodec.microseconds(duration), bytes: 7)
            return bytes
        }
        return switch transition.change {
        case .complete(let outcome, let retention):
            Call(
                script: Scripts.complete, keys: names, arguments: [token, RecordCodec.override(retention), RecordCodec.encode(outcome)],
                bucket: subject.bucket)
        case .release: change("r")
        case .suspend(let reason): change("s", Array(reason.utf8))
        case .stream: change("m")
        case .renew(let duration): change("n", lease(duration))
        case .proceed(let duration): change("p", lease(duration))
        }
    }

    private func result(of reply: RESPValue, _ transition: Transition) throws(StoreError) -> TransitionResult {
        let kind: Scripts.Answer
        do throws(StoreError) {
            kind = try self.kind(reply)
        } catch {
            // A record that nobody can read is nobody's to change.
            if error.code == .damaged { return .superseded }
            throw error
        }
        guard kind == .applied else { return .superseded }
        switch transition.change {
        case .complete, .release:
            if counts.watchesEnds { counts.ended(KeySpace.number(of: transition.id.scope)) }
            signal(transition.id)
        case .renew: break
        case .suspend, .stream, .proceed: signal(transition.id)
        }
        return .applied
    }

    // MARK: Reading and verifying

    func record(of id: OperationID) async throws(StoreError) -> Record? {
        try await read(try subject(id).reference, watches: await isWatched(id))?.record
    }

    /// The operation as it stands now.
    func read(_ reference: OperationReference, watches: Bool = false) async throws(StoreError) -> (
        operation: StoredOperation, record: Record
    )? {
        let bucket = keys.bucket(of: reference)
        return try await settled(try await run(readCall(reference, watches: watches)), bucket, reference)
    }

    func readCall(_ reference: OperationReference, watches: Bool = false) -> Call {
        let bucket = keys.bucket(of: reference)
        var least: [UInt8] = []
        least.appendNumber(leastTime(bucket), bytes: 7)
        return Call(
            script: Scripts.read, keys: [keys.record(reference)], arguments: [least, [UInt8(ascii: watches ? "1" : "0")]], bucket: bucket)
    }

    func settled(_ reply: RESPValue, _ bucket: Int, _ reference: OperationReference) async throws(StoreError) -> (
        operation: StoredOperation, record: Record
    )? {
        let answer = try answer(reply, bucket)
        guard answer.kind != .nothing else { return nil }
        switch try await decode(answer.rest) {
        case .success(let (id, stored)):
            guard let record = RecordMachine.settled(stored, at: StoreTime(answer.now)) else { return nil }
            let scene = policies.known(PolicyNumber(record.policy))?.scene ?? ""
            return (StoredOperation(id: id, scene: scene, record: record), record)
        case .failure(let failure):
            throw damaged(reference, failure.description)
        }
    }

    func verify(_ id: OperationID, owner: Owner, lease: Duration) async throws(StoreError) -> Grant? {
        let subject = try subject(id)
        var argument: [UInt8] = []
        argument.appendNumber(owner.high, bytes: 8)
        argument.appendNumber(owner.low, bytes: 8)
        argument.appendNumber(RecordCodec.microseconds(lease), bytes: 7)
        argument.appendNumber(leastTime(subject.bucket), bytes: 7)
        argument.appendNumber(UInt64(try await currentIncarnation()), bytes: 2)
        let reply = try await run(
            Call(script: Scripts.verify, keys: [subject.name, keys.index(subject.bucket)], arguments: [argument], bucket: subject.bucket))
        let answer = try answer(reply, subject.bucket)
        switch answer.kind {
        case .nothing: return nil
        case .verify:
            switch try await decode(answer.rest.dropFirst(7)) {
            case .success(let (_, record)):
                signal(id)
                var grant = Self.grant(.verify, record, answer.now)
                grant.previousChange = Timestamp(microseconds: Int64(Self.number(answer.rest.prefix(7))))
                return grant
            case .failure(let failure): throw damaged(subject.reference, failure.description)
            }
        default: throw damaged(subject.reference, "its state is not known to this program")
        }
    }

    func damaged(_ reference: OperationReference, _ why: String) -> StoreError {
        StoreError(.damaged, "The operation \(reference) cannot be read: \(why). Nothing runs on it until it is mended by hand.")
    }
}

extension Engine {
    func plant(state: UInt8, in id: OperationID) async throws(StoreError) {
        let subject = try subject(id)
        let reply = try await client.send(RedisCommand("SETRANGE", [subject.name, Array("1".utf8), [state]]), keys.slot(subject.bucket))
        if case .error(let text) = reply { throw .refusal(text, by: "\(client.location)") }
    }

    func erase() async throws(StoreError) {
        for node in try await client.masters() {
            var cursor = "0"
            repeat {
                let (next, references) = try await scanOnce(node, from: cursor)
                _ = try await client.send(
                    references.map { (RedisCommand("UNLINK", [keys.record($0)]), keys.slot(keys.bucket(of: $0))) })
                cursor = next
            } while cursor != "0"
        }
        for bucket in 0..<KeySpace.bucketCount {
            _ = try await client.send(RedisCommand("UNLINK", [keys.index(bucket), keys.audit(bucket)]), keys.slot(bucket))
        }
        for name in [keys.meta, keys.policies, keys.auditChain, keys.housekeeper] {
            _ = try await client.send(RedisCommand("UNLINK", name), HashSlot(of: name))
        }
    }
}
