import ArgumentParser
import CMalloc
import Foundation
import SemelServer

struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve", abstract: "Run the gateway, the claims API and the control plane.",
        discussion: """
            Ends on SIGTERM or SIGINT, after the requests in flight. Reads its configuration again on SIGHUP and when the file \
            changes; every key is also set by an environment variable, such as SEMEL_LISTEN or SEMEL_SCENES_PAYMENT_CAPTURE_LEASE.
            """)

    @Option(help: "The configuration file.")
    var config = ProcessInfo.processInfo.environment["SEMEL_CONFIG"] ?? "semel.yaml"

    @Option(
        help: ArgumentHelp(
            "When the database file is not the one that was here last: refuse, acceptRestored (a backup was put back) or startNew (it is lost).",
            discussion: "Keys that the file does not know will run again. Decide it for one start; do not leave it in a unit file."))
    var recovery = Server.Recovery.refuse

    func run() async throws {
        #if canImport(Glibc)
        // One heap a processor: the library's default of eight keeps freed memory in each of them.
        mallopt(M_ARENA_MAX, CInt(clamping: ProcessInfo.processInfo.activeProcessorCount))
        #endif
        do {
            let server = try await Server.open(file: config, variables: ProcessInfo.processInfo.environment, recovery: recovery)
            let services = try await server.services { listen, admin in
                // For whoever started this process: what was port 0 is known now.
                let line = "ready semel \(listen) admin \(admin) pid \(ProcessInfo.processInfo.processIdentifier)\n"
                FileHandle.standardOutput.write(Data(line.utf8))
            }
            try await server.run(services)
        } catch {
            let error = StartupError(error)
            throw CommandFailure(error.exitCode == .configuration ? .usage : .unreachable, error.description)
        }
    }
}

extension Server.Recovery: ExpressibleByArgument {}
