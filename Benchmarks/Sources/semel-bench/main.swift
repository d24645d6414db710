import Foundation

// semel-bench: every figure as a ratio against the engine's own limit, measured in the same run.
//
// usage: semel-bench [suite …]      suites: sqlite, http, mysql
let suites: [(name: String, run: () async throws -> Report)] = [
    ("sqlite", { try await SQLiteSuite().run() }),
    ("http", { try await HTTPSuite().run() }),
    ("mysql", { try await MySQLSuite().run() }),
]

let wanted = CommandLine.arguments.dropFirst()
if let unknown = wanted.first(where: { name in !suites.contains { $0.name == name } }) {
    print("There is no suite \"\(unknown)\"; there are: \(suites.map(\.name).joined(separator: ", "))")
    exit(2)
}
var isMet = true
for suite in suites where wanted.isEmpty || wanted.contains(suite.name) {
    print("== \(suite.name)")
    let report = try await suite.run()
    isMet = report.isMet && isMet
}
print(isMet ? "Every required figure is met." : "At least one required figure is missed.")
exit(isMet ? 0 : 1)
