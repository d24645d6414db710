import Foundation
import NIOCore
import Semel
@testable import SemelRedis
import Testing

@Suite("A Redis that is not fit is refused, with what to do")
struct OpeningTests {
    private static let configuration = RedisStore.Configuration(patience: .seconds(2), purgesByItself: false)

    private func refusal(_ url: String) async -> StoreError? {
        do throws(StoreError) {
            _ = try await RedisStore(url: url, configuration: Self.configuration)
            return nil
        } catch {
            return error
        }
    }

    private func expectRefusal(_ url: String, _ code: StoreError.Code, _ words: String...) async {
        let error = await refusal(url)
        #expect(error?.code == code, "\(error?.message ?? "it was opened")")
        for word in ["Remedy"] + words { #expect(error?.message.contains(word) == true, "\(error?.message ?? "") says \(word)") }
    }

    @Test(
        "a URL that is none",
        arguments: [
            "localhost:6379", "http://localhost", "redis://", "redis://:6379", "redis://host:port", "redis://host:0", "redis://host:70000",
            "redis://a,b",
            "redis://host/x", "redis+cluster://a/1", "redis://host?prefix=%7B", "redis://host?prefix=a%20b", "redis://host?nonsense=1",
            "redis://host?connections=0",
            "redis://host?prefix", "redis://user%:p@host",
        ])
    func misconfigured(_ url: String) {
        #expect {
            try RedisLocation(url)
        } throws: { ($0 as? StoreError)?.code == .misconfigured && "\($0)".contains(": write redis://") }
    }

    @Test("a URL says everything, and shows no password")
    func url() throws {
        let location = try RedisLocation(
            "rediss+cluster://ada:s%40crt@one:1,[::1]:2,three?prefix=x:&ca=/a.pem&connections=2&wait=1&waitTimeout=50")
        #expect(location.endpoints == [.init(host: "one", port: 1), .init(host: "::1", port: 2), .init(host: "three")])
        #expect(location.isCluster && location.usesTLS && location.user == "ada" && location.password == "s@crt" && location.prefix == "x:")
        #expect(location.certificateAuthority == "/a.pem" && location.connections == 2 && location.waitForReplicas == 1)
        #expect(location.description == "rediss+cluster://one:1,[::1]:2,three:6379")
        let single = try RedisLocation("redis://:secret@host/3")
        #expect(single.password == "secret" && single.user == nil && single.database == 3)
        let error = #expect(throws: StoreError.self) { try RedisLocation("redis://ada:secret@host:x") }
        #expect(error?.message.contains("secret") == false)
    }

    @Test("a server that is not there")
    func unreachable() async { await expectRefusal("redis://127.0.0.1:1", .unavailable, "cannot be reached") }

    @Test("a wrong password, and none where one is needed")
    func credentials() async throws {
        let server = try await RedisServer()
        defer { withExtendedLifetime(server) {} }
        try await server.command("CONFIG", "SET", "requirepass", "right")
        await expectRefusal("redis://:wrong@127.0.0.1:\(server.port)", .credentialsRefused)
        await expectRefusal("redis://nobody:right@127.0.0.1:\(server.port)", .credentialsRefused)
        await expectRefusal("redis://127.0.0.1:\(server.port)", .credentialsRefused)
        #expect(await refusal("redis://:right@127.0.0.1:\(server.port)") == nil)
        #expect(await refusal("redis://default:right@127.0.0.1:\(server.port)") == nil)
    }

    @Test("a user without rights is told which; one that may not read the settings gets the least durability")
    func rights() async throws {
        let server = try await RedisServer(["--appendfsync", "always"])
        try await server.command("ACL", "SETUSER", "poor", "on", ">p", "~*", "&*", "+hello", "+client", "+script")
        try await server.command(
            "ACL", "SETUSER", "enough", "on", ">p", "~semel:*", "&semel:*", "+@read", "+@write", "+@scripting", "+@pubsub", "+@connection",
            "+info", "+time")
        await expectRefusal("redis://poor:p@127.0.0.1:\(server.port)", .credentialsRefused, "forbids")
        let store = try await RedisStore(url: "redis://enough:p@127.0.0.1:\(server.port)", configuration: Self.configuration)
        guard case .forgetful(let why) = store.capabilities.durability else {
            Issue.record("durable without knowing")
            return
        }
        #expect(why.contains("cannot be read"))
        let grant = try await store.granted(request(key("a")))
        #expect(try await store.apply(.complete(outcome("x")), to: key("a"), token: grant.token) == .applied)
        _ = try await store.operations(OperationQuery())
    }

    @Test("an evicting server (H12)", arguments: ["allkeys-lru", "volatile-ttl"])
    func evicting(_ policy: String) async throws {
        let server = try await RedisServer(["--maxmemory-policy", policy])
        defer { withExtendedLifetime(server) {} }
        await expectRefusal(server.url, .evicting, policy, "noeviction")
    }

    @Test("a replica")
    func replica() async throws {
        let primary = try await RedisServer()
        let replica = try await RedisServer(["--replicaof", "127.0.0.1 \(primary.port)"])
        defer { withExtendedLifetime((primary, replica)) {} }
        await expectRefusal(replica.url, .readOnly, "primary")
    }

    @Test("a server that is too old")
    func tooOld() {
        var facts = ServerFacts(endpoint: .init(host: "old"))
        facts.eviction = "noeviction"
        for (version, isFit) in [("5.0.7", false), ("6.0.16", false), ("6.2.0", true), ("7.4.1", true), ("10.0", true), ("", false)] {
            facts.version = version
            let error: StoreError? = Result { try facts.check(asCluster: false) }.failure as? StoreError
            let expected: StoreError.Code? = isFit ? nil : .serverTooOld
            #expect(error?.code == expected)
        }
    }

    @Test("a cluster's node taken for a single server, and the other way round")
    func clusterOrNot() async throws {
        let single = try await SharedRedis.address()
        let cluster = try await SharedRedis.address(cluster: true).split(separator: ",")[0]
        await expectRefusal("redis://\(cluster)", .misconfigured, "redis+cluster://")
        await expectRefusal("redis+cluster://\(single)", .misconfigured, "redis://")
    }

    @Test("a store of a newer version, and a key that is not the store's")
    func newer() async throws {
        let location = try await SharedRedis.location()
        let store = try await RedisStore(location, configuration: Self.configuration)
        let client = RedisClient(try RedisDialing(location, patience: .seconds(2), environment: .live))
        _ = try await client.send(RedisCommand("HSET", location.prefix + "meta", "format", "2"), HashSlot(0))
        let url = "redis://\(location.endpoints[0])?prefix=\(location.prefix)"
        let error = await refusal(url)
        #expect(error?.code == .newerSchema && error?.message.contains("Remedy") == true)
        try await store.erase()
        _ = try await client.send(RedisCommand("SET", location.prefix + "meta", "x"), HashSlot(0))
        #expect(await refusal(url) != nil)
        _ = try await client.send(RedisCommand("DEL", location.prefix + "meta"), HashSlot(0))
    }

    @Test("TLS: a server that does not speak it, one nobody vouches for, and one that is as it should be")
    func tls() async throws {
        let single = try await SharedRedis.address()
        await expectRefusal("rediss://\(single)", .encryptionFailed)
        await expectRefusal("rediss://\(single)?ca=/nowhere.pem", .encryptionFailed, "ca=")

        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("semel-tls-\(UUID().uuidString.prefix(8))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let (certificate, secret) = (folder.appendingPathComponent("c.pem").path, folder.appendingPathComponent("k.pem").path)
        try await RedisServer.run(
            "/usr/bin/env",
            [
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
                "/CN=localhost",
                "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", secret, "-out", certificate,
            ])
        let port = Int.random(in: 10_000..<12_000)
        let server = try await RedisServer([
            "--tls-port", "\(port)", "--tls-cert-file", certificate, "--tls-key-file", secret, "--tls-auth-clients", "no",
        ])
        defer { withExtendedLifetime(server) {} }
        await expectRefusal("rediss://localhost:\(port)", .encryptionFailed, "ca=")
        for host in ["localhost", "127.0.0.1"] {
            let store = try await RedisStore(url: "rediss://\(host):\(port)?ca=\(certificate)", configuration: Self.configuration)
            #expect(try await store.granted(request(key(host))).kind == .first)
        }
    }

    @Test("durability is what the server's settings give, no more, and a change for the worse is told")
    func durability() async throws {
        let server = try await RedisServer(["--appendfsync", "always", "--repl-diskless-sync-delay", "0"])
        let store = try await RedisStore(url: server.url, configuration: Self.configuration)
        #expect(store.capabilities == StoreCapabilities(engine: "redis", durability: .durable, isTransactional: false, isAuthority: false))
        let policy = Policy(scene: "payments", effect: .unknown, minimum: .atMostOnce)
        #expect(try policy.assess(on: store.capabilities).level == .atMostOnce)
        let fenced = Policy(scene: "payments", effect: .queryable(inFlight: .seconds(30), isFenced: true))
        #expect(try fenced.assess(on: store.capabilities).level == .verified, "durable, and still never the only authority")

        try await server.command("CONFIG", "SET", "appendfsync", "everysec")
        await store.lookAtServers()
        let health = await store.health()
        #expect(!health.isReady && health.detail.contains("everysec") && health.detail.contains("Remedy"))
        let lower = try await RedisStore(url: server.url, configuration: Self.configuration)
        guard case .forgetful(let why) = lower.capabilities.durability else { throw ServerFailure(description: "durable with everysec") }
        #expect(why.contains("everysec"))
        #expect(throws: PolicyError.self) { try policy.assess(on: lower.capabilities) }

        try await server.command("CONFIG", "SET", "appendfsync", "always")
        await store.lookAtServers()
        #expect(await store.health().isReady)
        try await server.command("CONFIG", "SET", "appendonly", "no")
        let log = try await RedisStore(url: server.url, configuration: Self.configuration)
        #expect(log.capabilities.durability != .durable)
        try await server.command("CONFIG", "SET", "appendonly", "yes")

        let replica = try await RedisServer(["--replicaof", "127.0.0.1 \(server.port)"])
        var replicated = log
        for _ in 0..<200 {
            replicated = try await RedisStore(url: server.url, configuration: Self.configuration)
            if replicated.capabilities.durability != .durable { break }
            try await Task.sleep(for: .milliseconds(50))
        }
        guard case .forgetful(let lag) = replicated.capabilities.durability else {
            throw ServerFailure(description: "durable with a replica")
        }
        #expect(lag.contains("replica"))

        // WAIT confirms, and raises nothing.
        for _ in 0..<400 where try await !RedisServer.redisCLI(replica.port, "INFO", "replication").contains("master_link_status:up") {
            try await Task.sleep(for: .milliseconds(50))
        }
        let waiting = try await RedisStore(url: server.url + "?wait=1&waitTimeout=2000", configuration: Self.configuration)
        #expect(waiting.capabilities.durability != .durable)
        #expect(try await waiting.granted(request(key("confirmed"))).kind == .first)
        replica.signal(SIGSTOP)
        let impatient = try await RedisStore(url: server.url + "?wait=1&waitTimeout=50", configuration: Self.configuration)
        let error = await #expect(throws: StoreError.self) { _ = try await impatient.claim(request(key("unconfirmed"))) }
        #expect(error?.code == .indeterminate)
        replica.signal(SIGCONT)
    }

    @Test("a check reports, and changes nothing")
    func check() async throws {
        let location = try await SharedRedis.location()
        let report = try await RedisStore.check(location)
        #expect(report.format == nil && report.versions.count == 1 && report.durability != .durable)
        #expect(abs(report.clockOffset.microseconds) < 5_000_000)
        let store = try await RedisStore(location, configuration: Self.configuration)
        #expect(try await RedisStore.check(location).format == 1)
        try await store.erase()
        let cluster = try await RedisStore.check(try await SharedRedis.location(cluster: true))
        #expect(cluster.versions.count == 3)
    }

    @Test("live records never expire in Redis; tombstones and brief keys do, some time after their retention (H22)")
    func expiry() async throws {
        let location = try await SharedRedis.location()
        let time = SeenTime(isShared: true)
        let store = try await RedisStore(location, configuration: Self.configuration, time: time)
        let client = RedisClient(try RedisDialing(location, patience: .seconds(2), environment: .live))
        let keys = KeySpace(prefix: location.prefix)
        func remaining(_ id: OperationID) async throws -> Int64? {
            try await client.send(RedisCommand("PTTL", [keys.record(OperationReference(id))]), HashSlot(0)).integer
        }
        for (name, response, whole) in [("brief", 60, 600), ("long", 60, 86_400)] {
            let id = key(name)
            let grant = try await store.granted(request(id, retention: Retention(response: .seconds(response), key: .seconds(whole))))
            #expect(try await remaining(id) == -1)
            _ = try await store.apply(.suspend(reason: "lost"), to: id, token: grant.token)
            #expect(try await remaining(id) == -1)
            _ = try await store.apply(.complete(outcome("x")), to: id, token: grant.token)
        }
        let brief = try await remaining(key("brief")) ?? 0
        #expect(brief > 600_000 && brief <= 661_000, "\(brief)")
        #expect(try await remaining(key("long")) == -1)
        time.pass(.seconds(100), from: SystemStoreClock().now().retention)
        #expect(try await store.purge(limit: 100) == PurgeReport(outcomes: 2, keys: 0))
        let long = try await remaining(key("long")) ?? 0
        #expect(long > 86_400_000 - 5000 && long <= 86_461_000, "\(long)")
        #expect(try await store.claim(request(key("long"), 2)) == .expired)
        try await store.erase()
    }

    @Test("keys that expire are told, to whoever asks")
    func expirations() async throws {
        let server = try await RedisServer()
        var location = try RedisLocation(server.url)
        location.prefix = "mark:"
        let told = try await RedisExpirations.stream(from: location)
        try await server.command("SET", "other", "1", "PX", "1")
        try await server.command("SET", "mark:one", "1", "PX", "30")
        let name = await told.first { _ in true }
        #expect(name == Array("mark:one".utf8))
        try await server.command("CONFIG", "SET", "notify-keyspace-events", "")
        let error = await #expect(throws: StoreError.self) { _ = try await RedisExpirations.stream(from: location) }
        #expect(error?.code == .misconfigured && error?.message.contains("Ex") == true)
    }
}

extension Result {
    var failure: Failure? { if case .failure(let failure) = self { failure } else { nil } }
}
