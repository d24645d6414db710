import ChildProcesses
import Foundation
import NIOCore
import NIOPosix
import SemelCore
import Testing

@testable import SemelServer

/// The built program, run once.
private struct Run {
    var code: Int32
    var output: String
    var errors: String

    static func semel(_ arguments: String..., environment: [String: String] = [:]) async throws -> Run {
        try await all(arguments, environment: environment)
    }

    static func all(_ arguments: [String], environment: [String: String] = [:]) async throws -> Run {
        let folder = try Folder()
        let process = try ChildProcess("semel", arguments, environment: environment, in: folder.url)
        let code: Int32 =
            switch await process.end() {
            case .code(let code): code
            case .signal(let signal): -signal
            }
        return Run(code: code, output: process.output, errors: process.errorOutput)
    }
}

/// A folder of its own that goes away with its test.
private final class Folder {
    let url = FileManager.default.temporaryDirectory.appendingPathComponent("semel-\(UUID().uuidString)")

    init() throws { try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true) }
    deinit { try? FileManager.default.removeItem(at: url) }

    func write(_ text: String, _ name: String = "semel.yaml") throws -> String {
        let file = url.appendingPathComponent(name)
        try text.write(to: file, atomically: true, encoding: .utf8)
        return file.path
    }
}

@Suite("The commands, as built")
struct CommandTests {
    @Test("config check of a good file ends with 0, and shows every scene's level, horizon and reasons")
    func good() async throws {
        let folder = try Folder()
        let run = try await Run.semel("config", "check", folder.write(exampleConfiguration))
        #expect(run.code == 0)
        #expect(run.output.contains("payment.capture  POST /v1/payments/**  payments  enforce  atMostOnce (verified)  30d"))
        #expect(run.output.contains("Nothing is known about the target"))
        #expect(run.output.contains("usable, 1 scene\n"))
        #expect(!run.output.contains("\u{1B}"))
        #expect(run.errors.isEmpty)
    }

    @Test("config check of a bad file ends with 2, and shows every mistake with its line and the remedy")
    func bad() async throws {
        let folder = try Folder()
        let path = try folder.write("listen: 8080\nstore: mongodb://x\ncolour: red\n")
        let run = try await Run.semel("config", "check", path)
        #expect(run.code == 2)
        let lines = run.output.split(separator: "\n")
        #expect(lines.count == 4)
        #expect(lines[0] == "\(path):1:9: error: listen: `8080` is a port without a host. Remedy: write 127.0.0.1:8080.")
        #expect(lines[1].hasPrefix("\(path):2:8: error: store: `mongodb://x` is not a store."))
        #expect(lines[2].hasPrefix("\(path):3:1: error: colour: there is no such key."))
        #expect(lines[3].hasSuffix("not usable, 3 mistakes"))
    }

    @Test("config check writes JSON, and counts the environment")
    func json() async throws {
        let folder = try Folder()
        let path = try folder.write(exampleConfiguration)
        let good = try await Run.semel("config", "check", path, "--format", "json", environment: ["SEMEL_SCENES_PAYMENT_CAPTURE_EFFECT": "deduplicates"])
        let document = try JSONValue(parsing: Array(good.output.utf8))
        #expect(good.code == 0)
        #expect(document["usable"]?.bool == true)
        #expect(document["scenes"]?[0]?["level"]?.string == "deduplicatedByTarget")
        #expect(document["scenes"]?[0]?["effectively_once"]?.bool == true)

        let bad = try await Run.semel("config", "check", path, "--format", "json", environment: ["SEMEL_LISTEN": "1"])
        let mistake = try JSONValue(parsing: Array(bad.output.utf8))["diagnostics"]?[0]
        #expect(bad.code == 2)
        #expect(mistake?["variable"]?.string == "SEMEL_LISTEN")
        #expect(mistake?["remedy"]?.string == "write 127.0.0.1:1")
    }

    @Test("a missing file ends with 2")
    func missing() async throws {
        let run = try await Run.semel("config", "check", "/no/such/file")
        #expect(run.code == 2)
        #expect(run.output.contains("No such file"))
    }

    @Test("version says which program it is")
    func version() async throws {
        #expect(try await Run.semel("version").output.hasPrefix("semel \(Version.number) ("))
        let json = try await Run.semel("version", "--format", "json")
        #expect(json.code == 0)
        #expect(try JSONValue(parsing: Array(json.output.utf8))["version"]?.string == Version.number)
    }

    @Test(
        "wrong usage ends with 2 and a message",
        arguments: [
            ["nonsense"], ["config", "check"], ["version", "--format", "xml"], ["ops", "show", "op_1"], ["ops", "list", "--limit", "0"],
            ["ops", "list", "--older-than", "3600"], ["ops", "forget", "op_00000000000000000000000000000000", "--actor", "me"],
            ["ops", "forget", "op_00000000000000000000000000000000", "--reason", "why"],
            ["ops", "resolve", "op_00000000000000000000000000000000", "--as", "maybe", "--actor", "me", "--reason", "why"],
            ["ops", "resolve", "op_00000000000000000000000000000000", "--as", "not-applied", "--status", "200", "--actor", "me", "--reason", "why"],
            ["audit", "verify", "--hash", "00"], ["ops", "list", "--url", "nonsense"], ["ops", "list", "--url", "http://192.0.2.1", "--token", "t"],
            ["serve", "--config", "/no/such/file"], ["serve", "--recovery", "hope"],
        ])
    func usage(_ arguments: [String]) async throws {
        let run = try await Run.all(arguments)
        #expect(run.code == 2)
        #expect(!run.errors.isEmpty)
    }

    @Test("help is no mistake")
    func help() async throws {
        let run = try await Run.semel("--help")
        #expect(run.code == 0)
        #expect(run.output.contains("serve"))
        for command in ["prove", "outbox", "dead", "bench"] { #expect(!run.output.contains("  \(command) ")) }
    }

    @Test("a decision about what has changed since changes nothing, says so, and ends with 1")
    func staleDecision() async throws {
        let folder = try Folder()
        let server = try await SemelProcess("", in: folder.url.path)
        func lost() async throws -> JSONValue {
            let claim: JSONValue = ["scope": "orders", "key": "k", "fingerprint": "f", "lease": "30s"]
            let token = try #require(try await server.post("/v1/claim", claim).json["token"])
            _ = try await server.post("/v1/suspend", ["scope": "orders", "key": "k", "token": token, "reason": "no answer"])
            return try #require(try await server.get("/v1/operations?state=uncertain").json["operations"]?[0])
        }
        let seen = try await lost()
        let (operation, epoch) = (try #require(seen["operation"]?.string), "\(seen["epoch"] ?? .null)")
        func decide(_ reason: String) async throws -> Run {
            try await Run.semel(
                "ops", "resolve", operation, "--as", "not-applied", "--epoch", epoch, "--actor", "ada", "--reason", reason, "--url", server.admin)
        }
        let first = try await decide("asked the bank")
        #expect(first.code == 0, "\(first.errors)")
        let again = try await lost()
        #expect(again["epoch"] != seen["epoch"] && again["operation"] == seen["operation"])
        let stale = try await decide("clicked twice")
        #expect(stale.code == 1)
        #expect(stale.errors.contains("409") && stale.errors.contains("Nothing was changed") && stale.errors.contains(epoch))
        let forgetting = try await Run.semel(
            "ops", "forget", operation, "--epoch", epoch, "--actor", "ada", "--reason", "clicked twice", "--url", server.admin)
        #expect(forgetting.code == 1 && forgetting.errors.contains("Nothing was changed"))
        #expect(try await server.get("/v1/operations/\(operation)").json["state"] == "uncertain")
        #expect(try await server.get("/v1/audit").json["entries"]?.array?.count == 1)
        #expect(await server.end() == 0)
    }

    @Test("a control plane that cannot be reached ends with 3")
    func unreachable() async throws {
        let port = try RefusingPort()
        for command in [["ops", "list"], ["audit", "verify"]] {
            let run = try await Run.all(command + ["--url", "http://127.0.0.1:\(port.number)"])
            #expect(run.code == 3)
            #expect(run.errors.contains("cannot be reached"))
        }
    }

    @Test("serve with a mistake in its configuration ends with 2 and says every one")
    func serveMistakes() async throws {
        let folder = try Folder()
        let run = try await Run.semel("serve", "--config", folder.write("drain: 30\nlisten: 1\n"))
        #expect(run.code == 2)
        #expect(run.errors.contains(":1:8: error: drain:") && run.errors.contains(":2:9: error: listen:"))
    }

    @Test("serve with a database that cannot be written, or is damaged, ends with the code, the place and the remedy")
    func serveDatabase() async throws {
        let folder = try Folder()
        let head = "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\n"
        let nowhere = try await Run.semel("serve", "--config", folder.write(head + "store: sqlite:\(folder.url.path)/no/such/folder/a.db\n"))
        #expect([2, 3].contains(nowhere.code))
        #expect(nowhere.errors.contains("no/such/folder"))
        let damaged = try folder.write(String(repeating: "this is no database ", count: 400), "damaged.db")
        let run = try await Run.semel("serve", "--config", folder.write(head + "store: sqlite:\(damaged)\n"))
        // It was never ours, so it stays as it is.
        #expect(run.code == 2)
        #expect(run.errors.contains("damaged.db"))
    }

    @Test("serve on a port in use ends with 3 and names the address")
    func servePort() async throws {
        let channel = try await ServerBootstrap(group: .singletonMultiThreadedEventLoopGroup).bind(host: "127.0.0.1", port: 0).get()
        let port = channel.localAddress?.port ?? 0
        let folder = try Folder()
        let run = try await Run.semel("serve", "--config", folder.write("listen: 127.0.0.1:0\nadmin: 127.0.0.1:\(port)\nstore: memory\n"))
        try await channel.close()
        #expect(run.code == 3)
        #expect(run.errors.contains("127.0.0.1:\(port)"))
    }
}
