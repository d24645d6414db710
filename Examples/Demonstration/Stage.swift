import Foundation
import Synchronization

/// The two processes, their ports and files: everything that has to be gone when the demonstration is over.
final class Stage: Sendable {
    private struct State {
        var programs: Programs?
        var payments: Child?
        var gateway: Child?
        /// While it is killed and started again, its end is no accident.
        var isRestarting = false
        /// From here on nothing is started any more.
        var isOver = false
        var keepsFiles: Bool
    }

    let directory: String
    let controlPlane: ControlPlane
    private let gatewayPort: Int
    private let paymentsPort: Int
    private let client = Client(connections: 4)
    private let state: Mutex<State>

    init(keepsFiles: Bool) throws {
        directory = FileManager.default.temporaryDirectory.appendingPathComponent("semel-demonstration-\(getpid())").path
        let ports = try FreePorts.take(3)
        gatewayPort = ports[0]
        paymentsPort = ports[1]
        controlPlane = ControlPlane(url: "http://127.0.0.1:\(ports[2])")
        state = Mutex(State(keepsFiles: keepsFiles))
    }

    var consoleURL: String { controlPlane.url }

    func target(path: String) -> Target {
        Target(gateway: "http://127.0.0.1:\(gatewayPort)", path: path, payments: "http://127.0.0.1:\(paymentsPort)")
    }

    // MARK: The processes

    /// Starts the payments service and the gateway, and waits until both are ready.
    func start(_ programs: Programs, path: String) async throws {
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        try configuration(path: path).write(toFile: directory + "/semel.yaml", atomically: true, encoding: .utf8)
        let payments = try Child(
            "payments", program: programs.payments,
            arguments: [
                "--port", "\(paymentsPort)", "--database", directory + "/payments.db", "--latency", "20ms", "--faults",
            ],
            log: directory + "/payments.log")
        state.withLock { state in
            state.programs = programs
            state.payments = payments
        }
        let health = target(path: path).payments + "/healthz"
        try await waitUntilReady(payments) { (try? await self.client.get(health))?.status == 200 }
        try await startGateway()
    }

    private func startGateway() async throws {
        let gateway = try state.withLock { state in
            guard !state.isOver else { throw CancellationError() }
            let gateway = try Child(
                "semel", program: state.programs!.semel, arguments: ["serve", "--config", directory + "/semel.yaml"],
                log: directory + "/semel.log")
            state.gateway = gateway
            return gateway
        }
        try await waitUntilReady(gateway) { await self.controlPlane.isReady(self.client) }
    }

    /// Kills the gateway with SIGKILL, at once; its process id.
    func killGateway() -> Int32 {
        state.withLock { state in
            state.isRestarting = true
            state.gateway?.send(SIGKILL)
            return state.gateway?.identifier ?? 0
        }
    }

    /// Waits until the killed gateway is gone, and starts it anew on the same files and ports.
    func restartGateway() async throws {
        if let gateway = state.withLock({ $0.gateway }), try await !gateway.ends(within: .seconds(5)) {
            throw Failure("the killed gateway, process \(gateway.identifier), does not end")
        }
        try await startGateway()
        state.withLock { $0.isRestarting = false }
    }

    /// Returns never; throws when a process ends that should not.
    func watch() async throws {
        while true {
            try await Task.sleep(for: .milliseconds(100))
            let (payments, gateway) = state.withLock { ($0.payments, $0.isRestarting ? nil : $0.gateway) }
            for child in [payments, gateway] {
                if let child, !child.isRunning { throw Failure("\(child.name) ended by itself:\n\(child.lastLines)") }
            }
        }
    }

    private func waitUntilReady(_ child: Child, _ isReady: () async -> Bool) async throws {
        let clock = ContinuousClock()
        let start = clock.now
        while await !isReady() {
            guard child.isRunning else { throw Failure("\(child.name) ended before it was ready:\n\(child.lastLines)") }
            guard start.duration(to: clock.now) < .seconds(20) else {
                throw Failure("\(child.name) is not ready after 20 s:\n\(child.lastLines)")
            }
            try await Task.sleep(for: .milliseconds(20))
        }
    }

    // MARK: The end

    func keepFiles() { state.withLock { $0.keepsFiles = true } }

    /// Ends both processes and removes the files, unless they are to be kept.
    func tearDown() async {
        let (children, keepsFiles) = state.withLock { state in
            state.isOver = true
            // The gateway first: it drains into the service.
            return ([state.gateway, state.payments], state.keepsFiles)
        }
        await withCheckedContinuation { continuation in
            DispatchQueue.global().async {
                for child in children { child?.stop() }
                continuation.resume()
            }
        }
        if !keepsFiles { try? FileManager.default.removeItem(atPath: directory) }
        await client.close()
    }

    /// Leaves the gateway up for whoever wants to look, until the task is cancelled.
    func stayUp(path: String, _ display: Display) async {
        display.say(
            """

            The gateway is up: console \(consoleURL), payments through \(target(path: path).gateway)\(path)
            Files: \(directory)
            Ctrl-C ends it.
            """)
        do {
            try await watch()
        } catch is CancellationError {
            return
        } catch {
            keepFiles()
            display.say("\(error)")
        }
    }

    private func configuration(path: String) -> String {
        """
        listen: 127.0.0.1:\(gatewayPort)
        admin: \(controlPlane.url.dropFirst("http://".count))
        store: sqlite:\(directory)/semel.db
        upstreams:
          payments: http://127.0.0.1:\(paymentsPort)
        scenes:
          - name: payment.capture
            match: { methods: [POST], path: \(path) }
            upstream: payments
            key: { header: Idempotency-Key, required: true, syntax: strict }
            scope: none
            effect: { queryable: { get: /v1/payments?key={key}, applied: 200, absent: 404, inFlight: 2s, fence: Semel-Epoch, outcome: response } }
            guarantee: fencedAndVerified
            onError: uncertain
            lease: 5s

        """
    }
}

/// Ports of loopback that nobody uses. They are free when chosen, not reserved.
enum FreePorts {
    static func take(_ count: Int) throws -> [Int] {
        var sockets: [Int32] = []
        // Open together, so that they differ.
        defer { for socket in sockets { close(socket) } }
        return try (0..<count).map { _ in
            let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            sockets.append(descriptor)
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
            var length = socklen_t(MemoryLayout<sockaddr_in>.size)
            let port: Int? = withUnsafeMutablePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
                    guard bind(descriptor, generic, length) == 0, getsockname(descriptor, generic, &length) == 0 else { return nil }
                    return Int(UInt16(bigEndian: pointer.pointee.sin_port))
                }
            }
            guard let port else { throw Failure("no free port on loopback: \(String(cString: strerror(errno)))") }
            return port
        }
    }
}
