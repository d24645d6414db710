internal import NIOCore
internal import NIOPosix
internal import NIOSSL
internal import Semel

/// What every connection of a client needs to be made.
struct RedisDialing: Sendable {
    var location: RedisLocation
    var tls: NIOSSLContext?
    var group: any EventLoopGroup
    /// How long a server may be silent while it owes a reply.
    var patience: Duration
    var environment: Semel.Environment
    /// Put into every fresh server before anything else: the texts of the scripts.
    var preparation: [RedisCommand]

    init(_ location: RedisLocation, patience: Duration, environment: Semel.Environment, preparation: [RedisCommand] = []) throws(StoreError)
    {
        self.location = location
        self.patience = patience
        self.environment = environment
        self.preparation = preparation
        group = MultiThreadedEventLoopGroup.singleton
        guard location.usesTLS else { return }
        do {
            var configuration = TLSConfiguration.makeClientConfiguration()
            if let file = location.certificateAuthority { configuration.trustRoots = .file(file) }
            tls = try NIOSSLContext(configuration: configuration)
        } catch {
            throw StoreError(
                .encryptionFailed,
                "The authority's certificate \(location.certificateAuthority ?? "of this system") cannot be used: \(error). Remedy: let ca= in the store's URL name a PEM file.",
                underlying: error)
        }
    }

    /// Connects, enters with user and password, and puts the scripts there.
    func connect(
        to endpoint: RedisLocation.Endpoint, onPush: (@Sendable ([RESPValue]) -> Void)? = nil,
        onEnd: @escaping @Sendable (RedisFailure) -> Void = { _ in }
    ) async throws(StoreError) -> RedisConnection {
        let connection: RedisConnection
        do {
            connection = try await .connect(to: endpoint, tls: tls, group: group, patience: patience, onPush: onPush, onEnd: onEnd)
        } catch {
            throw StoreError(
                .unavailable,
                "Redis at \(endpoint) cannot be reached: \(error). Remedy: start it, or correct the host and port in the store's URL.",
                underlying: error)
        }
        do throws(StoreError) {
            try await enter(connection, endpoint)
        } catch {
            connection.close()
            throw error
        }
        return connection
    }

    private func enter(_ connection: RedisConnection, _ endpoint: RedisLocation.Endpoint) async throws(StoreError) {
        let user = location.user ?? "default"
        let hello = location.password.map { RedisCommand("HELLO", "3", "AUTH", user, $0) } ?? RedisCommand("HELLO", "3")
        var replies = [try await reply(of: connection, hello, endpoint)]
        if case .error(let text) = replies[0], text.hasPrefix("ERR unknown command") || text.hasPrefix("NOPROTO") {
            // The second version of the protocol does as well.
            replies = []
            if let password = location.password {
                let auth = location.user.map { RedisCommand("AUTH", $0, password) } ?? RedisCommand("AUTH", password)
                replies.append(try await reply(of: connection, auth, endpoint))
            }
        }
        var commands = preparation
        if location.database != 0 { commands.insert(RedisCommand("SELECT", String(location.database)), at: 0) }
        commands.insert(RedisCommand("CLIENT", "SETNAME", "semel"), at: 0)
        if case .error = replies.first ?? .null { commands = [] }
        for result in await connection.send(commands) {
            switch result {
            case .success(let reply): replies.append(reply)
            case .failure(let failure): throw broken(failure, endpoint)
            }
        }
        for case .error(let text) in replies {
            // A name is only for people, and a user may be denied it.
            if text.hasPrefix("NOPERM"), text.contains("client") { continue }
            throw .refusal(text, by: "\(endpoint)")
        }
    }

    private func reply(of connection: RedisConnection, _ command: RedisCommand, _ endpoint: RedisLocation.Endpoint) async throws(StoreError)
        -> RESPValue
    {
        switch await connection.send(command) {
        case .success(let reply): return reply
        case .failure(let failure): throw broken(failure, endpoint)
        }
    }

    private func broken(_ failure: RedisFailure, _ endpoint: RedisLocation.Endpoint) -> StoreError {
        if failure.description.hasPrefix("TLS") {
            return StoreError(
                .encryptionFailed,
                "No trusted connection to Redis at \(endpoint): \(failure). Remedy: name the right host and, with ca=FILE in the store's URL, the authority that signed its certificate; use redis:// only where the network is trusted."
            )
        }
        if location.usesTLS {
            return StoreError(
                .encryptionFailed,
                "Redis at \(endpoint) ended the TLS handshake: \(failure). Remedy: use redis:// if it does not speak TLS on this port.")
        }
        return StoreError(.unavailable, "Redis at \(endpoint) ended the connection at once: \(failure).")
    }
}

/// One server of a client, through one connection that is made again when it ends.
///
/// While a first attempt to connect is under way, commands wait for it; after a failed one they fail at once, and further
/// attempts follow in growing pauses, each drawn at random, until one succeeds.
final class RedisNode: Sendable {
    private enum Phase {
        case connected(RedisConnection)
        case connecting
        case pausing(StoreError)
        case closed
    }

    private struct State {
        var phase: Phase = .connecting
        var waiting: [UnsafeContinuation<Result<RedisConnection, StoreError>, Never>] = []
        var attempts = 0
        /// Tells the end of the present connection from that of an earlier one.
        var generation = 0
    }

    let endpoint: RedisLocation.Endpoint
    private let dialing: RedisDialing
    private let state = Locked(State())
    private let onConnected: @Sendable () -> Void

    /// Begins to connect.
    init(_ endpoint: RedisLocation.Endpoint, _ dialing: RedisDialing, onConnected: @escaping @Sendable () -> Void) {
        self.endpoint = endpoint
        self.dialing = dialing
        self.onConnected = onConnected
        dialing.environment.detach { [weak self] in await self?.connect() }
    }

    deinit {
        if case .connected(let connection) = state.withLock({ $0.phase }) { connection.close() }
    }

    func close() {
        let (connection, waiting) = state.withLock { state in
            let connection: RedisConnection? = if case .connected(let connection) = state.phase { connection } else { nil }
            state.phase = .closed
            defer { state.waiting = [] }
            return (connection, state.waiting)
        }
        connection?.close()
        for continuation in waiting { continuation.resume(returning: .failure(Self.closed)) }
    }

    private static let closed = StoreError(.stopped, "The Redis store was closed.")

    func send(_ command: RedisCommand) async throws(StoreError) -> RedisConnection.Reply {
        let connection = try await connection()
        return await connection.send(command)
    }

    func send(_ commands: [RedisCommand]) async throws(StoreError) -> [RedisConnection.Reply] {
        let connection = try await connection()
        return await connection.send(commands)
    }

    /// The live connection; waits for the first attempt to make one.
    ///
    /// - Throws: `unavailable` and the like, with nothing sent.
    func connection() async throws(StoreError) -> RedisConnection {
        let known = state.withLock { Self.known($0) }
        if let known { return try known.get() }
        return try await withUnsafeContinuation { continuation in
            let known: Result<RedisConnection, StoreError>? = state.withLock { state in
                let known = Self.known(state)
                if known == nil { state.waiting.append(continuation) }
                return known
            }
            if let known { continuation.resume(returning: known) }
        }.get()
    }

    private static func known(_ state: State) -> Result<RedisConnection, StoreError>? {
        switch state.phase {
        case .connected(let connection): .success(connection)
        case .pausing(let error): .failure(error)
        case .closed: .failure(closed)
        case .connecting: nil
        }
    }

    private func connect() async {
        let generation: Int? = state.withLock { state in
            if case .closed = state.phase { return nil }
            state.generation += 1
            return state.generation
        }
        guard let generation else { return }
        let result: Result<RedisConnection, StoreError>
        do throws(StoreError) {
            result = .success(
                try await dialing.connect(to: endpoint, onEnd: { [weak self] failure in self?.ended(generation, failure) }))
        } catch {
            result = .failure(error)
        }
        settle(result, generation)
    }

    private func settle(_ result: Result<RedisConnection, StoreError>, _ generation: Int) {
        let (waiting, isClosed) = state.withLock { state in
            defer { state.waiting = [] }
            if case .closed = state.phase { return (state.waiting, true) }
            switch result {
            case .success(let connection):
                state.phase = .connected(connection)
                state.attempts = 0
            case .failure(let error):
                state.phase = .pausing(error)
                state.attempts += 1
            }
            return (state.waiting, false)
        }
        if isClosed, case .success(let connection) = result { connection.close() }
        if !isClosed {
            switch result {
            case .success(let connection):
                onConnected()
                // It may have ended before it was known here.
                if connection.ending != nil { ended(generation, .lost("the connection ended at once")) }
            case .failure: connectLater()
            }
        }
        for continuation in waiting { continuation.resume(returning: isClosed ? .failure(Self.closed) : result) }
    }

    private func ended(_ generation: Int, _ failure: RedisFailure) {
        let isOurs = state.withLock { state in
            guard state.generation == generation, case .connected = state.phase else { return false }
            state.phase = .connecting
            return true
        }
        if isOurs { dialing.environment.detach { [weak self] in await self?.connect() } }
    }

    private func connectLater() {
        let attempts = state.withLock { $0.attempts }
        let environment = dialing.environment
        // Full jitter: many clients of one server that came back do not meet it at once.
        let limit = min(2000.0, 50 * Double(1 << min(attempts, 10)))
        var generator = environment.generator
        let pause = Duration.milliseconds(Int64.random(in: 10...Int64(limit), using: &generator))
        environment.detach { [weak self] in
            do { try await environment.clock.sleep(for: pause) } catch { return }
            await self?.connect()
        }
    }
}
