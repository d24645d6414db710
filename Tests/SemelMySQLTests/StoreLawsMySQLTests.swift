#if MySQL
import ChildProcesses
import Semel
@testable import SemelMySQL
import SemelTesting
import Testing

/// The laws let time pass at once: the store's time never goes back behind the latest that was seen and noted in the database,
/// so a later one is noted there, which is how the store goes on where the server's clock was set back (H9). Everything else is
/// as it is anywhere. Some laws also wait for the server's own clock.
@Suite("The store in MariaDB upholds the store laws, on a real server")
struct StoreLawsMySQLTests {
    private static let turns = Turns(12)

    @Test("upholds", arguments: StoreLaw.all)
    func upholds(_ law: StoreLaw) async throws {
        try await Self.withSubjects { try await law.check(try await $0.ahead()) }
    }

    @Test("upholds, by the server's own clock", arguments: StoreLaw.realTime)
    func upholdsInRealTime(_ law: StoreLaw) async throws {
        try await Self.withSubjects { subjects in try await law.check(moment: .seconds(1)) { try await subjects.inRealTime($0) } }
    }

    @Test("has the row of the README's guarantee table that its capabilities give")
    func row() async throws {
        try await Self.withSubjects {
            let row = GuaranteeRow("MySQL, MariaDB", try await $0.ahead())
            let readme = try Repository.text(of: "README.md")
            #expect(row.isIn(readme), "README.md lacks this row: \(row.markdown)")
            return .upheld
        }
    }

    @Test("is excused from no law but those about a clock that can be set and leases that rest on a process")
    func isExcused() async throws {
        let expected: [StoreLaw] = [.epochsSurviveABackwardClock, .reopeningEndsLeases]
        try await Self.withSubjects {
            let subject = try await $0.ahead()
            #expect(StoreLaw.notApplicable(to: subject).map(\.name) == expected.map(\.name))
            return .upheld
        }
    }

    private static func withSubjects(_ body: @escaping @Sendable (Subjects) async throws -> StoreLaw.Verdict) async throws {
        let verdict = try await turns.take {
            let subjects = Subjects()
            let verdict: Result<StoreLaw.Verdict, any Error>
            do {
                verdict = .success(try await body(subjects))
            } catch {
                verdict = .failure(error)
            }
            try await subjects.drop()
            return try verdict.get()
        }
        if case .notApplicable(let missing) = verdict {
            try Test.cancel("not applicable: the store in MariaDB has no \(missing.map(\.rawValue).sorted().joined(separator: ", "))")
        }
    }
}

/// What one law is checked on: fresh databases, and the stores that were opened in them.
private final class Subjects: Sendable {
    private let databases = Locked([Database]())
    private let stores = Locked([MySQLStore]())

    /// Where time passes at once.
    func ahead() async throws -> StoreSubject {
        let database = try await database()
        var subject = try await subject(in: database, moment: .seconds(60))
        subject.elapse = { time in
            let later = "GREATEST(seen, \(Tables.time)) + \(Int64(time / .microseconds(1)))"
            try await withConnection(to: database.url) { try $0.execute("UPDATE semel_state SET seen = \(later) WHERE id = 1") }
        }
        return subject
    }

    /// Where time passes by itself.
    func inRealTime(_ moment: Duration) async throws -> StoreSubject { try await subject(in: try await database(), moment: moment) }

    private func database() async throws -> Database {
        let database = try await Database()
        databases.withLock { $0.append(database) }
        return database
    }

    private func subject(in database: Database, moment: Duration) async throws -> StoreSubject {
        @Sendable func open() async throws -> MySQLStore {
            let store = try await MySQLStore(url: database.url, configuration: quiet())
            self.stores.withLock { $0.append(store) }
            return store
        }
        let current = Locked(try await open())
        var subject = StoreSubject(current.withLock { $0 }, moment: moment)
        subject.connect = { try await open() }
        subject.reopen = {
            let former = current.withLock { $0 }
            self.stores.withLock { stores in stores.removeAll { $0 === former } }
            await former.close()
            let store = try await open()
            current.withLock { $0 = store }
            return store
        }
        subject.corrupt = { id, state in
            let row = RowID(id).bytes
            let changed = try await withConnection(to: database.url) { connection in
                var parameters = Parameters()
                parameters.append(Int64(state))
                parameters.append(row)
                return try connection.statement("UPDATE semel_record SET state = ? WHERE id = ?").execute(parameters)
            }
            guard changed == 1 else { throw ServerError(description: "there is no record to damage") }
        }
        return subject
    }

    func drop() async throws {
        for store in stores.withLock({ $0 }) { await store.close() }
        for database in databases.withLock({ $0 }) { try await database.drop() }
    }
}

/// Lets only so many go on at once.
actor Turns {
    private var free: Int
    private var waiting: [CheckedContinuation<Void, Never>] = []

    init(_ count: Int) { free = count }

    func take<Value: Sendable>(_ body: @Sendable () async throws -> Value) async throws -> Value {
        if free > 0 {
            free -= 1
        } else {
            await withCheckedContinuation { waiting.append($0) }
        }
        defer {
            if waiting.isEmpty { free += 1 } else { waiting.removeFirst().resume() }
        }
        return try await body()
    }
}
#endif
