#if MySQL
import Semel

/// One transaction over the keys of many callers.
///
/// Two transitions are so common that SQL makes them without reading first: a claim of a key that is absent, and the
/// completion of a claim by its holder. Each takes one statement for all of them. Whatever is not one of these is locked,
/// read, decided by the record machine, and written back, in the same transaction.
final class Batch {
    private let session: Session
    private let items: [Item]
    private var answers: [Item.Answer?]

    // What was read under a lock, and what has become of it.
    private var original: [RowID: Row] = [:]
    private var current: [RowID: Stored] = [:]
    private var names: [RowID: OperationID] = [:]
    private var dirty: Set<RowID> = []
    private var live: [RowID: Int] = [:]
    private var policies: [PolicyHash: PinnedPolicy] = [:]
    private var changed: [OperationID] = []

    init(_ session: Session, _ items: [Item]) {
        self.session = session
        self.items = items
        answers = Array(repeating: nil, count: items.count)
    }

    /// Some key's holder could not complete it that simply, and may have left a row of no meaning.
    private struct NotSimple: Error {}

    /// - Parameter maybeDone: an earlier run may have been committed. Then every step looks at what is there.
    func run(maybeDone: Bool) throws -> [Item.Answer] {
        do {
            try transact(maybeDone: maybeDone, completesSimply: !maybeDone)
        } catch is NotSimple {
            try session.startOver()
            (original, current, names, dirty, live, policies, changed) = ([:], [:], [:], [], [:], [:], [])
            answers = Array(repeating: nil, count: items.count)
            try transact(maybeDone: maybeDone, completesSimply: false)
        }
        if !changed.isEmpty { session.shared.configuration.metrics?.batch(of: items.count) }
        session.shared.noteKept(Array(policies.values))
        let observations = session.shared.observations
        if !observations.isEmpty { for id in changed { observations.signal(id) } }
        return answers.map { $0! }
    }

    private func transact(maybeDone: Bool, completesSimply: Bool) throws {
        try session.readClock()
        var claims: [Int] = []
        var completions: [Int] = []
        var steps: [Int] = []
        var reads: [Int] = []
        var counted: [RowID: Int] = [:]
        for item in items {
            guard case .claim(let request) = item.wish, let limit = request.liveLimit, try !session.isFarFrom(limit: limit) else { continue }
            let scope = RowID(request.id.scope)
            counted[scope] = max(counted[scope] ?? 0, limit)
        }
        var seen = Set<RowID>(minimumCapacity: items.count)
        for (index, item) in items.enumerated() {
            if let error = refusal(of: item) {
                answers[index] = .failed(error)
                continue
            }
            // A key's second item meets what the first left.
            let isFirst = if case .read = item.wish { true } else { seen.insert(item.row).inserted }
            switch item.wish {
            case .claim(let request):
                // Where the scope is counted its claims are decided in their order, those without a limit too.
                let isFar = counted.isEmpty || counted[RowID(request.id.scope)] == nil
                if isFirst, isFar, !maybeDone { claims.append(index) } else { steps.append(index) }
            case .apply(let transition):
                if isFirst, completesSimply, case .complete = transition.change { completions.append(index) } else { steps.append(index) }
            case .read: reads.append(index)
            }
        }
        claims.sort { items[$0].row < items[$1].row }
        completions.sort { items[$0].row < items[$1].row }

        let met = try claimAbsent(claims)
        try completeClaimed(completions)
        if !counted.isEmpty {
            try session.lock(scopes: counted.keys)
            for (scope, limit) in counted { live[scope] = try session.count(live: scope, upTo: limit + items.count) }
        }
        try load(met.map(\.index) + steps)
        for draft in met { claim(draft) }
        for index in steps { step(index, maybeDone: maybeDone) }
        try writeBack()
        try read(reads)
        try session.keep(policies.values.filter { !session.shared.isKept($0.hash) })
        try session.commit()
    }

    /// What the server would not take at all.
    private func refusal(of item: Item) -> StoreError? {
        guard case .apply(let transition) = item.wish, case .complete(let outcome, _) = transition.change, let server = session.server,
            outcome.byteCount + 65_536 > server.largestPacket
        else { return nil }
        return StoreError(
            .refused,
            "\(session.shared.target.description): an outcome of \(outcome.byteCount) bytes is larger than the server takes. Remedy: raise max_allowed_packet (\(server.largestPacket)), or lower the largest response that is kept")
    }

    // MARK: What SQL does alone

    /// What a claim leads to where its key is absent.
    private struct Draft {
        let index: Int
        let row: Row
        let grant: Grant
    }

    /// Inserts the records of keys taken to be absent.
    /// - Returns: those of portions where some key was not.
    private func claimAbsent(_ indices: [Int]) throws -> [Draft] {
        guard !indices.isEmpty else { return [] }
        let epoch = session.drawEpoch()
        var drafts: [Draft] = []
        drafts.reserveCapacity(indices.count)
        for index in indices {
            guard case .claim(let request) = items[index].wish else { continue }
            let (result, change) = RecordMachine.claim(
                request, on: nil, at: session.now, liveRecords: { 0 }, nextEpoch: { _ in epoch })
            guard case .granted(let grant) = result, case .put(let record) = change else { continue }
            drafts.append(Draft(index: index, row: Row(items[index].row, request.id, record), grant: grant))
        }
        var met: [Draft] = []
        for portion in session.portions(drafts, bytes: \.row.byteCount) {
            let inserted = try session.write(ArraySlice(portion.map(\.row)), Tables.insert)
            for draft in portion {
                if inserted == portion.count { granted(draft.index, draft.grant) } else { met.append(draft) }
            }
        }
        return met
    }

    private func granted(_ index: Int, _ grant: Grant) {
        guard case .claim(let request) = items[index].wish else { return }
        answers[index] = .claimed(.granted(grant))
        policies[request.policy.hash] = request.policy
        changed.append(request.id)
    }

    private func completeClaimed(_ indices: [Int]) throws {
        struct Completion {
            let index: Int
            let transition: Transition
            let outcome: [UInt8]
            let retention: Retention?
        }
        let completions = indices.compactMap { index -> Completion? in
            guard case .apply(let transition) = items[index].wish, case .complete(let outcome, let retention) = transition.change else { return nil }
            return Completion(index: index, transition: transition, outcome: Row.encode(outcome), retention: retention)
        }
        for portion in session.portions(completions, bytes: { 200 + $0.outcome.count }) {
            let size = Tables.size(for: portion.count)
            var parameters = Parameters(reservingCapacity: portion.reduce(0) { $0 + $1.outcome.count } + 128 * size)
            for number in 0..<size {
                let completion = portion[min(portion.startIndex + number, portion.endIndex - 1)]
                parameters.append(items[completion.index].row.bytes)
                parameters.append(unsigned: completion.transition.token.epoch.rawValue)
                parameters.append(completion.transition.token.owner.bytes)
                parameters.append(session.now.retention.microseconds)
                parameters.append(completion.retention.map { Row.column($0.response) } ?? -1)
                parameters.append(completion.retention.map { Row.column($0.key) } ?? -1)
                parameters.append(completion.outcome)
            }
            // Two for each that was changed; one for each that was absent.
            guard try session.connection.statement(Tables.complete[size]!).execute(parameters) == 2 * portion.count else { throw NotSimple() }
            for completion in portion {
                answers[completion.index] = .applied(.applied)
                changed.append(completion.transition.id)
            }
        }
    }

    // MARK: What the record machine decides

    private func load(_ indices: [Int]) throws {
        for index in indices { names[items[index].row] = items[index].id }
        guard !names.isEmpty else { return }
        original = try session.lock(Array(names.keys))
        for id in names.keys { current[id] = Stored(original[id]) }
        try session.refreshClock()
    }

    /// A claim that was tried as if its key were absent.
    private func claim(_ draft: Draft) {
        if original[draft.row.id] == draft.row { granted(draft.index, draft.grant) } else { step(draft.index, maybeDone: false) }
    }

    private func step(_ index: Int, maybeDone: Bool) {
        let item = items[index]
        guard let stored = current[item.row] else { return }
        switch item.wish {
        case .claim(let request):
            if case .unreadable(let why) = stored { return answers[index] = .claimed(.unreadable(why)) }
            let scope = live.isEmpty ? nil : RowID(item.id.scope)
            let (result, change) = RecordMachine.claim(
                request, on: stored.record, at: session.now, liveRecords: { scope.flatMap { live[$0] } ?? 0 },
                nextEpoch: { session.nextEpoch(after: max($0, stored.epoch)) })
            if case .granted = result { policies[request.policy.hash] = request.policy }
            set(change, item)
            answers[index] = .claimed(result)
        case .apply(let transition):
            // Nothing can be done to what cannot be read, and nothing was; the other items go on.
            if case .unreadable = stored { return answers[index] = .applied(.superseded) }
            if maybeDone, isDone(transition, stored) { return answers[index] = .applied(.applied) }
            let (result, change) = RecordMachine.apply(transition, to: stored.record, at: session.now)
            set(change, item)
            answers[index] = .applied(result)
        case .read: break
        }
    }

    /// Whether the record looks as the transition left it, where the machine could not tell from a stranger's wish.
    private func isDone(_ transition: Transition, _ stored: Stored) -> Bool {
        switch (transition.change, stored) {
        case (.release, .absent(let token)): token == transition.token
        // Also when its retention was so short that the outcome has expired by now.
        case (.complete(let outcome, _), .record(let record)):
            record.state == .completed && record.token == transition.token && record.outcome == outcome
        default: false
        }
    }

    private func set(_ change: RecordMachine.Change, _ item: Item) {
        guard change != .keep, let before = current[item.row] else { return }
        let after: Stored =
            switch change {
            case .put(let record): .record(record)
            case .remove, .keep: .absent(after: before.record?.token)
            }
        current[item.row] = after
        dirty.insert(item.row)
        changed.append(item.id)
        if !live.isEmpty {
            let difference = (after.record?.isLive == true ? 1 : 0) - (before.record?.isLive == true ? 1 : 0)
            if difference != 0 { live[RowID(item.id.scope)]? += difference }
        }
    }

    private func writeBack() throws {
        var inserted: [Row] = []
        var overwritten: [Row] = []
        for id in dirty.sorted() {
            guard let name = names[id], let stored = current[id] else { continue }
            let before = original[id]
            let row: Row
            switch stored {
            case .record(let record): row = Row(id, name, record)
            case .absent(let token?): row = .free(id, after: token, at: session.now.retention)
            case .absent(nil), .unreadable: continue
            }
            if before == nil { inserted.append(row) } else if row != before { overwritten.append(row) }
        }
        try session.insert(inserted)
        try session.overwrite(overwritten)
    }

    // MARK: Reading

    private func read(_ indices: [Int]) throws {
        guard !indices.isEmpty else { return }
        let found = try session.read(Array(Set(indices.map { items[$0].row })))
        for index in indices {
            switch Stored(found[items[index].row]) {
            case .absent: answers[index] = .record(nil)
            case .record(let record): answers[index] = .record(RecordMachine.settled(record, at: session.now))
            case .unreadable(let why): answers[index] = .failed(session.damaged(items[index].row.reference, why))
            }
        }
    }
}

extension Session {
    func damaged(_ reference: OperationReference, _ why: String) -> StoreError {
        StoreError(.damaged, "\(shared.target.description): the record of \(reference) cannot be read: \(why)")
    }

    /// Runs jobs as one transaction, or each by itself where they stand in each other's way, and marks each with what came
    /// of it. They may be answered when this returns.
    func run(_ jobs: [ItemsJob], maybeDone: Bool = false) {
        do {
            let answers = try persist(maybeDone: maybeDone, splits: jobs.count > 1) { maybeDone in
                try Batch(self, jobs.flatMap(\.items)).run(maybeDone: maybeDone)
            }
            var rest = answers[...]
            for job in jobs {
                job.answers = .success(Array(rest.prefix(job.items.count)))
                rest = rest.dropFirst(job.items.count)
            }
        } catch let split as Split {
            for job in jobs { run([job], maybeDone: split.maybeDone) }
        } catch {
            let error = storeError(error)
            for job in jobs { job.fail(error) }
        }
    }
}

extension Outcome {
    /// About how much it takes when it is kept.
    fileprivate var byteCount: Int {
        let kept = if case .kept(let bytes) = body { bytes.count } else { 64 }
        return (fields + trailers).reduce(kept + 16) { $0 + $1.name.utf8.count + $1.value.utf8.count + 8 }
    }
}
#endif
