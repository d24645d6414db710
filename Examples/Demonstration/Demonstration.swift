import ArgumentParser
import Foundation
import UnixSignals

/// The program behind `make run`: a storm of repeated, concurrent and interrupted payments through the gateway, one
/// `kill -9` in its midst, and a ledger that compares what clients were told with what the service did.
@main
struct Demonstration: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demonstration",
        abstract: "A storm of repeated payments through the gateway, a kill -9, and the ledger.",
        discussion: """
            Exits with 1 when a single effect is doubled or lost, or when the storm was too weak to prove anything. With KEEP=1 in \
            the environment, or at a terminal, the gateway and its console stay up until Ctrl-C; KEEP=1 keeps the files, too.
            """
    )

    @Option(help: "How many requests clients mean to send; their retries come on top.")
    var requests = 6_000

    @Option(help: "How many payments, each with its own key.")
    var keys = 600

    @Option(help: "The seed of the faults, to have the same ones again; drawn when absent.")
    var seed: UInt64 = .random(in: 1...999_999)

    @Option(help: "How many requests are in flight at most.")
    var concurrency = 128

    @Option(help: "The program semel; the one beside this program when absent.")
    var semel: String?

    @Option(help: "The program payments; the one beside this program when absent.")
    var payments: String?

    @Option(help: "Storm a gateway that runs already, instead of starting and killing one (with --payments-url).")
    var gatewayURL: String?

    @Option(help: "The payments service behind the gateway that runs already, for the ledger.")
    var paymentsURL: String?

    @Option(help: "The path to post payments to.")
    var path = "/v1/payments"

    func validate() throws {
        guard keys > 0, requests >= keys else { throw ValidationError("--requests must be at least --keys, and --keys at least 1.") }
        guard concurrency > Plan.surgeSize else {
            throw ValidationError("--concurrency must be more than \(Plan.surgeSize).")
        }
        guard (gatewayURL == nil) == (paymentsURL == nil) else {
            throw ValidationError("--gateway-url and --payments-url belong together.")
        }
    }

    func run() async throws {
        let code = try await withThrowingTaskGroup(of: Int32?.self) { group in
            group.addTask { try await perform() }
            group.addTask {
                // Ctrl-C and the like end the work, which then leaves neither processes nor files behind.
                for await _ in await UnixSignalsSequence(trapping: .sigint, .sigterm, .sighup) { return nil }
                return nil
            }
            // Whichever ends first ends the other.
            var exitCode: Int32 = 130
            for try await code in group {
                group.cancelAll()
                if let code { exitCode = code }
            }
            return exitCode
        }
        if code != 0 { throw ExitCode(code) }
    }

    /// Everything, from the start of the processes to their end; the exit code.
    private func perform() async throws -> Int32 {
        let display = Display()
        let stage = try Stage(keepsFiles: Self.isKept)
        let storm = Storm(plan: Plan(requests: requests, keys: keys, seed: seed), concurrency: concurrency, display: display)
        var problems: [String]
        var hasLedger = false
        do {
            let ledger = try await ledger(stage, storm, display)
            hasLedger = true
            display.say(ledger.table(seed: seed))
            problems = ledger.problems
            if problems.isEmpty { display.say("Each of the \(keys) payments took effect exactly once.") }
        } catch {
            problems = ["\(error)"]
        }
        await storm.close()
        if Task.isCancelled {
            await stage.tearDown()
            display.say("interrupted")
            return 130
        }

        if !problems.isEmpty {
            stage.keepFiles()
            display.say((["", "FAILED"] + problems.map { "  ✘ \($0)" }).joined(separator: "\n"))
            let logs = gatewayURL == nil ? "The logs are in \(stage.directory). " : ""
            display.say("\(logs)The same faults again: --seed \(seed)")
        }
        if gatewayURL == nil, hasLedger, Self.isKept || display.isTerminal { await stage.stayUp(path: path, display) }
        await stage.tearDown()
        return problems.isEmpty ? 0 : 1
    }

    private func ledger(_ stage: Stage, _ storm: Storm, _ display: Display) async throws -> Ledger {
        if let gatewayURL, let paymentsURL {
            return try await runAgainst(Target(gateway: gatewayURL, path: path, payments: paymentsURL), storm)
        }
        return try await runWithCrash(stage, storm, display)
    }

    private static var isKept: Bool { ProcessInfo.processInfo.environment["KEEP"].map { !$0.isEmpty && $0 != "0" } ?? false }

    /// The demonstration proper: starts both processes, storms, kills the gateway midway, starts it again.
    private func runWithCrash(_ stage: Stage, _ storm: Storm, _ display: Display) async throws -> Ledger {
        let programs = try Programs(semel: semel, payments: payments)
        try await stage.start(programs, path: path)
        let target = stage.target(path: path)
        display.say("payments at \(target.payments), behind semel at \(target.gateway), console at \(stage.consoleURL)")
        let crash = Crash(stage: stage, display: display)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await stage.watch() }
            group.addTask {
                try await storm.blow(target, crash: crash, controlPlane: stage.controlPlane)
                try await storm.awaitResolution(by: stage.controlPlane)
                try await storm.retryAll(target)
            }
            // The storm ends alone; the watch ends only by throwing.
            defer { group.cancelAll() }
            try await group.next()
        }
        return try await storm.ledger(from: target, inFlightAtKill: crash.inFlight ?? 0)
    }

    /// The same storm on a gateway, or a service, that somebody else runs: nobody is killed.
    private func runAgainst(_ target: Target, _ storm: Storm) async throws -> Ledger {
        try await storm.blow(target, crash: nil, controlPlane: nil)
        try await storm.retryAll(target)
        return try await storm.ledger(from: target, inFlightAtKill: nil)
    }
}
