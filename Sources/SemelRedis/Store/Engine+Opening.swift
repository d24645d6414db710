public import Semel

extension Engine {
    static let format: Int64 = 1

    /// Connects to every server, checks it, and makes sure that what is there is a store of this version.
    func open() async throws(StoreError) -> [ServerFacts] {
        try await client.open()
        var facts: [ServerFacts] = []
        for node in try await client.masters() {
            let fact = try await ServerFacts.ask(node)
            try fact.check(asCluster: client.location.isCluster)
            facts.append(fact)
        }
        let slot = HashSlot(of: keys.meta)
        let replies = try await client.send([
            (RedisCommand("HSETNX", keys.meta, "format", String(Self.format)), slot), (RedisCommand("HGET", keys.meta, "format"), slot),
        ])
        for case .error(let text) in replies { throw .refusal(text, by: "\(client.location)") }
        guard let format = replies[1].integer else {
            throw StoreError(
                .damaged,
                "The key \(keys.meta) in Redis at \(client.location) is not the store's. Remedy: choose another prefix= in the store's URL."
            )
        }
        guard format <= Self.format else {
            throw StoreError(
                .newerSchema,
                "The store in Redis at \(client.location) has the format \(format), and this program knows up to \(Self.format). Remedy: use a newer Semel, or another prefix= in the store's URL."
            )
        }
        _ = try await currentIncarnation()
        return facts
    }

    func raiseIncarnation() async throws(StoreError) -> Incarnation {
        let reply = try await client.send(RedisCommand("HINCRBY", keys.meta, "incarnation", "1"), HashSlot(of: keys.meta))
        if case .error(let text) = reply { throw .refusal(text, by: "\(client.location)") }
        guard let value = reply.integer, value <= Incarnation.limit else {
            throw StoreError(
                .refused,
                "The store in Redis at \(client.location) has been restored \(Incarnation.limit) times; there is no higher incarnation.")
        }
        forgetIncarnation()
        return Incarnation(rawValue: try await currentIncarnation())
    }
}

/// What `semel store check` says about a Redis.
public struct RedisReport: Sendable {
    public var location: String
    /// Of each server that takes writes.
    public var versions: [String]
    public var durability: StoreCapabilities.Durability
    /// The store's format; `nil` when there is no store yet.
    public var format: Int?
    /// How far the servers' clocks are ahead of this machine's; negative when behind. Of the one that is furthest off.
    public var clockOffset: Duration
    public var warnings: [String]
}

extension RedisStore {
    /// Looks at what a URL names, and changes nothing there.
    ///
    /// - Throws: as opening does.
    public static func check(_ location: RedisLocation, environment: Environment = .live) async throws(StoreError) -> RedisReport {
        let engine = try Engine(location, Configuration(purgesByItself: false), environment)
        defer { engine.close() }
        return try await engine.report()
    }
}

extension Engine {
    fileprivate func report() async throws(StoreError) -> RedisReport {
        try await client.open()
        var report = RedisReport(
            location: "\(client.location)", versions: [], durability: .durable, format: nil, clockOffset: .zero, warnings: [])
        var facts: [ServerFacts] = []
        for node in try await client.masters() {
            let fact = try await ServerFacts.ask(node)
            try fact.check(asCluster: client.location.isCluster)
            facts.append(fact)
            report.versions.append("\(node.endpoint): \(fact.version)")
            report.warnings += fact.losses.map { "\(node.endpoint): \($0)" }
            let offset = try await clockOffset(node)
            if abs(offset.microseconds) > abs(report.clockOffset.microseconds) { report.clockOffset = offset }
        }
        report.durability = facts.durability
        let reply = try await client.send(RedisCommand("HGET", keys.meta, "format"), HashSlot(of: keys.meta))
        if case .error(let text) = reply { throw .refusal(text, by: "\(client.location)") }
        report.format = reply.integer.map { Int($0) }
        return report
    }

    /// Against the middle of the round trip.
    private func clockOffset(_ node: RedisNode) async throws(StoreError) -> Duration {
        let before = SystemStoreClock().now().retention
        let reply = try await node.send(RedisCommand("TIME"))
        let after = SystemStoreClock().now().retention
        guard case .success(let value) = reply, let parts = value.elements, parts.count == 2, let seconds = parts[0].integer,
            let rest = parts[1].integer
        else { throw StoreError(.unavailable, "Redis at \(node.endpoint) did not tell its time.") }
        let middle = before.microseconds + (after.microseconds - before.microseconds) / 2
        return .microseconds(seconds * 1_000_000 + rest - middle)
    }
}
