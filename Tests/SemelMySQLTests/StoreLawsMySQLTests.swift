#if MySQL
import Semel
@testable import SemelMySQL
import SemelTesting
import Testing

@Suite("The store in MariaDB upholds the store laws, on a real server")
struct StoreLawsMySQLTests {
    /// The laws wait for the server's clock. Too many at once would wait for each other's work.
    private static let turns = Turns(8)

    @Test("upholds", arguments: StoreLaw.all)
    func upholds(_ law: StoreLaw) async throws {
        let verdict = try await Self.turns.take {
            try await withDatabase { url in
                let store = try await MySQLStore(url: url, configuration: quiet())
                let stores = Locked([store])
                @Sendable func open() async throws -> MySQLStore {
                    let store = try await MySQLStore(url: url, configuration: quiet())
                    stores.withLock { $0.append(store) }
                    return store
                }
                var subject = StoreSubject(store, moment: .milliseconds(500))
                subject.connect = { try await open() }
                subject.reopen = {
                    await stores.withLock { $0.last! }.close()
                    return try await open()
                }
                subject.corrupt = { id, state in
                    let row = RowID(id).bytes
                    let changed = try await withConnection(to: url) { connection in
                        var parameters = Parameters()
                        parameters.append(Int64(state))
                        parameters.append(row)
                        return try connection.statement("UPDATE semel_record SET state = ? WHERE id = ?").execute(parameters)
                    }
                    guard changed == 1 else { throw ServerError(description: "there is no record to damage") }
                }
                let verdict: Result<StoreLaw.Verdict, any Error>
                do {
                    verdict = .success(try await law.check(subject))
                } catch {
                    verdict = .failure(error)
                }
                for store in stores.withLock({ $0 }) { await store.close() }
                return try verdict.get()
            }
        }
        if case .notApplicable(let missing) = verdict {
            try Test.cancel("not applicable: the store in MariaDB has no \(missing.map(\.rawValue).sorted().joined(separator: ", "))")
        }
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
