import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix

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
        let service = try await Self.service()
        let port = service.localAddress?.port ?? 0
        try await measure("memory", store: "memory", connections: 64, service: port)
        try await measure("SQLite", store: "sqlite:\(folder)/gateway.db", connections: HTTPSuite.manyConnections, service: port)
        try await service.close().get()
        return report
    }

    private mutating func measure(_ name: String, store: String, connections: Int, service: Int) async throws {
        let gateway = try Program(store: store, service: service, folder: folder)
        defer { gateway.end() }
        let generator = LoadGenerator(
            folder: folder, port: try gateway.port(), server: gateway.process.processIdentifier, connections: connections)
        var rounds: [(fresh: Double, replays: Double)] = []
        for round in 0..<5 {
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

    // MARK: The service

    private static func service() async throws -> any Channel {
        try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.backlog, value: 1024)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline(withPipeliningAssistance: false)
                    try channel.pipeline.syncOperations.addHandler(Service())
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
    }

    private final class Service: ChannelInboundHandler {
        typealias InboundIn = HTTPServerRequestPart
        typealias OutboundOut = HTTPServerResponsePart

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            guard case .end = unwrapInboundIn(data) else { return }
            let head = HTTPResponseHead(version: .http1_1, status: .ok, headers: ["content-type": "text/plain", "content-length": "4"])
            context.write(wrapOutboundOut(.head(head)), promise: nil)
            context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(string: "made")))), promise: nil)
            context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        }
    }

    // MARK: The program

    private struct Program {
        let process = Process()
        private let output = Pipe()

        init(store: String, service: Int, folder: String) throws {
            let configuration = folder + "/semel.yaml"
            try """
            listen: 127.0.0.1:0
            admin: 127.0.0.1:0
            store: \(store)
            log: { level: error }
            upstreams:
              service: { url: "http://127.0.0.1:\(service)", connections: 1024 }
            scenes:
              - { name: off, match: { methods: [POST], path: /off }, upstream: service, effect: unknown, scope: none, mode: "off" }
              - { name: on, match: { methods: [POST], path: /on }, upstream: service, effect: unknown, scope: none }
            """.write(toFile: configuration, atomically: true, encoding: .utf8)
            // Built together with this program, into the same folder.
            process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent().appendingPathComponent("semel")
            process.arguments = ["serve", "--config", configuration]
            process.standardOutput = output
            try process.run()
        }

        /// The port it listens on, once it does.
        func port() throws -> Int {
            var text = ""
            while let line = String(data: output.fileHandleForReading.availableData, encoding: .utf8), !line.isEmpty {
                text += line
                // ready semel 127.0.0.1:4000 admin 127.0.0.1:4001 pid 17
                let words = text.split(separator: "\n").first { $0.hasPrefix("ready semel ") }?.split(separator: " ") ?? []
                if words.count == 7, let port = words[2].split(separator: ":").last.flatMap({ Int($0) }) { return port }
            }
            throw BenchmarkError(description: "the gateway did not start: \(text)")
        }

        func end() {
            process.terminate()
            process.waitUntilExit()
        }
    }
}
