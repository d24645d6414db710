#if Postgres
import Semel

/// A batch of items under way on one connection.
///
/// Two transitions are so simple and so frequent that SQL does them alone, for a whole batch in one statement: the claim of
/// a key that is absent, and what a holder does to its own claim. Whatever such a statement does not answer is read, and
/// the record machine decides here, by the server's clock: at once where nothing changes, else once more with the rows
/// locked. The first item of each key comes first; the items of one key are answered in their order.
final class Batch {
    private let session: Session
    private let shared: Shared
    private var groups: [Group]
    /// The items that were sent and not answered yet.
    private var inFlight: [Item] = []
    /// Scopes that might be full: their claims of absent keys are decided one after another, in the order of the batch.
    private var limitedScopes: Set<Scope> = []
    /// Nothing is known about the keys yet.
    private var isFirst = true

    /// The items of one key that are not answered yet.
    private struct Group {
        let reference: OperationReference
        var items: ArraySlice<Item>
        /// The key was seen to be absent, and its next item is a claim.
        var isAbsent = false
    }

    init(_ items: [Item], _ session: Session) {
        self.session = session
        shared = session.shared
        // Sorted by key, so that no two batches wait for each other; equal keys stay in their order.
        let order = items.indices.sorted { left, right in
            let (a, b) = (items[left].reference, items[right].reference)
            return a.high != b.high ? a.high < b.high : a.low != b.low ? a.low < b.low : left < right
        }
        let sorted = order.map { items[$0] }
        groups = []
        for (number, item) in items.enumerated() {
            item.number = number
            if case .claim(let request) = item.work, let limit = request.liveLimit, !shared.isFarBelow(limit) {
                limitedScopes.insert(request.id.scope)
            }
        }
        var start = 0
        for index in sorted.indices where index + 1 == sorted.count || sorted[index + 1].reference != sorted[index].reference {
            groups.append(Group(reference: sorted[index].reference, items: sorted[start...index]))
            start = index + 1
        }
    }

    /// Answers every item.
    func run() {
        var deadline = shared.environment.uptime() + shared.configuration.patience
        var conflicts = 0
        var staleMaps = 0
        var rounds = 0
        while !groups.isEmpty {
            do {
                let connection = try session.connection(until: deadline)
                try step(connection)
                isFirst = false
                rounds += 1
                if rounds > 200 {
                    fail(StoreError(.unavailable, "\(shared.target.place): the keys change faster than they can be claimed; try again"))
                }
            } catch let lost as Connection.Lost {
                // Every item that can be said again is: it finds its own nonce, its own outcome, or what others did.
                session.disconnect()
                for item in inFlight { item.isInDoubt = true }
                inFlight = []
                isFirst = true
                deadline = shared.environment.uptime() + shared.configuration.patience
                rounds += 50
                if rounds > 200 { fail(StoreError(.unavailable, "\(shared.target.place): connections do not last: \(lost)", underlying: lost)) }
            } catch is StaleMap {
                rounds += 1
                relearn()
            } catch let error as PostgresError where error.isMissingTable && staleMaps < 3 {
                // A segment that this process knows may have left; whatever was sent with it did not happen.
                staleMaps += 1
                inFlight = []
                relearn()
            } catch let error as PostgresError where error.isConflict && conflicts < 50 {
                conflicts += 1
                inFlight = []
                session.pause(.milliseconds(Int64(shared.environment.random() % UInt64(min(64, 1 << conflicts)))))
            } catch let error as PostgresError where groups.count > 1 && error.isOfOneStatement {
                // One of them is the reason; the others go on without it.
                let alone = groups
                groups = []
                for group in alone { Batch(Array(group.items), session).run() }
            } catch {
                fail(shared.error(error))
            }
        }
    }

    /// Knows the segments as they are now. What goes wrong with it goes wrong with what follows too.
    private func relearn() {
        do {
            try session.refreshMap()
        } catch is Connection.Lost {
            session.disconnect()
        } catch { fail(shared.error(error)) }
    }

    private func fail(_ error: StoreError) {
        for group in groups {
            for item in group.items {
                item.answer = .failure(
                    item.isInDoubt
                        ? StoreError(.indeterminate, "whether it happened is unknown, the answer was lost: \(error.message)", underlying: error) : error)
            }
        }
        groups = []
    }

    private func step(_ connection: Connection) throws {
        try runFastPath(connection)
        dropAnswered()
        guard !groups.isEmpty else { return }
        // Nothing is dropped between: these are places in the list.
        let toLock = try read(connection)
        if !toLock.isEmpty {
            try change(toLock, connection)
            dropAnswered()
        }
        try claimWithinLimits(connection)
        dropAnswered()
    }

    private func dropAnswered() { groups.removeAll { $0.items.isEmpty } }

    // MARK: What SQL does alone

    private func runFastPath(_ connection: Connection) throws {
        var inserts: [Int] = []
        var completes: [(index: Int, transition: Transition, outcome: Outcome, response: Int32?, key: Int32?)] = []
        var renews: [(index: Int, transition: Transition, lease: Duration)] = []
        var releases: [(index: Int, transition: Transition)] = []
        for index in groups.indices {
            guard isFirst || groups[index].isAbsent, let item = groups[index].items.first else { continue }
            switch item.work {
            case .claim(let request):
                if limitedScopes.isEmpty || !limitedScopes.contains(request.id.scope) { inserts.append(index) }
            case .transition(let transition) where isFirst:
                switch transition.change {
                case .complete(let outcome, nil): completes.append((index, transition, outcome, nil, nil))
                case .complete(let outcome, let retention?):
                    let (response, key) = (Row.column(retention.response), Row.column(retention.key))
                    if response.isExact, key.isExact { completes.append((index, transition, outcome, response.value, key.value)) }
                case .renew(let lease): renews.append((index, transition, lease))
                case .release where !item.isInDoubt: releases.append((index, transition))
                default: break
                }
            default: break
            }
        }
        let map = shared.segments.map
        var commands: [Connection.Command] = []
        if !inserts.isEmpty { commands += [.prepared(shared.statements.share, Parameters()), try insertion(inserts, map, connection)] }
        for (segment, completes) in map.split(completes, by: { groups[$0.index].reference }) {
            var parameters = Self.tokens(completes.map { ($0.transition, groups[$0.index].reference) })
            parameters.addArray(.shortInteger, completes) { if let value = $1.response { $0.write(value) } else { $0.writeNull() } }
            parameters.addArray(.shortInteger, completes) { if let value = $1.key { $0.write(value) } else { $0.writeNull() } }
            parameters.addArray(.bytes, completes) {
                var writer = ByteWriter(reservingCapacity: 256)
                writer.write($1.outcome)
                $0.write(writer.bytes)
            }
            commands.append(.prepared(segment.statements.complete, parameters))
        }
        for (segment, renews) in map.split(renews, by: { groups[$0.index].reference }) {
            var parameters = Self.tokens(renews.map { ($0.transition, groups[$0.index].reference) })
            parameters.addArray(.integer, renews) { $0.write(Session.bounded($1.lease)) }
            commands.append(.prepared(segment.statements.renew, parameters))
        }
        for (segment, releases) in map.split(releases, by: { groups[$0.index].reference }) {
            commands.append(.prepared(segment.statements.release, Self.tokens(releases.map { ($0.transition, groups[$0.index].reference) })))
        }
        guard !commands.isEmpty else { return }

        let sent = inserts + completes.map(\.index) + renews.map(\.index) + releases.map(\.index)
        inFlight = sent.compactMap { groups[$0].items.first }
        var replies = try Self.rows(connection.run(commands, within: session.answerLimit))[...]
        inFlight = []
        var inserted: Rows?
        if !inserts.isEmpty {
            replies.removeFirst()
            inserted = replies.removeFirst()
        }
        // A key is in one segment, so at most one of the rest was applied to it.
        let applied = Set(replies.flatMap(\.references))
        var changed: [OperationReference] = []
        for (indices, isChange) in [(completes.map(\.index), true), (renews.map(\.index), false), (releases.map(\.index), true)] {
            for index in indices where applied.contains(groups[index].reference) {
                if isChange { changed.append(groups[index].reference) }
                answer(index, .transition(.applied))
            }
        }
        shared.signals.changed(changed)
        // Last, for it may have more to ask, and all of this is committed: what failed then would hide it.
        if let inserted { try answerInserts(inserts, inserted, map, connection) }
    }

    /// The claims of keys that are hoped, or were seen, to be absent.
    private func insertion(_ indices: [Int], _ map: SegmentMap, _ connection: Connection) throws -> Connection.Command {
        var rows: [(row: Row, lease: Int64)] = []
        rows.reserveCapacity(indices.count)
        for index in indices {
            guard case .claim(let request)? = groups[index].items.first?.work else { continue }
            try shared.policies.keep(request.policy, connection, within: session.answerLimit)
            // The machine says what the record is to be; the times and the epoch are the server's.
            let (_, change) = Self.first(request, at: 0, epoch: .zero)
            guard case .put(let record) = change, let policy = shared.policies.number(of: request.policy.hash) else {
                throw PostgresError(sqlState: "", message: "the policy of a claim is not kept")
            }
            rows.append((Row(request.id, groups[index].reference, record, policy: policy), Session.bounded(request.lease)))
        }
        return .insert(rows, map, shared)
    }

    private static func first(_ request: ClaimRequest, at now: Int64, epoch: Epoch) -> (ClaimResult, RecordMachine.Change) {
        RecordMachine.claim(
            request, on: nil, at: StoreTime(Timestamp(microseconds: now)), liveRecords: { .min }, nextEpoch: { _ in epoch })
    }

    /// Between the reading of the clock and the end of an insert another holder can have claimed and released the same key
    /// only if two statements and a round trip fit in; then the epoch might be lower than that holder's.
    static func wasSlow(epoch: Int64, end: Int64) -> Bool { end - (epoch & (1 << 52 - 1)) > 50 }

    private func answerInserts(_ indices: [Int], _ rows: Rows, _ map: SegmentMap, _ connection: Connection) throws {
        var granted: [OperationReference: (epoch: Int64, due: Int64)] = [:]
        var slow: [(id: OperationReference, epoch: Int64)] = []
        for row in 0..<rows.count {
            let (id, epoch, due): (OperationReference, Int64, Int64) = (rows.reference(row, 0), rows.integer(row, 1), rows.integer(row, 2))
            granted[id] = (epoch, due)
            shared.gave(epoch)
            if Self.wasSlow(epoch: epoch, end: rows.integer(row, 3)) { slow.append((id, epoch)) }
        }
        shared.granted(granted.count)
        let claims = indices.compactMap { index -> (index: Int, request: ClaimRequest)? in
            if case .claim(let request)? = groups[index].items.first?.work { (index, request) } else { nil }
        }
        if !slow.isEmpty {
            // They are committed, and not answered yet.
            for (index, _) in claims where granted[groups[index].reference] != nil { groups[index].items.first?.isInDoubt = true }
            try restamp(slow, claims.map(\.request), map, &granted, connection)
        }
        var changed: [OperationReference] = []
        for (index, request) in claims {
            guard let (epoch, due) = granted[groups[index].reference] else {
                groups[index].isAbsent = false
                continue
            }
            let now = max(epoch & (1 << 52 - 1), due - Session.bounded(request.lease))
            var (result, _) = Self.first(request, at: now, epoch: Epoch(rawValue: UInt64(bitPattern: epoch)))
            if case .granted(var grant) = result {
                grant.leaseRemaining = .microseconds(due - now)
                result = .granted(grant)
            }
            changed.append(groups[index].reference)
            groups[index].isAbsent = false
            answer(index, .claim(result))
        }
        shared.signals.claimed(changed)
    }

    /// Gives the inserts that took long an epoch drawn now, when the row is theirs.
    private func restamp(
        _ slow: [(id: OperationReference, epoch: Int64)], _ requests: [ClaimRequest], _ map: SegmentMap,
        _ granted: inout [OperationReference: (epoch: Int64, due: Int64)], _ connection: Connection
    ) throws {
        let owners = Dictionary(requests.map { (OperationReference($0.id), $0.owner) }, uniquingKeysWith: { $1 })
        let mine = slow.map { ($0.id, $0.epoch, owners[$0.id] ?? Owner(high: 0, low: 0)) }
        let rows = try Self.rows(connection.run([.restamp(mine, map.current, shared)], within: session.answerLimit))[0]
        var renewed: [OperationReference: Int64] = [:]
        for row in 0..<rows.count { renewed[rows.reference(row, 0)] = rows.integer(row, 1) }
        for (id, _) in slow {
            if let epoch = renewed[id] {
                shared.gave(epoch)
                granted[id]?.epoch = epoch
            } else {
                // Its lease was so short that somebody has taken over since.
                granted[id] = nil
            }
        }
    }

    private static func tokens(_ items: [(transition: Transition, reference: OperationReference)]) -> Parameters {
        var parameters = Parameters()
        parameters.addArray(.uuid, items) { $0.write($1.reference) }
        parameters.addArray(.integer, items) { $0.write($1.transition.token.epoch.rawValue) }
        parameters.addArray(.uuid, items) { $0.write($1.transition.token.owner) }
        return parameters
    }

    // MARK: What the record machine decides

    /// Reads the rest without locking, and answers what changes nothing.
    /// - Returns: the groups whose next item changes something.
    private func read(_ connection: Connection) throws -> [Int] {
        let (stored, now) = try load(groups.map(\.reference), by: \.read, connection)
        var toLock: [Int] = []
        for index in groups.indices {
            let decision = try decide(index, stored[groups[index].reference]?.row, at: now, mayChange: false, connection)
            for (item, answer) in decision.answers { item.answer = answer }
            groups[index].items.removeFirst(decision.answers.count)
            groups[index].isAbsent = decision.isAbsent
            if decision.needsLock { toLock.append(index) }
        }
        return toLock
    }

    /// Decides once more with the rows locked, and writes.
    private func change(_ indices: [Int], _ connection: Connection) throws {
        let references = indices.map { groups[$0].reference }
        do {
            let (stored, now) = try load(references, by: \.lock, connection)
            var puts: [Row] = []
            var deletes: [OperationReference] = []
            var decisions: [(index: Int, decision: Decision)] = []
            for index in indices {
                let decision = try decide(index, stored[groups[index].reference]?.row, at: now, mayChange: true, connection)
                decisions.append((index, decision))
                switch decision.change {
                case .keep: break
                case .remove: deletes.append(groups[index].reference)
                case .put(let record):
                    guard let policy = shared.policies.number(of: record.policy), let id = groups[index].items.first?.id else { continue }
                    puts.append(Row(id, groups[index].reference, record, policy: policy))
                }
            }
            inFlight = decisions.flatMap { $0.decision.answers.map(\.item) }
            var commands: [Connection.Command] = []
            // Where they were found, and are locked.
            let segments = Dictionary(stored.values.map { ($0.segment.number, $0.segment) }, uniquingKeysWith: { $1 })
            for (number, segment) in segments {
                let puts = puts.filter { stored[$0.id]?.segment.number == number }
                let deletes = deletes.filter { stored[$0]?.segment.number == number }
                if !puts.isEmpty { commands.append(.put(segment.statements.put, puts)) }
                if !deletes.isEmpty { commands.append(.keys(segment.statements.delete, deletes)) }
            }
            shared.environment.failpoints.pass(.beforeCommit)
            _ = try Self.rows(connection.run(commands + [.text("COMMIT")], within: session.answerLimit))
            shared.environment.failpoints.pass(.afterCommit)
            inFlight = []
            for (index, decision) in decisions {
                for (item, answer) in decision.answers { item.answer = answer }
                groups[index].items.removeFirst(decision.answers.count)
                groups[index].isAbsent = decision.isAbsent
            }
            shared.signals.changed(puts.map(\.id) + deletes)
        } catch where error is PostgresError || error is StaleMap {
            inFlight = []
            _ = try connection.run([.text("ROLLBACK")], within: session.answerLimit)
            throw error
        }
    }

    /// Reads rows where they can be; with a lock, in a transaction that this begins.
    /// - Throws: ``StaleMap`` when they might be elsewhere.
    private func load(
        _ references: [OperationReference], by statement: KeyPath<TableStatements, Connection.Statement>, _ connection: Connection
    ) throws -> ([OperationReference: (row: Row, segment: Segment)], StoreTime) {
        let map = shared.segments.map
        let isLocking = statement == \.lock
        let parts = map.split(references, by: { $0 })
        var commands: [Connection.Command] = isLocking ? [.text("BEGIN")] : []
        commands += parts.map { .keys($0.segment.statements[keyPath: statement], $0.items) }
        commands += [.prepared(shared.statements.version, Parameters()), .prepared(shared.statements.now, Parameters())]
        let replies = try Self.rows(connection.run(commands, within: session.answerLimit))
        // The current segment was asked last, and a record only moves there: none was missed.
        guard replies[replies.count - 2].integer(0, 0, as: Int64.self) == map.version else { throw StaleMap() }
        var stored: [OperationReference: (row: Row, segment: Segment)] = [:]
        for (rows, part) in zip(replies.dropFirst(isLocking ? 1 : 0), parts) {
            for number in 0..<rows.count {
                let row = Row(rows, number)
                stored[row.id] = (row, part.segment)
            }
        }
        return (stored, StoreTime(Timestamp(microseconds: replies[replies.count - 1].integer(0, 0))))
    }

    private struct Decision {
        var answers: [(item: Item, answer: Item.Answer)] = []
        var change = RecordMachine.Change.keep
        /// The next item changes the record, which takes a lock.
        var needsLock = false
        /// The next item is a claim, and the key is absent.
        var isAbsent = false
    }

    private func decide(_ index: Int, _ row: Row?, at now: StoreTime, mayChange: Bool, _ connection: Connection) throws -> Decision {
        var decision = Decision()
        let items = groups[index].items
        var current: Record?
        if let row {
            do {
                let (id, record) = try row.record { try shared.policies.policy($0, connection, within: session.answerLimit)?.hash }
                // The whole key decides, never its hash (H29).
                guard let wanted = items.first?.id, id == wanted else { throw Row.Failure.body("another key has the same hash") }
                current = record
            } catch let failure as Row.Failure {
                decision.answers = items.map { ($0, unreadable($0, "\(failure)")) }
                return decision
            }
        }
        for item in items {
            let (answer, change): (Item.Answer, RecordMachine.Change)
            switch item.work {
            case .claim(let request):
                guard let record = current else {
                    decision.isAbsent = true
                    return decision
                }
                if RecordMachine.settled(record, at: now) == nil {
                    // Expired and still there: it goes first, and then the key is absent.
                    if mayChange {
                        decision.change = .remove
                        decision.isAbsent = true
                    } else {
                        decision.needsLock = true
                    }
                    return decision
                }
                let (result, effect) = RecordMachine.claim(
                    request, on: record, at: now, liveRecords: { 0 },
                    nextEpoch: { shared.nextEpoch(after: max($0, record.epoch), at: now.retention) })
                (answer, change) = (.claim(result), effect)
            case .transition(let transition):
                let (result, effect) = RecordMachine.apply(transition, to: current, at: now)
                (answer, change) = (item.isInDoubt && result == .superseded && transition.change == .release ? lost() : .transition(result), effect)
            case .read:
                (answer, change) = (.record(RecordMachine.settled(current, at: now)), .keep)
            case .verify(let owner, let lease):
                let (grant, effect) = RecordMachine.verify(
                    current, owner: owner, lease: lease, at: now,
                    nextEpoch: { shared.nextEpoch(after: max($0, current?.epoch ?? .zero), at: now.retention) })
                (answer, change) = (item.isInDoubt && grant == nil ? lost() : .grant(grant), effect)
            }
            if change != .keep {
                guard mayChange else {
                    decision.needsLock = true
                    return decision
                }
                decision.change = change
                if case .put(let record) = change { current = record } else { current = nil }
            }
            decision.answers.append((item, answer))
        }
        return decision
    }

    private func lost() -> Item.Answer {
        .failure(StoreError(.indeterminate, "\(shared.target.place): whether it happened is unknown, the answer was lost with the connection"))
    }

    private func unreadable(_ item: Item, _ why: String) -> Item.Answer {
        switch item.work {
        case .claim: .claim(.unreadable(why))
        case .transition: .transition(.superseded)
        case .read, .verify:
            .failure(StoreError(.damaged, "\(shared.target.place): the record of \(item.reference) cannot be read: \(why)"))
        }
    }

    // MARK: Claims near their scope's limit

    /// Claims of absent keys whose scope might be full: one process at a time counts and inserts for a scope.
    private func claimWithinLimits(_ connection: Connection) throws {
        var byScope: [Scope: [Int]] = [:]
        for index in groups.indices where groups[index].isAbsent {
            if case .claim(let request)? = groups[index].items.first?.work, limitedScopes.contains(request.id.scope) {
                byScope[request.id.scope, default: []].append(index)
            }
        }
        guard !byScope.isEmpty else { return }
        // Before the transaction: what is kept in it and rolled back would be believed to be kept.
        for index in byScope.values.joined() {
            if case .claim(let request)? = groups[index].items.first?.work {
                try shared.policies.keep(request.policy, connection, within: session.answerLimit)
            }
        }
        let scopes = byScope.keys.map { ($0, shared.target.lock(of: $0)) }.sorted { $0.1 < $1.1 }
        do {
            var commands: [Connection.Command] = [.text("BEGIN")]
            for (_, lock) in scopes { commands.append(.text("SELECT pg_advisory_xact_lock(\(lock))")) }
            for (scope, _) in scopes {
                var parameters = Parameters()
                parameters.add(scope.bytes)
                commands.append(.prepared(shared.statements.countLive, parameters))
            }
            let replies = try Self.rows(connection.run(commands, within: session.answerLimit))
            var admitted: [Int] = []
            var refused: [Int] = []
            for (number, (scope, _)) in scopes.enumerated() {
                var count = Int(replies[1 + scopes.count + number].integer(0, 0, as: Int64.self))
                let inOrder = (byScope[scope] ?? []).sorted { (groups[$0].items.first?.number ?? 0) < (groups[$1].items.first?.number ?? 0) }
                for index in inOrder {
                    guard case .claim(let request)? = groups[index].items.first?.work else { continue }
                    if count < request.liveLimit ?? .max {
                        admitted.append(index)
                        count += 1
                    } else {
                        refused.append(index)
                    }
                }
            }
            admitted.sort()
            commands = []
            let map = shared.segments.map
            // The scopes' locks come before: nobody who shares the map waits for them.
            if !admitted.isEmpty { commands += [.prepared(shared.statements.share, Parameters()), try insertion(admitted, map, connection)] }
            inFlight = admitted.compactMap { groups[$0].items.first }
            let inserted = try Self.rows(connection.run(commands + [.text("COMMIT")], within: session.answerLimit))
            inFlight = []
            if !admitted.isEmpty { try answerInserts(admitted, inserted[1], map, connection) }
            for index in refused {
                groups[index].isAbsent = false
                answer(index, .claim(.tooManyKeys))
            }
        } catch let error as PostgresError {
            inFlight = []
            _ = try connection.run([.text("ROLLBACK")], within: session.answerLimit)
            throw error
        }
    }

    // MARK: Answers

    private func answer(_ index: Int, _ answer: Item.Answer) {
        groups[index].items.removeFirst().answer = answer
    }

    /// All of the answers, or the first error: then nothing happened.
    private static func rows(_ replies: [Connection.Reply]) throws -> [Rows] {
        try replies.map { reply throws(PostgresError) in try reply.get() }
    }
}

extension Rows {
    /// The first column of every row, where it is an id.
    fileprivate var references: [OperationReference] { (0..<count).map { reference($0, 0) } }
}
#endif
