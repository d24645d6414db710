internal import Semel

/// What a server says about itself, as far as a store rests on it.
struct ServerFacts: Sendable {
    var endpoint: RedisLocation.Endpoint
    var version = ""
    var isClusterNode = false
    var isReplica = false
    var replicas = 0
    var writesLog = false
    /// `nil` when the server does not say.
    var sync: String?
    var syncsWhileRewriting = true
    var eviction = ""

    static let leastVersion = (6, 2)

    /// Asks a server.
    static func ask(_ node: RedisNode) async throws(StoreError) -> ServerFacts {
        let replies = try await node.send([
            RedisCommand("INFO"), RedisCommand("CONFIG", "GET", "appendfsync"), RedisCommand("CONFIG", "GET", "no-appendfsync-on-rewrite"),
        ])
        var values: [RESPValue] = []
        for reply in replies {
            switch reply {
            case .success(let value): values.append(value)
            case .failure(let failure): throw StoreError(.unavailable, "Redis at \(node.endpoint) did not say what it is: \(failure).")
            }
        }
        if case .error(let text) = values[0] { throw .refusal(text, by: "\(node.endpoint)") }
        var facts = ServerFacts(endpoint: node.endpoint)
        var info: [Substring: Substring] = [:]
        for line in (values[0].text ?? "").split(whereSeparator: \.isNewline) {
            if let colon = line.firstIndex(of: ":") { info[line[..<colon]] = line[line.index(after: colon)...] }
        }
        facts.version = String(info["redis_version"] ?? "")
        facts.isClusterNode = info["cluster_enabled"] == "1"
        facts.isReplica = info["role"] == "slave"
        facts.replicas = info["connected_slaves"].flatMap { Int($0) } ?? 0
        facts.writesLog = info["aof_enabled"] == "1"
        facts.eviction = String(info["maxmemory_policy"] ?? "")
        // Whoever may not read the settings is told nothing, and the least is assumed.
        facts.sync = Self.setting(values[1])
        facts.syncsWhileRewriting = Self.setting(values[2]) == "no"
        return facts
    }

    private static func setting(_ reply: RESPValue) -> String? {
        guard let elements = reply.elements, elements.count == 2 else { return nil }
        return elements[1].text
    }

    /// - Throws: what makes the server unfit for any store.
    func check(asCluster isCluster: Bool) throws(StoreError) {
        let numbers = version.split(separator: ".").compactMap { Int($0) }
        guard numbers.count >= 2, (numbers[0], numbers[1]) >= Self.leastVersion else {
            throw StoreError(
                .serverTooOld,
                "Redis at \(endpoint) is version \(version.isEmpty ? "unknown" : version), and at least \(Self.leastVersion.0).\(Self.leastVersion.1) is needed. Remedy: upgrade it."
            )
        }
        if isReplica {
            throw StoreError(
                .readOnly, "Redis at \(endpoint) is a replica that takes no writes. Remedy: name the primary in the store's URL.")
        }
        guard eviction == "noeviction" else {
            throw StoreError(
                .evicting,
                "Redis at \(endpoint) may throw records away to make room (maxmemory-policy \(eviction.isEmpty ? "unknown" : eviction)): keys would run twice. Remedy: CONFIG SET maxmemory-policy noeviction, and the same in redis.conf; give caches a Redis of their own."
            )
        }
        if isClusterNode, !isCluster {
            throw StoreError(.misconfigured, "Redis at \(endpoint) is a node of a cluster. Remedy: write redis+cluster://\(endpoint).")
        }
    }

    /// How what it acknowledged can be lost.
    var losses: [String] {
        var losses: [String] = []
        if !writesLog { losses.append("appendonly is off: a restart forgets what came after the last snapshot") }
        switch sync {
        case "always" where writesLog:
            if !syncsWhileRewriting { losses.append("no-appendfsync-on-rewrite is on: a crash while the log is rewritten forgets") }
        case nil: losses.append("its appendfsync cannot be read, so the least is assumed")
        case let sync? where writesLog: losses.append("appendfsync is \(sync): a crash forgets the last seconds")
        default: break
        }
        if replicas > 0 { losses.append("it has \(replicas) replica\(replicas == 1 ? "" : "s"), and a failover to one that lags forgets") }
        return losses
    }
}

extension [ServerFacts] {
    var durability: StoreCapabilities.Durability {
        var told: [String] = []
        for loss in flatMap(\.losses) where !told.contains(loss) { told.append(loss) }
        return told.isEmpty ? .durable : .forgetful(told.joined(separator: "; "))
    }
}
