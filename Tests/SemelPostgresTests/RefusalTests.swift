#if Postgres
import Foundation
import Semel
@testable import SemelPostgres
import Testing
import TestServers

@Suite("What the store on PostgreSQL refuses to open, and what it says then")
struct RefusalTests {
    private func refusal(_ url: String, migrate: Bool = true) async throws -> StoreError {
        do throws(StoreError) {
            let store = try await PostgresStore.open(url, migrate: migrate, configuration: .forTests)
            await store.close()
        } catch {
            return error
        }
        throw Unexpected(description: "\(url) was opened")
    }

    @Test(
        "a URL that cannot be understood",
        arguments: ["postgres:/nowhere", "http://localhost", "postgres://localhost:port/x", "postgres://localhost/x?schema=", "postgres://localhost/x?schema=a%22b", "postgres://localhost/x?no_such_option=1"])
    func wrongURL(url: String) async throws {
        let error = try await refusal(url)
        #expect(error.code == .misconfigured, "\(error)")
        #expect(error.message.contains("URL"))
    }

    @Test("a server that is not there")
    func nobody() async throws {
        let error = try await refusal("postgres://postgres@127.0.0.1:1/postgres")
        #expect(error.code == .unavailable, "\(error)")
        #expect(error.isTransient)
        #expect(error.message.contains("127.0.0.1:1"))
    }

    @Test("a database that is not there")
    func noDatabase() async throws {
        let place = try await Place()
        let error = try await refusal(place.url.replacing("/postgres?", with: "/no_such_database?"))
        #expect(error.code == .misconfigured, "\(error)")
        #expect(error.message.contains("no_such_database"))
    }

    @Test("a wrong password, and none, by SCRAM; the message shows neither user nor password")
    func wrongPassword() async throws {
        let server = try await TestServer("start-postgres")
        let place = Place(server: server.address)
        try await place.run("CREATE ROLE ada LOGIN PASSWORD 'right'", "GRANT ALL ON DATABASE postgres TO ada")
        let rules = server.folder.appendingPathComponent("data/pg_hba.conf")
        let before = try String(contentsOf: rules, encoding: .utf8)
        try ("host all ada all scram-sha-256\n" + before).write(to: rules, atomically: false, encoding: .utf8)
        try await place.run("SELECT pg_reload_conf()")
        let url = place.url.replacing("postgres@", with: "ada:wrong@")
        let wrong = try await refusal(url)
        #expect(wrong.code == .credentialsRefused, "\(wrong)")
        #expect(!wrong.isTransient)
        #expect(!wrong.message.contains("wrong@"))
        let none = try await refusal(url.replacing(":wrong@", with: "@"))
        #expect(none.code == .credentialsRefused, "\(none)")
        let store = try await PostgresStore.open(url.replacing(":wrong@", with: ":right@"), migrate: true, configuration: .forTests)
        _ = try await store.granted(request(key("a")))
        await store.close()
    }

    @Test("an encrypted connection that cannot be had")
    func noEncryption() async throws {
        let place = try await Place()
        let error = try await refusal(place.url + "&sslmode=require")
        #expect(error.code == .encryptionFailed, "\(error)")
        #expect(error.message.contains("sslmode"))
    }

    @Test("a schema that is missing; and then one that is newer than this program")
    func schemas() async throws {
        let place = try await Place()
        let missing = try await refusal(place.url, migrate: false)
        #expect(missing.code == .missingSchema, "\(missing)")
        #expect(missing.message.contains("semel store migrate"))

        #expect(try await PostgresStore.migrate(place.url, configuration: .forTests) == (0, 2))
        #expect(try await PostgresStore.migrate(place.url, configuration: .forTests) == (2, 2))
        await (try await PostgresStore.open(place.url, configuration: .forTests)).close()
        #expect(try await PostgresStore.inspect(place.url).schemaVersion == 2)

        try await place.run("UPDATE {schema}.meta SET version = 99")
        for migrate in [false, true] {
            let newer = try await refusal(place.url, migrate: migrate)
            #expect(newer.code == .newerSchema, "\(newer)")
            #expect(newer.message.contains("99"))
        }
        try await place.drop()
    }

    @Test("several programs that migrate at once make one schema")
    func migrations() async throws {
        let place = try await Place()
        let found = try await withThrowingTaskGroup(of: Int.self) { group in
            for _ in 0..<6 { group.addTask { try await PostgresStore.migrate(place.url, configuration: .forTests).from } }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(found.sorted() == [0, 2, 2, 2, 2, 2])
        try await place.drop()
    }

    @Test("a server that takes no writes")
    func readOnly() async throws {
        let place = try await Place()
        await (try await place.open()).close()
        let error = try await refusal(place.url + "&options=-c%20default_transaction_read_only%3Don")
        #expect(error.code == .readOnly, "\(error)")
        #expect(error.message.contains("primary"))
        try await place.drop()
    }

    @Test("a server without durable commits is opened, and what it is worth is declared")
    func forgetful() async throws {
        let server = try await TestServer("start-postgres", environment: ["POSTGRES_SYNCHRONOUS_COMMIT": "off"])
        let place = Place(server: server.address)
        let store = try await place.open()
        guard case .forgetful(let how) = store.capabilities.durability else { throw Unexpected(description: "it is declared durable") }
        #expect(how.contains("synchronous_commit"))
        #expect(try await PostgresStore.inspect(place.url).durability == store.capabilities.durability)
        await store.close()
    }

    @Test("what a look at a good server tells")
    func inspection() async throws {
        let place = try await Place()
        let empty = try await PostgresStore.inspect(place.url)
        #expect(empty.problems.map(\.code) == [.missingSchema])
        #expect(empty.durability == .durable)
        #expect(empty.clockOffset > .seconds(-5) && empty.clockOffset < .seconds(5))
        #expect(!empty.serverVersion.isEmpty)
        let store = try await place.open()
        #expect(store.capabilities == StoreCapabilities(engine: "postgres", durability: .durable, isTransactional: true))
        #expect(try await PostgresStore.inspect(place.url).problems.isEmpty)
        let health = await store.health()
        #expect(health.isReady, "\(health.detail)")
        await store.close()
        let closed = await #expect(throws: StoreError.self) { _ = try await store.claim(request(key("a"))) }
        #expect(closed?.code == .stopped)
        try await place.drop()
    }
}
#endif
