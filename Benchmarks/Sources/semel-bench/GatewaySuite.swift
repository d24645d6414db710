import Foundation

/// The gateway with a scene in force against the same gateway with the scene off: the program itself, in a process of its
/// own, between `wrk` and a service that answers every request at once.
struct GatewaySuite {
    private let folder: String
    private var report = Report()

    init() throws {
        folder = (ProcessInfo.processInfo.environment["SEMEL_BENCH_FOLDER"] ?? FileManager.default.currentDirectoryPath) + "/.bench-gateway-\(getpid())"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    }

    consuming func run() async throws -> Report {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let service = try await Service.start()
        try await measure("memory", store: "memory", connections: 64, service: service.port)
        try await measure("SQLite", store: "sqlite:\(folder)/gateway.db", connections: HTTPSuite.manyConnections, service: service.port)
        try await service.stop()
        return report
    }

    private mutating func measure(_ name: String, store: String, connections: Int, service: Int) async throws {
        let gateway = try Program.gateway(
            """
            listen: 127.0.0.1:0
            admin: 127.0.0.1:0
            store: \(store)
            log: { level: error }
            upstreams:
              service: { url: "http://127.0.0.1:\(service)", connections: 1024 }
            scenes:
              - { name: off, match: { methods: [POST], path: /off }, upstream: service, effect: unknown, scope: none, mode: "off" }
              - { name: on, match: { methods: [POST], path: /on }, upstream: service, effect: unknown, scope: none }
            """, folder: folder)
        defer { gateway.end() }
        let generator = LoadGenerator(
            folder: folder, port: try gateway.port(), server: gateway.process.processIdentifier, connections: connections)
        var rounds: [(fresh: Double, replays: Double)] = []
        for round in 0..<LoadGenerator.rounds {
            let off = try await generator.load("off", .fresh, round: round)
            let fresh = try await generator.load("on", .fresh, round: round)
            let offAgain = try await generator.load("off", .replayed, round: round)
            let replays = try await generator.load("on", .replayed, round: round)
            rounds.append((fresh.rate / off.rate, replays.rate / offAgain.rate))
            report.note(
                "\(name), \(connections) connections, requests a second (and the gateway's processor time for one): scene off \(off), in force \(fresh), off \(offAgain), replays \(replays)")
        }
        report.figure("\(name), fresh keys / scene off", median(rounds.map(\.fresh)), atLeast: 0.6)
        report.note(String(format: "%@, replays, which the service does not see / scene off: %.2f", name, median(rounds.map(\.replays))))
    }
}
