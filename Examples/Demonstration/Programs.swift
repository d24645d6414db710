import Foundation

/// Where the programs of the demonstration are: beside its own, unless said otherwise.
struct Programs: Sendable {
    let semel: String
    let payments: String

    init(semel: String?, payments: String?) throws {
        let own = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        let directory = URL(fileURLWithPath: own).deletingLastPathComponent()
        func path(_ name: String, _ given: String?) throws -> String {
            let path = given ?? directory.appendingPathComponent(name).path
            guard FileManager.default.isExecutableFile(atPath: path) else {
                throw Failure("\(path) is no program; build it (swift build --product \(name)) or name it with --\(name)")
            }
            return path
        }
        self.semel = try path("semel", semel)
        self.payments = try path("payments", payments)
    }
}
