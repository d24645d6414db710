import ArgumentParser
import SemelServer

@main
struct SemelCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "semel", abstract: "Makes every write take effect exactly once.",
        discussion: "Exit codes: 0 fine, 1 a finding, 2 wrong usage or configuration, 3 something needed is unreachable.",
        version: Version.number,
        subcommands: [ServeCommand.self, OperationsCommand.self, AuditCommand.self, ConfigurationCommand.self, StoreCommand.self, VersionCommand.self])

    /// As ArgumentParser's own, with our exit codes: its usage errors are 64.
    static func main() async {
        do {
            var command = try await asyncParseAsRoot()
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch let failure as CommandFailure {
            if !failure.message.isEmpty { Terminal.standardError.write("semel: \(Terminal.printable(failure.message, keepsLines: true))\n") }
            Terminal.exit(failure.code)
        } catch {
            let message = fullMessage(for: error)
            guard exitCode(for: error).isSuccess else {
                Terminal.standardError.write(message + "\n")
                Terminal.exit(.usage)
            }
            // Help and version were asked for.
            Terminal.standardOutput.write(message + "\n")
        }
    }
}

/// How a command ended that did not end well.
struct CommandFailure: Error {
    enum Code: Int32 {
        /// Something was found that should not be.
        case finding = 1
        /// What was asked for is wrong.
        case usage = 2
        /// Something that is needed cannot be reached.
        case unreachable = 3
    }

    var code: Code
    /// Empty when everything has been said.
    var message: String

    init(_ code: Code, _ message: String = "") {
        self.code = code
        self.message = message
    }
}

enum OutputFormat: String, ExpressibleByArgument, CaseIterable {
    case text, json
}

struct OutputOptions: ParsableArguments {
    @Option(help: "How to write the answer: text or json.")
    var format = OutputFormat.text
}
