import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import Semel

/// What memory the gateway takes, as `semel serve` with the embedded store in a process of its own: with ten thousand requests
/// of 64 KiB in flight, all of them taken in, before the first is answered; and over a long time under load.
struct MemorySuite {
    private static let requests = 10_000
    private static let bodyLength = 64 << 10
    /// Files that each process needs beside its connections.
    private static let otherFiles = 100

    private let folder: String
    private let duration: Int
    private var report = Report()

    /// - Parameter duration: how long the load lasts, in seconds.
    init(duration: Int) throws {
        self.duration = duration
        folder = (ProcessInfo.processInfo.environment["SEMEL_BENCH_FOLDER"] ?? FileManager.default.currentDirectoryPath) + "/.bench-memory-\(getpid())"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    }

    consuming func run() async throws -> Report {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try await inFlight(connections: nil)
        try await inFlight(connections: Self.connectionsToService())
        try await overTime()
        return report
    }

    // MARK: In flight

    /// - Parameter connections: to the service; `nil` for as many as the program opens by default. The other requests are
    ///   claimed and wait for their turn.
    private mutating func inFlight(connections: Int?) async throws {
        let service = try Program("semel-bench", ["late-service"])
        defer { service.end() }
        // Its own temporary folder, so that the spool is where the report says.
        let options = connections.map { "connections: \($0), timeout: 1h" } ?? "timeout: 1h"
        let gateway = try Program.gateway(configuration(service: try service.port(), options), folder: folder)
        defer { gateway.end() }
        let (port, admin) = try gateway.ports()
        let before = try gateway.memory("VmRSS")

        let clients = try await Clients.send(Self.requests, bodyLength: Self.bodyLength, to: port)
        let deadline = ContinuousClock.now + .seconds(120)
        var claimed = 0
        while claimed < Self.requests {
            guard ContinuousClock.now < deadline else { throw BenchmarkError(description: "the gateway claimed \(claimed) of \(Self.requests) requests in two minutes") }
            try await Task.sleep(for: .milliseconds(200))
            claimed = try await Self.claimed(admin)
        }
        try await Task.sleep(for: .seconds(1))
        let (inFlight, peak) = (try gateway.memory("VmRSS"), try gateway.memory("VmHWM"))
        let atService = try Int(service.ask("count")) ?? 0
        guard clients.answered == 0 else { throw BenchmarkError(description: "\(clients.answered) requests were answered too early") }
        _ = try service.ask("open")
        try await clients.finish()
        report.note(
            String(format: "%d requests of %d KiB, all claimed, %d of them at the service: %.0f MiB before, %.0f MiB with all of them in flight, peak %.0f MiB, and %.0f MiB when they were answered", Self.requests, Self.bodyLength >> 10, atService, before, inFlight, peak, try gateway.memory("VmHWM")))
        let name = "peak resident memory, MiB, \(Self.requests) requests in flight"
        if connections == nil {
            report.figure(name, try gateway.memory("VmHWM"), atMost: 300)
        } else {
            report.note(String(format: "\(name), each with a connection to the service: %.0f", try gateway.memory("VmHWM")))
        }
    }

    /// How many operations the gateway has claimed, by its metrics.
    private static func claimed(_ port: Int) async throws -> Int {
        let text = try await get("/metrics", from: port)
        return text.split(separator: "\n").lazy.filter { $0.hasPrefix("semel_claims_total{") && $0.contains("claimed") }
            .compactMap { $0.split(separator: " ").last.flatMap { Double($0) } }.reduce(0) { $0 + Int($1) }
    }

    private static func get(_ path: String, from port: Int) async throws -> String {
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connect(host: "127.0.0.1", port: port) { channel in
                channel.eventLoop.makeCompletedFuture { try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel) }
            }
        return try await channel.executeThenClose { inbound, outbound in
            try await outbound.write(ByteBuffer(string: "GET \(path) HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"))
            var text = ""
            for try await piece in inbound { text += String(buffer: piece) }
            return text
        }
    }

    /// How many connections to the service there can be beside those of the clients.
    private static func connectionsToService() throws -> Int {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        limit.rlim_cur = limit.rlim_max
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        let allowed = Int(clamping: limit.rlim_cur)
        let wanted = 2 * requests + otherFiles
        let least = requests + 1000 + otherFiles
        guard allowed >= least else {
            throw BenchmarkError(
                description: "a process may have \(allowed) files open, and \(requests) clients and their requests take at least \(least), better \(wanted): raise it with `ulimit -Hn \(wanted)`, as root")
        }
        return min(requests, allowed - requests - otherFiles)
    }

    // MARK: Over time

    private mutating func overTime() async throws {
        let service = try await Service.start()
        let gateway = try Program.gateway(configuration(service: service.port, "connections: 256"), folder: folder)
        defer { gateway.end() }
        let generator = LoadGenerator(
            folder: folder, port: try gateway.port(), server: gateway.process.processIdentifier, seconds: duration, connections: 64)
        let samples = Locked([Double]())
        let sampling = Task {
            while !Task.isCancelled {
                let now = try gateway.memory("VmRSS")
                samples.withLock { $0.append(now) }
                try await Task.sleep(for: .milliseconds(500))
            }
        }
        let load = try await generator.load("on", .fresh, round: 0)
        sampling.cancel()
        let all = samples.withLock { $0 }
        // The first third is for caches and pools to fill.
        let (warm, last) = (median(Array(all[(all.count / 3)..<(all.count / 2)])), median(Array(all.suffix(max(1, all.count / 10)))))
        report.note("\(load) for \(duration) s, each with a new key; MiB at tenths of the time: " + (0...9).map { String(Int(all[all.count * $0 / 10])) }.joined(separator: " "))
        report.figure("resident memory at the end / after the first third", last / warm, atMost: 1.1)
        try await service.stop()
    }

    private func configuration(service: Int, _ options: String) -> String {
        """
        listen: 127.0.0.1:0
        admin: 127.0.0.1:0
        store: sqlite:\(folder)/gateway-\(service).db
        log: { level: error }
        upstreams:
          service: { url: "http://127.0.0.1:\(service)", \(options) }
        scenes:
          - { name: on, match: { methods: [POST], path: /on }, upstream: service, effect: unknown, scope: none, lease: 10m }
        """
    }
}

/// The service of this suite, in a process of its own: it answers nobody before it is told to. It reads commands: `count`
/// says how many requests it has, `open` lets it answer.
func runLateService() async throws {
    let service = try await Service.start(isOpen: false)
    print("ready service 127.0.0.1:\(service.port)")
    fflush(nil)
    while let command = readLine() {
        if command == "open" { service.open() }
        print(service.taken)
        fflush(nil)
    }
}

/// Clients that each send one request and wait for its answer.
private struct Clients {
    private let channels: [any Channel]
    private let answers: Locked<(created: Int, other: Int)>

    var answered: Int { answers.withLock { $0.created + $0.other } }

    /// Returns when every request has been handed to the operating system whole.
    static func send(_ count: Int, bodyLength: Int, to port: Int) async throws -> Clients {
        let answers = Locked((created: 0, other: 0))
        let body = ByteBuffer(repeating: 0x61, count: bodyLength)
        var channels: [any Channel] = []
        // So many at a time: a queue of connections that nobody has accepted has an end.
        for first in stride(from: 0, to: count, by: 200) {
            channels += try await withThrowingTaskGroup(of: (any Channel).self) { group in
                for number in first..<min(first + 200, count) {
                    group.addTask {
                        let channel = try await connect(to: port, answers)
                        let headers: HTTPHeaders = [
                            "Host": "127.0.0.1", "Idempotency-Key": "\"in-flight-\(number)\"", "Content-Type": "application/octet-stream",
                            "Content-Length": String(bodyLength),
                        ]
                        let head = HTTPRequestHead(version: .http1_1, method: .POST, uri: "/on", headers: headers)
                        channel.write(HTTPClientRequestPart.head(head), promise: nil)
                        channel.write(HTTPClientRequestPart.body(.byteBuffer(body)), promise: nil)
                        try await channel.writeAndFlush(HTTPClientRequestPart.end(nil)).get()
                        return channel
                    }
                }
                return try await group.reduce(into: []) { $0.append($1) }
            }
        }
        return Clients(channels: channels, answers: answers)
    }

    private static func connect(to port: Int, _ answers: Locked<(created: Int, other: Int)>) async throws -> any Channel {
        try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHTTPClientHandlers()
                    try channel.pipeline.syncOperations.addHandler(Receiver(answers: answers))
                }
            }
            .connect(host: "127.0.0.1", port: port).get()
    }

    /// Waits until all are answered, and demands that all were answered with success.
    func finish() async throws {
        let deadline = ContinuousClock.now + .seconds(120)
        while answered < channels.count, ContinuousClock.now < deadline { try await Task.sleep(for: .milliseconds(50)) }
        let (created, other) = answers.withLock { ($0.created, $0.other) }
        for channel in channels { channel.close(promise: nil) }
        guard created == channels.count else {
            throw BenchmarkError(description: "of \(channels.count) requests \(created) were answered with 201, \(other) otherwise, and the rest not within two minutes")
        }
    }

    private final class Receiver: ChannelInboundHandler {
        typealias InboundIn = HTTPClientResponsePart

        let answers: Locked<(created: Int, other: Int)>

        init(answers: Locked<(created: Int, other: Int)>) { self.answers = answers }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            guard case .head(let head) = unwrapInboundIn(data) else { return }
            answers.withLock { answers in
                if head.status == .created { answers.created += 1 } else { answers.other += 1 }
            }
        }
    }
}
