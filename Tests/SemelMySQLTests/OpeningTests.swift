#if MySQL
import Semel
@testable import SemelMySQL
import TestServers
import Testing

@Suite("Opening the store in MariaDB: what cannot be used is said, with its remedy")
struct OpeningTests {
    private func code(_ url: String, _ configuration: MySQLStore.Configuration = quiet()) async -> (code: StoreError.Code, message: String)? {
        do throws(StoreError) {
            await (try await MySQLStore(url: url, configuration: configuration)).close()
            return nil
        } catch {
            return (error.code, error.message)
        }
    }

    @Test(
        "a URL that cannot be is refused, and its password is not repeated",
        arguments: [
            "", "mysql:", "mysql://", "mysql:///db", "mysql://root:hidden@host", "mysql://root:hidden@host/", "mysql://:hidden@host/db", "postgres://root:hidden@host/db",
            "mysql://root:hidden@host:0/db", "mysql://root:hidden@host:99999/db", "mysql://root:hidden@host/db/more", "mysql://root:hidden@host/db?tls=maybe",
            "mysql://root:hidden@host/db?tsl=off", "mysql://root:hidden@host/db?tls=off&tls=require", "mysql://root:hidden@host/db?ca=", "mysql://root:hidden@host/db#f",
        ])
    func wrongURL(_ url: String) async throws {
        let refusal = try #require(await code(url))
        #expect(refusal.code == .misconfigured)
        #expect(refusal.message.contains("Remedy: write mysql://"))
        #expect(!refusal.message.contains("hidden"))
    }

    @Test("a URL says who, where, which database, and how it is encrypted")
    func target() throws {
        let near = try Target(url: "mysql://ada:p%40ss%2F@localhost/payments")
        #expect((near.user, near.password, near.host, near.port, near.database) == ("ada", "p@ss/", "127.0.0.1", 3306, "payments"))
        #expect(near.encryption == .off)
        #expect(!near.description.contains("p@ss"))
        #expect(try Target(url: "mariadb://ada@db.example:3307/p").encryption == .verified(authority: nil))
        #expect(try Target(url: "mysql://ada@db.example/p?ca=/etc/ca.pem").encryption == .verified(authority: "/etc/ca.pem"))
        #expect(try Target(url: "mysql://ada@db.example/p?tls=require").encryption == .required)
        #expect(try Target(url: "mysql://ada@db.example/p?tls=off").encryption == .off)
        #expect(try Target(url: "mysql://ada@[::1]/p").host == "::1")
        let socket = try Target(url: "mysql://ada@localhost/p?socket=/run/mysqld.sock")
        #expect(socket.socket == "/run/mysqld.sock")
    }

    @Test("wrong credentials, an unknown database, no encryption, no server: each its own error")
    func refusals() async throws {
        try await withDatabase { url in
            let server = url.split(separator: "@").last!
            let wrong = try #require(await code("mysql://root:wrong@\(server)"))
            #expect(wrong.code == .credentialsRefused)
            #expect(wrong.message.contains("Remedy: correct user and password"))
            let unknown = try #require(await code(url + "x"))
            #expect(unknown.code == .misconfigured)
            #expect(unknown.message.contains("CREATE DATABASE"))
            for option in ["tls=require", "tls=verify", "ca=/nowhere.pem"] {
                let plain = try #require(await code(url + "?" + option))
                #expect(plain.code == .encryptionFailed, "\(option): \(plain.message)")
            }
            let nobody = try #require(await code("mysql://root@127.0.0.1:1/db"))
            #expect(nobody.code == .unavailable)
        }
    }

    @Test("tables that are missing or of a newer program are refused, also by a store that is open (H58)")
    func schema() async throws {
        try await withDatabase { url in
            var careful = quiet()
            careful.migratesByItself = false
            let missing = try #require(await code(url, careful))
            #expect(missing.code == .missingSchema)
            #expect(missing.message.contains("semel store migrate"))

            let before = try await MySQLStore.inspect(url)
            #expect(before.schemaVersion == nil)
            #expect(before.problems.map(\.code) == [.missingSchema])
            #expect(before.serverVersion.hasPrefix("MariaDB "))
            let (from, to) = try await MySQLStore.migrate(url)
            #expect((from, to) == (0, 1))
            let after = try await MySQLStore.inspect(url)
            #expect(after.schemaVersion == 1)
            #expect(after.problems.isEmpty)
            #expect(abs(after.clockOffset / .seconds(1)) < 60)
            let store = try await MySQLStore(url: url, configuration: careful)
            _ = try await store.granted(request(key("a")))
            try await withConnection(to: url) { try $0.execute("UPDATE semel_state SET version = 99") }
            let newer = try #require(await code(url))
            #expect(newer.code == .newerSchema)
            let running = await #expect(throws: StoreError.self) { try await store.claim(request(key("b"))) }
            #expect(running?.code == .newerSchema)
            #expect(await store.health().isReady == false)
            await store.close()
        }
    }

    @Test("many processes make the tables at once, and each migration of the caller's runs once")
    func migrations() async throws {
        try await withDatabase { url in
            let first = [["CREATE TABLE account (name VARCHAR(20) PRIMARY KEY)", "INSERT INTO account VALUES ('a')"]]
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<6 { group.addTask { await (try await MySQLStore(url: url, configuration: quiet(migrations: first))).close() } }
                try await group.waitForAll()
            }
            let second = try await MySQLStore(url: url, configuration: quiet(migrations: first + [["INSERT INTO account VALUES ('b')"]]))
            #expect(try await second.read { try $0.query("SELECT COUNT(*) FROM account")[0][0] } == 2)
            await second.close()
            #expect(await code(url, quiet(migrations: first))?.code == .newerSchema)
            #expect(await code(url, quiet(migrations: [["SELECT 1"], ["SELECT 2"]]))?.code == .misconfigured)
            let broken = await code(url, quiet(migrations: first + [["INSERT INTO account VALUES ('b')"], ["CREATE NONSENSE"]]))
            #expect(broken?.code == .misconfigured)
            #expect(broken?.message.contains("migration 3 failed") == true)
        }
    }

    @Test("what the server keeps is declared: syncing decides, and a server that takes no writes is refused")
    func settings() async throws {
        let server = try await ownServer("--sync-binlog=0")
        defer { server.stop() }
        try await withDatabase(on: server.address) { url in
            func durability() async throws -> StoreCapabilities.Durability {
                let store = try await MySQLStore(url: url, configuration: quiet())
                await store.close()
                return store.capabilities.durability
            }
            guard case .forgetful(let why) = try await durability() else { return _ = Issue.record("sync_binlog=0 is not durable") }
            #expect(why.contains("sync_binlog"))
            try await withConnection(to: url) { try $0.execute("SET GLOBAL sync_binlog = 1, innodb_flush_log_at_trx_commit = 2") }
            guard case .forgetful(let why) = try await durability() else { return _ = Issue.record("an unsynced log is not durable") }
            #expect(why.contains("innodb_flush_log_at_trx_commit"))
            try await withConnection(to: url) { try $0.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 1") }
            #expect(try await durability() == .durable)

            // A failover under a store that is open: not for ever, and never a wrong answer.
            let store = try await MySQLStore(
                url: url, configuration: .init(connections: 1, patience: .milliseconds(100), purgesByItself: false))
            let grant = try await store.granted(request(key("a")))
            try await withConnection(to: url) { try $0.execute("SET GLOBAL read_only = 1") }
            let refusal = try #require(await code(url))
            #expect(refusal.code == .readOnly)
            #expect(refusal.message.contains("name the primary"))
            try await withConnection(to: url) { try $0.execute("SET GLOBAL read_only = 0") }
            #expect(try await store.apply(.complete(outcome("")), to: key("a"), token: grant.token) == .applied)
            await store.close()
        }
    }

    @Test("a server that is too old is refused")
    func tooOld() async throws {
        let server = try await ownServer("--version=10.5.29-MariaDB")
        defer { server.stop() }
        try await withDatabase(on: server.address) { url in
            let refusal = try #require(await code(url))
            #expect(refusal.code == .serverTooOld)
            #expect(try await MySQLStore.inspect(url).problems.map(\.code) == [.serverTooOld, .missingSchema])
            #expect(refusal.message.contains("10.5.29"))
            #expect(refusal.message.contains("MariaDB 10.6"))
        }
    }
}
#endif
