#if Postgres
import ChildProcesses
import Semel
@testable import SemelPostgres
import SemelTesting
import Testing

/// The laws let time pass at once: in each test's schema the server's clock goes ahead by what the test says. A schema that
/// stands before PostgreSQL's own in the search path lends the store's statements another `clock_timestamp()`; everything
/// else is as it is anywhere. Some laws also wait for the server's own clock.
@Suite("The store on PostgreSQL upholds the store laws, on a real server")
struct StoreLawsPostgresTests {
    @Test("upholds", arguments: StoreLaw.all)
    func upholds(_ law: StoreLaw) async throws {
        try await withSubjects { try await law.check(try await $0.ahead()) }
    }

    @Test("upholds, with segments of two keys", arguments: StoreLaw.all)
    func upholdsInSegments(_ law: StoreLaw) async throws {
        var configuration = PostgresStore.Configuration.forTests
        configuration.segmentKeys = 2
        try await withSubjects(configuration) { try await law.check(try await $0.ahead()) }
    }

    @Test("upholds, by the server's own clock", arguments: StoreLaw.realTime)
    func upholdsInRealTime(_ law: StoreLaw) async throws {
        try await withSubjects { subjects in try await law.check(moment: .seconds(1)) { try await subjects.inRealTime($0) } }
    }

    @Test("has the row of the README's guarantee table that its capabilities give")
    func row() async throws {
        try await withSubjects {
            let row = GuaranteeRow("PostgreSQL", try await $0.ahead())
            let readme = try Repository.text(of: "README.md")
            #expect(row.isIn(readme), "README.md lacks this row: \(row.markdown)")
            return .upheld
        }
    }

    @Test("is excused from no law but those about a clock that can be set and leases that rest on a process")
    func isExcused() async throws {
        let expected: [StoreLaw] = [.epochsSurviveABackwardClock, .reopeningEndsLeases]
        try await withSubjects {
            let subject = try await $0.ahead()
            #expect(StoreLaw.notApplicable(to: subject).map(\.name) == expected.map(\.name))
            return .upheld
        }
    }

    private func withSubjects(_ configuration: PostgresStore.Configuration = .forTests, _ body: (Subjects) async throws -> StoreLaw.Verdict) async throws {
        try await Turnstile.laws.pass {
            let subjects = Subjects(configuration)
            let verdict: Result<StoreLaw.Verdict, any Error>
            do {
                verdict = .success(try await body(subjects))
            } catch {
                verdict = .failure(error)
            }
            try await subjects.drop()
            if case .notApplicable(let missing) = try verdict.get() {
                try Test.cancel("not applicable: the store on PostgreSQL has no \(missing.map(\.rawValue).sorted().joined(separator: ", "))")
            }
        }
    }
}

/// What one law is checked on: fresh schemas, and the stores that were opened in them.
private final class Subjects: Sendable {
    private let places = Locked([Place]())
    private let stores = Locked([PostgresStore]())
    private let configuration: PostgresStore.Configuration

    init(_ configuration: PostgresStore.Configuration) { self.configuration = configuration }

    /// Where time passes at once.
    func ahead() async throws -> StoreSubject {
        let place = try await Place(configuration)
        places.withLock { $0.append(place) }
        try await place.run("CREATE SCHEMA {schema}")
        try await place.run("CREATE TABLE {schema}.ahead (by interval NOT NULL)")
        try await place.run("INSERT INTO {schema}.ahead VALUES ('0')")
        try await place.run(
            """
            CREATE FUNCTION {schema}.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
            AS 'SELECT pg_catalog.clock_timestamp() + by FROM {schema}.ahead'
            """)
        var subject = try await subject(in: place.searchedFirst(), moment: .seconds(60))
        subject.elapse = { try await place.run("UPDATE {schema}.ahead SET by = by + interval '1 microsecond' * \(Int64($0 / .microseconds(1)))") }
        return subject
    }

    /// Where time passes by itself.
    func inRealTime(_ moment: Duration) async throws -> StoreSubject {
        let place = try await Place(configuration)
        places.withLock { $0.append(place) }
        return try await subject(in: place, moment: moment)
    }

    private func subject(in place: Place, moment: Duration) async throws -> StoreSubject {
        @Sendable func open() async throws -> PostgresStore {
            let store = try await place.open()
            self.stores.withLock { $0.append(store) }
            return store
        }
        let current = Locked(try await open())
        var subject = StoreSubject(current.withLock { $0 }, moment: moment)
        subject.reopen = {
            let former = current.withLock { $0 }
            self.stores.withLock { stores in stores.removeAll { $0 === former } }
            await former.close()
            let store = try await open()
            current.withLock { $0 = store }
            return store
        }
        subject.connect = { try await open() }
        subject.corrupt = { id, state in
            let reference = OperationReference(id).description.dropFirst(3)
            try await place.run("UPDATE {schema}.record SET state = \(state) WHERE id = '\(reference)'")
        }
        return subject
    }

    func drop() async throws {
        for store in stores.withLock({ $0 }) { await store.close() }
        for place in places.withLock({ $0 }) { try await place.drop() }
    }
}
#endif
