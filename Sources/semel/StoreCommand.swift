import ArgumentParser
import Semel
import SemelCore
import SemelMySQL
import SemelPostgres
import SemelRedis
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
            let versions: (from: Int, to: Int)?
            do throws(StoreError) { versions = try await migrated() } catch { throw CommandFailure(error) }
            if isRedis(url) { return Terminal.standardOutput.write("A store in Redis has no tables: there is nothing to migrate.\n") }
            guard let (from, to) = versions else { throw noServer(url) }
            Terminal.standardOutput.write(from == to ? "The schema has version \(to) already.\n" : "The schema is at version \(to) now, it had \(from).\n")
        }

        /// - Returns: the version found and the version now; `nil` for a store that this build has not.
        private func migrated() async throws(StoreError) -> (from: Int, to: Int)? {
            #if Postgres
            if isPostgres(url) { return try await PostgresStore.migrate(url) }
            #endif
            #if MySQL
            if isMySQL(url) { return try await MySQLStore.migrate(url) }
            #endif
            return nil
        }
    }
}

private func isPostgres(_ url: String) -> Bool { url.hasPrefix("postgres://") || url.hasPrefix("postgresql://") }

private func isMySQL(_ url: String) -> Bool { url.hasPrefix("mysql://") || url.hasPrefix("mariadb://") }

private func isRedis(_ url: String) -> Bool { ["redis", "rediss", "redis+cluster", "rediss+cluster"].contains(url.prefix { $0 != ":" }) }

private func noServer(_ url: String) -> CommandFailure {
    let scheme = String(url.prefix { $0 != ":" })
    if isPostgres(url) || isMySQL(url) {
        return CommandFailure(.usage, "this build of semel has no \(scheme) store: build it with `make build`, which takes every optional part")
    }
    return CommandFailure(.usage, "there is no server to ask for a store \(scheme): the URL must begin with postgres://, mysql://, redis:// or redis+cluster:// (sqlite and memory need no server)")
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
        do throws(StoreError) {
            guard let report = try await Self.look(at: url) else { throw StoreError(.misconfigured, noServer(url).message) }
            self = report
        } catch { throw CommandFailure(error) }
    }

    /// - Returns: `nil` for a store that this build has not, or that has no server.
    private static func look(at url: String) async throws(StoreError) -> StoreReport? {
        if isRedis(url) {
            let found = try await RedisStore.check(try RedisLocation(url))
            return StoreReport(
                found.location, "Redis " + found.versions.joined(separator: ", "), found.durability, found.format, found.clockOffset, [],
                level: "up to verified; deduplicatedByTarget where the target deduplicates")
        }
        #if Postgres
        if isPostgres(url) {
            let found = try await PostgresStore.inspect(url)
            return StoreReport(
                try PostgresStore.place(of: url), "PostgreSQL \(found.serverVersion)", found.durability, found.schemaVersion, found.clockOffset, found.problems)
        }
        #endif
        #if MySQL
        if isMySQL(url) {
            let found = try await MySQLStore.inspect(url)
            return StoreReport(
                try MySQLStore.place(of: url), found.serverVersion, found.durability, found.schemaVersion, found.clockOffset, found.problems)
        }
        #endif
        return nil
    }

    private init(
        _ place: String, _ server: String, _ durability: StoreCapabilities.Durability, _ schema: Int?, _ offset: Duration, _ problems: [StoreError],
        level best: String = "up to atomic"
    ) {
        let (durability, level) =
            switch durability {
            case .durable: ("durable", best)
            case .forgetful(let how): ("may lose what it acknowledged: \(how)", "bestEffort, unless the target deduplicates")
            }
        self.place = place
        self.problems = problems
        facts = [
            ("Server", "server_version", server), ("Durability", "durability", durability), ("Level", "level", level),
            ("Schema", "schema_version", schema.map(String.init) ?? "none"), ("Clock", "clock_offset", "\(offset / .milliseconds(1)) ms ahead of this machine's"),
        ]
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
