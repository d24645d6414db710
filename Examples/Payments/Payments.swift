import ArgumentParser
import Foundation
import HTTPTypes
import Hummingbird
import Logging

/// The program: a small payments service with its own database, the upstream of the demonstration and of the crash tests.
///
/// `POST /v1/payments` applies its effect at every call and never looks at the `Idempotency-Key`: a service as most are.
/// Put Semel in front of it, and the ledger counts one effect per key, however often clients retry.
@main
struct Payments: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "payments",
        abstract: "A payments service whose effects can be counted. It does not deduplicate: that is what stands in front of it for."
    )

    @Option(help: "The address to listen on.")
    var host = "127.0.0.1"

    @Option(help: "The port to listen on; 0 takes a free one, which the line \"ready payments …\" tells.")
    var port = 0

    @Option(help: "The database file, created when absent.")
    var database: String

    @Option(help: "How long each payment takes after its effect, before its answer, such as 5ms.")
    var latency = Pause.zero

    @Option(help: "The request field that carries a key derived for this service; stored beside the client's.")
    var derivedKeyHeader = "Semel-Derived-Key"

    @Flag(help: "Obey the Demo-… request fields (latency, failures, dropped connections, large and streamed answers).")
    var faults = false

    func run() async throws {
        guard let derivedKeyField = HTTPField.Name(derivedKeyHeader) else {
            throw ValidationError("--derived-key-header: \"\(derivedKeyHeader)\" is no field name.")
        }
        var logger = Logger(label: "payments")
        logger.logLevel = .warning

        let writer = try Writer(path: database)
        let service = PaymentsService(
            ledger: Ledger(writer: writer),
            latency: latency.duration,
            derivedKeyField: derivedKeyField,
            obeysFaults: faults
        )
        let application = Application(
            router: service.router(),
            configuration: .init(address: .hostname(host, port: port), backlog: 1024, reuseAddress: true),
            onServerRunning: { channel in
                let address = "\(self.host):\(channel.localAddress?.port ?? self.port)"
                print("ready payments \(address) pid \(ProcessInfo.processInfo.processIdentifier)")
                // Whoever started this process reads the line through a pipe, which is buffered.
                fflush(nil)
            },
            logger: logger
        )
        do {
            // SIGTERM and SIGINT stop accepting, let requests under way end, then return.
            try await application.runService()
        } catch {
            await writer.close()
            throw error
        }
        await writer.close()
    }
}
