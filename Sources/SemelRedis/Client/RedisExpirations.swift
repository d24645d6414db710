public import Semel

/// The keys of a Redis that expire, as the server tells them.
///
/// For markers, time windows and caches that want to know. Not guaranteed: that each one is told (what expires while the
/// connection is away is not told again), or when: the server tells it when it removes the key, which may be later than its
/// time. Never rest a decision on it; look at the key.
public enum RedisExpirations {
    /// The names of keys with the location's prefix, from now on until the stream is dropped. In a cluster those of the
    /// servers that took writes at the beginning.
    ///
    /// - Throws: `misconfigured` when the server is not set to tell (`notify-keyspace-events Ex`), and what connecting throws.
    public static func stream(from location: RedisLocation, environment: Environment = .live) async throws(StoreError) -> AsyncStream<
        [UInt8]
    > {
        let dialing = try RedisDialing(location, patience: .seconds(5), environment: environment)
        let client = RedisClient(dialing)
        defer { client.close() }
        try await client.open()
        let prefix = Array(location.prefix.utf8)
        let channel = "__keyevent@\(location.database)__:expired"
        let (stream, continuation) = AsyncStream<[UInt8]>.makeStream()
        var subscribers: [RedisSubscriber] = []
        for node in try await client.masters() {
            guard case .success(let reply) = try await node.send(RedisCommand("CONFIG", "GET", "notify-keyspace-events")) else {
                throw StoreError(.unavailable, "Redis at \(node.endpoint) ended the connection.")
            }
            // Whoever may not read the setting is taken to know it.
            if let setting = reply.elements?.last?.text, !setting.contains("E") || !setting.contains(where: { $0 == "x" || $0 == "A" }) {
                throw StoreError(
                    .misconfigured,
                    "Redis at \(node.endpoint) does not tell which keys expire (notify-keyspace-events is \"\(setting)\"). Remedy: CONFIG SET notify-keyspace-events Ex, and the same in redis.conf."
                )
            }
            let subscriber = RedisSubscriber(
                dialing, [node.endpoint], channels: [channel],
                onMessage: { _, name in
                    if name.starts(with: prefix) { continuation.yield(name) }
                })
            await subscriber.ready()
            subscribers.append(subscriber)
        }
        continuation.onTermination = { [subscribers] _ in for subscriber in subscribers { subscriber.close() } }
        return stream
    }
}
