import ArgumentParser
import Semel
import SemelCore
import SemelPostgres
import SemelServer

struct StoreCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "store", abstract: "About a store's server, before anything is entrusted to it.", subcommands: [Check.self, Migrate.self])

    struct Check: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "check", abstract: "Whether the server can be reached, its version, durability, schema and clock; changes nothing.",
            discussion: "Exit code 3 when the store could not run there.")

        @Argument(help: "The store's URL, as in the configuration.")
        var url: String

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let report = try await StoreReport(url)
            let terminal = Terminal.standardOutput
            terminal.write(output.format == .json ? "\(report.document)\n" : report.text(terminal))
            if !report.problems.isEmpty { throw CommandFailure(.unreachable) }
        }
    }

    struct Migrate: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "migrate", abstract: "Makes the store's tables, or brings older ones to this version, in one transaction.")

        @Argument(help: "The store's URL, as in the configuration.")
        var url: String

        func run() async throws {
            #if Postgres
            if isPostgres(url) {
                do throws(StoreError) {
                    let (from, to) = try await PostgresStore.migrate(url)
                    Terminal.standardOutput.write(from == to ? "The schema has version \(to) already.\n" : "The schema is at version \(to) now, it had \(from).\n")
                    return
                } catch { throw CommandFailure(error) }
            }
            #endif
            throw noServer(url)
        }
    }
}

private func isPostgres(_ url: String) -> Bool { url.hasPrefix("postgres://") || url.hasPrefix("postgresql://") }

private func noServer(_ url: String) -> CommandFailure {
    let scheme = String(url.prefix { $0 != ":" })
    return CommandFailure(.usage, "there is no server to ask for a store \(scheme): the URL must begin with postgres:// (sqlite and memory need no server)")
}

extension CommandFailure {
    init(_ error: StoreError) { self.init(error.code == .misconfigured ? .usage : .unreachable, error.message) }
}

/// What a look at a server told.
private struct StoreReport {
    var place: String
    var facts: [(name: String, key: String, value: String)]
    var problems: [StoreError]

    init(_ url: String) async throws {
        #if Postgres
        guard isPostgres(url) else { throw noServer(url) }
        do throws(StoreError) {
            place = try PostgresStore.place(of: url)
            let found = try await PostgresStore.inspect(url)
            let (durability, level) =
                switch found.durability {
                case .durable: ("durable", "up to atomic")
                case .forgetful(let how): ("may lose what it acknowledged: \(how)", "bestEffort, unless the target deduplicates")
                }
            facts = [
                ("Server", "server_version", "PostgreSQL \(found.serverVersion)"), ("Durability", "durability", durability), ("Level", "level", level),
                ("Schema", "schema_version", found.schemaVersion.map(String.init) ?? "none"), ("Clock", "clock_offset", "\(found.clockOffset / .milliseconds(1)) ms ahead of this machine's"),
            ]
            problems = found.problems
        } catch { throw CommandFailure(error) }
        #else
        throw noServer(url)
        #endif
    }

    func text(_ terminal: Terminal) -> String {
        var table = Table("STORE", "\(place)")
        for fact in facts { table.add(.init(fact.name), .init(fact.value)) }
        let verdict = problems.isEmpty ? terminal.styled("usable", .green) : terminal.styled("not usable", .red)
        return table.text(terminal) + problems.map { "  \(Terminal.printable($0.message))\n" }.joined() + "\(Terminal.printable(place)): \(verdict)\n"
    }

    var document: JSONValue {
        [
            "store": .string(place), "usable": .bool(problems.isEmpty),
            "facts": .array(facts.map { ["name": .string($0.key), "value": .string($0.value)] }),
            "problems": .array(problems.map { ["code": .string($0.code.description), "message": .string($0.message)] }),
        ]
    }
}
