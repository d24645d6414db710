internal import Semel

/// A subscription to channels of one server that is made again whenever it ends.
///
/// What is published while there is no connection is missed, so whoever listens is told when it was made again.
final class RedisSubscriber: Sendable {
    private struct State {
        /// Whether a first attempt has ended, however.
        var hasTried = false
        var waiting: [UnsafeContinuation<Void, Never>] = []
        var task: Task<Void, Never>?
    }

    private let state = Locked(State())

    /// - Parameters:
    ///   - endpoints: where to try; the next one after each failure.
    ///   - onMessage: the channel and what was published there.
    ///   - onReady: called each time the subscription stands.
    init(
        _ dialing: RedisDialing, _ endpoints: [RedisLocation.Endpoint], channels: [String],
        onMessage: @escaping @Sendable (_ channel: String, _ message: [UInt8]) -> Void, onReady: @escaping @Sendable () -> Void = {}
    ) {
        var dialing = dialing
        dialing.preparation = []
        let task = dialing.environment.detach { [dialing, weak self] in
            var attempt = 0
            while !Task.isCancelled {
                let endpoint = endpoints[attempt % endpoints.count]
                let hasStood = await Self.listen(dialing, endpoint, channels, onMessage) {
                    self?.settle()
                    onReady()
                }
                // Nobody waits for a server that is gone: what listens for news also looks by itself.
                self?.settle()
                attempt = hasStood ? 0 : attempt + 1
                var generator = dialing.environment.generator
                let limit = min(2000, 50 << min(attempt, 10))
                do {
                    try await dialing.environment.clock.sleep(for: .milliseconds(Int64.random(in: 10...Int64(limit), using: &generator)))
                } catch { return }
            }
        }
        state.withLock { $0.task = task }
    }

    deinit { close() }

    func close() {
        state.withLock { $0.task }?.cancel()
        settle()
    }

    /// Returns when the subscription stands, or its first attempt has failed.
    func ready() async {
        await withUnsafeContinuation { continuation in
            let hasTried = state.withLock { state in
                if !state.hasTried { state.waiting.append(continuation) }
                return state.hasTried
            }
            if hasTried { continuation.resume() }
        }
    }

    private func settle() {
        let waiting = state.withLock { state in
            state.hasTried = true
            defer { state.waiting = [] }
            return state.waiting
        }
        for continuation in waiting { continuation.resume() }
    }

    /// Listens until the connection ends. Returns whether the subscription stood.
    private static func listen(
        _ dialing: RedisDialing, _ endpoint: RedisLocation.Endpoint, _ channels: [String],
        _ onMessage: @escaping @Sendable (String, [UInt8]) -> Void, onReady: () -> Void
    ) async -> Bool {
        let (ended, end) = AsyncStream<Void>.makeStream()
        let connection: RedisConnection
        do throws(StoreError) {
            connection = try await dialing.connect(
                to: endpoint,
                onPush: { elements in
                    guard elements.count == 3, elements[0].text == "message", let channel = elements[1].text,
                        let message = elements[2].bytes
                    else { return }
                    onMessage(channel, message)
                }, onEnd: { _ in end.finish() })
        } catch {
            return false
        }
        defer { connection.close() }
        connection.sendWithoutReply(RedisCommand(["SUBSCRIBE"] + channels))
        // A subscription is confirmed by a push; the answer to what follows it says that it stands.
        var hasStood = false
        while !Task.isCancelled {
            guard case .success(let reply) = await connection.send(RedisCommand("PING")) else { return hasStood }
            if case .error = reply { return hasStood }
            if !hasStood {
                hasStood = true
                onReady()
            }
            // A connection that died in silence is found out by the next question.
            await dialing.environment.firstOf(sleeping: dialing.patience) { for await _ in ended {} }
        }
        return hasStood
    }
}
