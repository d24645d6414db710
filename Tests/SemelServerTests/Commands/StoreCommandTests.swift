import ChildProcesses
import Foundation
import NIOHTTP1
import SemelCore
import TestServers
import Testing

@testable import SemelServer

/// A store on a server, chosen by its URL.
enum ServerStore: CaseIterable {
    #if Postgres
    case postgres
    #endif
    #if MySQL
    case mysql
    #endif

    /// Hands out the URL of a place without tables, in the server of the whole run.
    func withPlace(_ body: (_ url: String) async throws -> Void) async throws {
        let name = "t_" + UUID().uuidString.lowercased().filter { $0 != "-" }
        switch self {
        #if Postgres
        case .postgres:
            let server = try await TestServer.url("SEMEL_TEST_POSTGRES", script: "start-postgres")
            try await body(server + "?schema=" + name)
            try await Self.run("psql", ["-X", "-q", server, "-c", "SET client_min_messages = warning", "-c", "DROP SCHEMA IF EXISTS \(name) CASCADE"])
        #endif
        #if MySQL
        case .mysql:
            let server = try await TestServer.url("SEMEL_TEST_MYSQL", script: "start-mariadb")
            let parts = try #require(URLComponents(string: server))
            let client = ["--no-defaults", "-h\(parts.host ?? "")", "-P\(parts.port ?? 0)", "-u\(parts.user ?? "")", "-e"]
            try await Self.run("mariadb", client + ["CREATE DATABASE \(name)"])
            try await body(server + "/" + name)
            try await Self.run("mariadb", client + ["DROP DATABASE \(name)"])
        #endif
        }
    }

    /// The same place by a user and a password that the server does not know.
    func foreign(_ url: String) -> String {
        let end = url.firstRange(of: "@")?.upperBound ?? url.startIndex
        return "\(url.prefix { $0 != ":" })://nobody:sesame@\(url[end...])"
    }

    private static func run(_ program: String, _ arguments: [String]) async throws {
        try await withTemporaryFolder { folder in
            let process = try ChildProcess(
                program: URL(fileURLWithPath: "/usr/bin/env"), [program] + arguments, in: URL(fileURLWithPath: folder))
            guard await process.end() == .code(0) else { throw ChildError("\(program) failed: \(process.errorOutput)") }
        }
    }
}

@Suite("A store on a server: checked, migrated and served from")
struct StoreCommandTests {
    private func semel(_ arguments: String...) async throws -> (code: ChildProcess.End, output: String, errors: String) {
        let output = Locked((code: ChildProcess.End.code(-1), output: "", errors: ""))
        try await withTemporaryFolder { folder in
            let process = try ChildProcess("semel", arguments, in: URL(fileURLWithPath: folder))
            let code = await process.end()
            output.withLock { $0 = (code, process.output, process.errorOutput) }
        }
        return output.withLock { $0 }
    }

    @Test("a place without tables is not usable, with the remedy; migrated it is, and a second time nothing is done", arguments: ServerStore.allCases)
    func migrates(_ store: ServerStore) async throws {
        try await store.withPlace { url in
            let before = try await semel("store", "check", url)
            #expect(before.code == .code(3))
            #expect(before.output.contains("not usable") && before.output.contains("semel store migrate"))
            let problem = try JSONValue(parsing: Array(try await semel("store", "check", url, "--format", "json").output.utf8))
            #expect(problem["usable"] == false && problem["problems"]?[0]?["code"] == "missing-schema", "\(problem)")

            let made = try await semel("store", "migrate", url)
            #expect(made.code == .code(0) && made.output.contains("it had 0"), "\(made)")
            let again = try await semel("store", "migrate", url)
            #expect(again.code == .code(0) && again.output.contains("already"), "\(again)")

            let after = try await semel("store", "check", url, "--format", "json")
            let report = try JSONValue(parsing: Array(after.output.utf8))
            #expect(after.code == .code(0))
            #expect(report["usable"] == true && report["problems"]?.array?.isEmpty == true, "\(report)")
            let facts = Dictionary(
                uniqueKeysWithValues: (report["facts"]?.array ?? []).map { ($0["name"]?.string ?? "", $0["value"]?.string ?? "") })
            #expect(facts["durability"] == "durable" && facts["level"] == "up to atomic", "\(facts)")
            #expect(facts["schema_version"].flatMap { Int($0) } ?? 0 > 0 && facts["server_version"]?.isEmpty == false, "\(facts)")
            #expect(facts["clock_offset"]?.hasSuffix("ms ahead of this machine's") == true, "\(facts)")
        }
    }

    @Test("a server that is not there ends with 3, a store without a server with 2; no message shows a password", arguments: ServerStore.allCases)
    func refuses(_ store: ServerStore) async throws {
        let port = try RefusingPort()
        try await store.withPlace { url in
            var parts = try #require(URLComponents(string: store.foreign(url)))
            parts.port = Int(port.number)
            let gone = try #require(parts.string)
            for command in ["check", "migrate"] {
                let unreachable = try await semel("store", command, gone)
                #expect(unreachable.code == .code(3), "\(unreachable)")
                #expect(unreachable.errors.contains("127.0.0.1:\(port.number)"), "\(unreachable)")
                #expect(!(unreachable.output + unreachable.errors).contains("sesame"))
            }
        }
        for command in ["check", "migrate"] {
            let none = try await semel("store", command, "sqlite:a.db")
            #expect(none.code == .code(2) && none.errors.contains("no server to ask"), "\(none)")
        }
    }

    @Test("a Redis is checked and has nothing to migrate, and serve keeps its answers there, at the level that it gives, killed or not")
    func redis() async throws {
        let place = try await TestServer.url("SEMEL_TEST_REDIS", script: "start-redis").replacing("redis://", with: "")
        let url = "redis://\(place)?prefix=t\(UUID().uuidString.prefix(8)):"
        let check = try await semel("store", "check", url)
        #expect(check.code == .code(0) && check.output.contains("bestEffort, unless the target deduplicates") && check.output.contains("appendfsync"), "\(check)")
        let migrate = try await semel("store", "migrate", url)
        #expect(migrate.code == .code(0) && migrate.output.contains("nothing to migrate"), "\(migrate)")

        let upstream = try await ObservabilityTests.upstream()
        try await withTemporaryFolder { folder in
            let server = try await SemelProcess(ObservabilityTests.configuration(upstream.port), store: url, in: folder)
            let first = try await server.pay("/pay/201", key: "redis-store")
            #expect(first.status == 201)
            #expect(await server.end(SIGKILL) == -SIGKILL)
            let again = try await SemelProcess(ObservabilityTests.configuration(upstream.port), store: url, in: folder)
            let replay = try await again.pay("/pay/201", key: "redis-store")
            #expect(replay.status == 201 && replay.isReplay && replay.headers.first(name: "Semel-Guarantee") == "bestEffort", "\(replay)")
            #expect(upstream.received.count == 1)
        }
    }

    @Test("serve without its tables ends with 3 and the remedy; with them it keeps its answers there, killed or not", arguments: ServerStore.allCases)
    func serves(_ store: ServerStore) async throws {
        let upstream = try await ObservabilityTests.upstream()
        try await store.withPlace { url in
            try await withTemporaryFolder { folder in
                let text = "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstore: \"\(url)\"\n"
                let file = folder + "/bare.yaml"
                try (text + ObservabilityTests.configuration(upstream.port)).write(toFile: file, atomically: true, encoding: .utf8)
                let refused = try await semel("serve", "--config", file)
                #expect(refused.code == .code(3), "\(refused)")
                #expect(refused.errors.contains("semel store migrate"), "\(refused.errors)")

                #expect(try await semel("store", "migrate", url).code == .code(0))
                let server = try await SemelProcess(ObservabilityTests.configuration(upstream.port), store: url, in: folder)
                #expect(try await server.get("/readyz").status == 200)
                // 32 at once of 8 keys: each is paid once.
                let answers = try await withThrowingTaskGroup(of: SemelProcess.Answer.self) { group in
                    for number in 0..<32 { group.addTask { try await server.pay("/pay/201", key: "server-store-\(number % 8)") } }
                    return try await group.reduce(into: []) { $0.append($1) }
                }
                #expect(answers.allSatisfy { $0.status == 201 || $0.status == 409 }, "\(Set(answers.map(\.status)))")
                #expect(upstream.received.count == 8)
                #expect(try await server.pay("/pay/201", key: "server-store-0", body: "{\"a\":1}").status == 422)
                #expect(await server.end(SIGKILL) == -SIGKILL)

                let again = try await SemelProcess(ObservabilityTests.configuration(upstream.port), store: url, in: folder)
                for number in 0..<8 {
                    let answer = try await again.pay("/pay/201", key: "server-store-\(number)")
                    #expect(answer.status == 201 && answer.isReplay)
                }
                #expect(upstream.received.count == 8)
                #expect(await again.end() == 0)
            }
        }
    }
}
