#if Postgres
import Semel
@testable import SemelPostgres
import SemelTesting
import Testing

@Suite("The store on PostgreSQL upholds the store laws, on a real server")
struct StoreLawsPostgresTests {
    /// Long against a round trip as it is now: the machine may be busy with other tests.
    private func moment(_ store: PostgresStore) async throws -> Duration {
        var start = ContinuousClock.now
        for number in 0..<6 {
            // The first one connects.
            if number == 1 { start = .now }
            let request = request(OperationID(scope: Scope("before the law"), key: try OperationKey("\(number)")))
            let grant = try await store.granted(request)
            _ = try await store.apply(.release, to: request.id, token: grant.token)
        }
        // Some laws make a hundred calls in less than a moment. Whole milliseconds: a store keeps microseconds.
        let hundred = (ContinuousClock.now - start) * 13 / .milliseconds(1)
        return .milliseconds(min(max(500, Int(hundred)), 4000))
    }

    @Test("upholds", arguments: StoreLaw.all)
    func upholds(_ law: StoreLaw) async throws {
        try await Turnstile.laws.pass {
            let place = try await Place()
            let stores = Locked([try await place.open()])
            var subject = StoreSubject(stores.withLock { $0[0] }, moment: try await moment(stores.withLock { $0[0] }))
            subject.reopen = {
                await stores.withLock { $0.removeFirst() }.close()
                let store = try await place.open()
                stores.withLock { $0.insert(store, at: 0) }
                return store
            }
            subject.connect = {
                let store = try await place.open()
                stores.withLock { $0.append(store) }
                return store
            }
            subject.corrupt = { id, state in
                let reference = OperationReference(id).description.dropFirst(3)
                try await place.run("UPDATE {schema}.record SET state = \(state) WHERE id = '\(reference)'")
            }
            let verdict: StoreLaw.Verdict
            do {
                verdict = try await law.check(subject)
            } catch {
                for store in stores.withLock({ $0 }) { await store.close() }
                try await place.drop()
                throw error
            }
            for store in stores.withLock({ $0 }) { await store.close() }
            try await place.drop()
            if case .notApplicable(let missing) = verdict {
                try Test.cancel("not applicable: the store on PostgreSQL has no \(missing.map(\.rawValue).sorted().joined(separator: ", "))")
            }
        }
    }
}
#endif
