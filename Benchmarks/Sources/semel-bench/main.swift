import Foundation

// semel-bench: every figure as a ratio against the engine's own limit, measured in the same run; memory in MiB.
//
// usage: semel-bench [suite …] [--duration SECONDS]      suites: sqlite, postgres, mysql, redis, http, gateway, memory
//
// The duration is that of the memory suite's load; 600 for a figure to rely on.
var arguments = Array(CommandLine.arguments.dropFirst())
if arguments == ["late-service"] {
    try await runLateService()
    exit(0)
}
var duration = 60
if let option = arguments.firstIndex(of: "--duration") {
    guard option + 1 < arguments.count, let seconds = Int(arguments[option + 1]), seconds >= 10 else {
        print("--duration takes a number of seconds, at least 10")
        exit(2)
    }
    duration = seconds
    arguments.removeSubrange(option...(option + 1))
}
let loadDuration = duration
let suites: [(name: String, run: () async throws -> Report)] = [
    ("sqlite", { try await SQLiteSuite().run() }),
    ("postgres", { try await PostgresSuite().run() }),
    ("redis", { try await RedisSuite().run() }),
    ("http", { try await HTTPSuite().run() }),
    ("gateway", { try await GatewaySuite().run() }),
    ("memory", { try await MemorySuite(duration: loadDuration).run() }),
    ("mysql", { try await MySQLSuite().run() }),
]

let wanted = arguments
if let unknown = wanted.first(where: { name in !suites.contains { $0.name == name } }) {
    print("There is no suite \"\(unknown)\"; there are: \(suites.map(\.name).joined(separator: ", "))")
    exit(2)
}
var isMet = true
for suite in suites where wanted.isEmpty || wanted.contains(suite.name) {
    print("== \(suite.name)")
    do {
        let report = try await suite.run()
        isMet = report.isMet && isMet
    } catch {
        print("   FAILED \(error)")
        isMet = false
    }
}
print(isMet ? "Every required figure is met." : "At least one required figure is missed.")
exit(isMet ? 0 : 1)
