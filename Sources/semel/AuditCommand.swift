import ArgumentParser
import SemelCore

struct AuditCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "audit", abstract: "The log of what operators did.", subcommands: [Verify.self, Show.self, Export.self])

    struct Verify: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Check that every entry follows from the one before it.",
            discussion: "With an entry's sequence and hash, exported before, a log that was cut off or written anew as a whole is noticed too.")

        @Option(help: "The sequence number of an entry that must be there.")
        var sequence: Int64?
        @Option(help: "Its hash.")
        var hash: String?
        @OptionGroup var controlPlane: ControlPlaneOptions
        @OptionGroup var output: OutputOptions

        func validate() throws {
            if (sequence == nil) != (hash == nil) { throw ValidationError("--sequence and --hash are given together.") }
        }

        func run() async throws {
            let document = try await controlPlane.withClient {
                try await $0.get("/v1/audit/verify", [("sequence", sequence.map(String.init)), ("hash", hash)])
            }
            let isIntact = document["intact"]?.bool == true
            let terminal = Terminal.standardOutput
            if output.format == .json {
                terminal.write("\(document)\n")
            } else if isIntact {
                terminal.write("\(terminal.styled("whole", .green)): \(document.text("entries")) entries, the last with hash \(document.text("last_hash"))\n")
            } else if document["expected_found"]?.bool == false {
                terminal.write("\(terminal.styled("broken", .red)): entry \(sequence ?? 0) is not there with this hash\n")
            } else {
                terminal.write("\(terminal.styled("broken", .red)) at entry \(document.text("broken_at")): it does not follow from the one before it\n")
            }
            if !isIntact { throw CommandFailure(.finding) }
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Entries, oldest first.")

        @Option(help: "Only those after this sequence number.")
        var after: Int64 = 0
        @Option(help: "The most to show.")
        var limit = 100
        @OptionGroup var controlPlane: ControlPlaneOptions
        @OptionGroup var output: OutputOptions

        func validate() throws {
            guard (1...1000).contains(limit) else { throw ValidationError("--limit \(limit) is not between 1 and 1000.") }
            guard after >= 0 else { throw ValidationError("--after \(after) is below 0.") }
        }

        func run() async throws {
            let page = try await controlPlane.withClient { try await $0.get("/v1/audit", [("after", String(after)), ("limit", String(limit))]) }
            let terminal = Terminal.standardOutput
            if output.format == .json {
                terminal.write("\(page)\n")
            } else {
                var table = Table("SEQUENCE", "TIME", "ACTOR", "ACTION", "OPERATION", "SCENE", "DETAIL", "REASON")
                for entry in page["entries"]?.array ?? [] {
                    table.add(
                        .init(entry.text("sequence")), .init(entry.text("time")), .init(entry.text("actor"), .bold), .init(entry.text("action")),
                        .init(entry.text("operation")), .init(entry.text("scene")), .init(entry.text("detail")), .init(entry.text("reason")))
                }
                terminal.write(table.text(terminal))
            }
            try checkIntact(page)
        }
    }

    struct Export: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "The whole log, one JSON object a line, with the hashes.")

        @OptionGroup var controlPlane: ControlPlaneOptions

        func run() async throws {
            try await controlPlane.withClient { client in
                var last: Int64 = 0
                while true {
                    let page = try await client.get("/v1/audit", [("after", String(last)), ("limit", "1000")])
                    let entries = page["entries"]?.array ?? []
                    for entry in entries { Terminal.standardOutput.write("\(entry)\n") }
                    try checkIntact(page)
                    guard let sequence = entries.last?["sequence"]?.integer, Int64(sequence) > last else { return }
                    last = Int64(sequence)
                }
            }
        }
    }
}

private func checkIntact(_ page: JSONValue) throws {
    guard page["intact"]?.bool == true else {
        throw CommandFailure(.finding, "The audit log is broken at entry \(page.text("broken_at")): it does not follow from the one before it.")
    }
}
