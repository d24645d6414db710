internal import HummingbirdCore
package import Logging
internal import NIOCore
internal import NIOPosix
package import Semel
package import SemelHTTP
internal import ServiceLifecycle

/// The data plane: an HTTP/1.1 reverse proxy that makes the requests of its scenes take effect once.
///
/// A request that matches no scene streams through untouched. One under a scene is taken in whole, claimed, sent to the
/// scene's upstream, and its answer recorded before it is given to the client (HTTP.md). Operations whose outcome is unknown
/// are asked about in the background, where their target can be asked.
///
/// - On a graceful shutdown it takes no new connections, finishes what is under way, and leaves after ``ServerConfiguration/drain``
///   at the latest; what was not finished then lapses with its lease, and is treated as after a crash.
/// - On a crash the next process, or a retry, finds the claims that lapsed, and acts by the level of each.
package final class Gateway: Service {
    private let operations: Operations
    /// On the store with the second one behind it, where there is one.
    private let pairOperations: Operations?
    private let observer: any HTTPObserver
    private let logger: Logger
    private let listen: ListenAddress
    private let table: Locked<RoutingTable>
    private let bound = FirstValue<Int>()

    /// - Parameter pair: `store` with a second one behind it, for the scenes that fall back.
    /// - Throws: ``GatewayError``, `PolicyError`, or why a file of authorities cannot be read.
    package init(
        configuration: ServerConfiguration, store: any OperationStore, pair: Fallback? = nil, environment: Semel.Environment = .live,
        observer: any HTTPObserver = NoHTTPObserver(), logger: Logger = Logger(label: "semel.gateway")
    ) async throws {
        operations = Operations(store: store, environment: environment)
        pairOperations = pair.map { Operations(store: $0, environment: environment) }
        self.observer = observer
        self.logger = logger
        listen = configuration.listen
        table = Locked(try await RoutingTable(configuration, operations: operations, pairOperations: pairOperations, observer: observer))
    }

    /// The port it listens on, once it does.
    /// - Throws: ``GatewayError`` when it stopped without.
    package var port: Int { get async throws { try await bound.value } }

    /// Takes a new configuration for the requests that come from now on. Those under way keep the old one, and so do
    /// connections to upstreams that stay the same. No connection is closed.
    /// - Throws: as ``init(configuration:store:pair:environment:observer:logger:)`` does; then the old one stays.
    package func update(_ configuration: ServerConfiguration) async throws {
        if configuration.listen != listen {
            logger.warning("The gateway's address was changed; restart to use it.", metadata: ["reason": "\(listen) -> \(configuration.listen)"])
        }
        let previous = table.withLock { $0 }
        let next = try await RoutingTable(
            configuration, operations: operations, pairOperations: pairOperations, observer: observer, previous: previous)
        table.withLock { $0 = next }
    }

    package func run() async throws {
        let responder = GatewayResponder(table: table, environment: operations.environment, logger: logger)
        let server = StrictHTTP1Channel { request, writer in try await responder.respond(to: request, writer) }
            .server(
                configuration: .init(address: .hostname(listen.host, port: listen.port), backlog: 4096),
                onServerRunning: { [bound] channel in bound.keep(.success(channel.localAddress?.port ?? 0)) },
                eventLoopGroup: MultiThreadedEventLoopGroup.singleton, logger: logger)
        let resolver = Resolver(table: table, environment: operations.environment, logger: logger)
        // Not children of this task: after the drain time nobody waits for them.
        let serving = Task { try await server.run() }
        let resolving = Task { try await resolver.run() }
        defer { resolving.cancel() }
        do {
            try await finish(serving)
            bound.keep(.failure(GatewayError(code: .stopped, description: "The gateway stopped.")))
        } catch let error as IOError {
            let failure = GatewayError(
                code: .cannotListen, description: "The gateway cannot listen on \(listen): \(error.plainText). Free the address, or set listen: to another one.")
            bound.keep(.failure(failure))
            throw failure
        } catch {
            bound.keep(.failure(error))
            throw error
        }
    }

    /// Waits for the server to end, after a graceful shutdown no longer than the drain time.
    private func finish(_ serving: Task<Void, any Error>) async throws {
        let end = FirstValue<Bool>()
        let waiting = Task {
            switch await serving.result {
            case .success: end.keep(.success(true))
            case .failure(let error): end.keep(.failure(error))
            }
        }
        let limiting = Task { [table, operations] in
            try await gracefulShutdown()
            try await operations.environment.clock.sleep(for: table.withLock { $0.configuration.drain })
            end.keep(.success(false))
        }
        defer {
            waiting.cancel()
            limiting.cancel()
        }
        let isDrained = try await withTaskCancellationHandler {
            try await end.value
        } onCancel: {
            serving.cancel()
        }
        if !isDrained {
            logger.warning("The drain time is over; what is still under way is given up, and treated as after a crash.")
            serving.cancel()
        }
    }
}

/// A value that comes once; the first one counts.
private final class FirstValue<Value: Sendable>: Sendable {
    private struct State {
        var value: Result<Value, any Error>?
        var waiters: [CheckedContinuation<Value, any Error>] = []
    }

    private let state = Locked(State())

    func keep(_ value: Result<Value, any Error>) {
        let waiters = state.withLock { state -> [CheckedContinuation<Value, any Error>] in
            guard state.value == nil else { return [] }
            state.value = value
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.resume(with: value) }
    }

    var value: Value {
        get async throws {
            try await withCheckedThrowingContinuation { continuation in
                let value = state.withLock { state in
                    if state.value == nil { state.waiters.append(continuation) }
                    return state.value
                }
                if let value { continuation.resume(with: value) }
            }
        }
    }
}
