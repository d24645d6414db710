internal import Semel

/// Commands to one Redis or to a cluster of them, each sent to the server that has its slot.
///
/// What a server refuses because the slot is elsewhere (MOVED, ASK) or cannot be served just now (TRYAGAIN, CLUSTERDOWN,
/// LOADING) was not done, and is sent again. What was written and lost its reply is not: it is `indeterminate`.
final class RedisClient: Sendable {
    private struct Topology {
        var nodes: [RedisLocation.Endpoint: [RedisNode]] = [:]
        /// For each slot the endpoint that has it.
        var owners: [RedisLocation.Endpoint?] = []
        /// The connection for each slot asked for since the map changed.
        var routes: [UInt16: RedisNode] = [:]
        var refresh: Task<Void, Never>?
        var isClosed = false
    }

    let location: RedisLocation
    private let dialing: RedisDialing
    private let topology = Locked(Topology())
    private let onConnected: @Sendable () -> Void
    /// How long a command is tried that the server says to try again.
    private let endurance: Duration

    /// - Parameter onConnected: called whenever a connection was made anew; the server may be another one than before.
    init(_ dialing: RedisDialing, endurance: Duration = .seconds(5), onConnected: @escaping @Sendable () -> Void = {}) {
        self.dialing = dialing
        location = dialing.location
        self.onConnected = onConnected
        self.endurance = endurance
    }

    /// Looks at the cluster, or makes the first connection.
    func open() async throws(StoreError) {
        if location.isCluster {
            try await learn()
        } else {
            _ = try await node(at: location.endpoints[0], HashSlot(0)).connection()
        }
    }

    func close() {
        let nodes = topology.withLock { topology in
            topology.isClosed = true
            topology.routes = [:]
            topology.refresh?.cancel()
            return topology.nodes.values.flatMap(\.self)
        }
        for node in nodes { node.close() }
    }

    deinit { close() }

    // MARK: Sending

    /// Sends a command to whoever has the slot, and returns the reply, which may be an error that is the caller's affair.
    func send(_ command: RedisCommand, _ slot: HashSlot) async throws(StoreError) -> RESPValue {
        try await send(command, slot, after: nil, attempts: 0)
    }

    /// Sends commands to whoever has their slots, those for one server in one write and in order.
    ///
    /// - Throws: when one of them has no reply; the others may have happened.
    func send(_ commands: [(RedisCommand, HashSlot)]) async throws(StoreError) -> [RESPValue] {
        if commands.count == 1 { return [try await send(commands[0].0, commands[0].1)] }
        var parts: [ObjectIdentifier: (node: RedisNode, indices: [Int])] = [:]
        for (index, item) in commands.enumerated() {
            let node = try owner(of: item.1)
            parts[ObjectIdentifier(node), default: (node, [])].indices.append(index)
        }
        var replies = [RESPValue](repeating: .null, count: commands.count)
        let answers: [([Int], Result<[RedisConnection.Reply], StoreError>)]
        if parts.count == 1, let (node, indices) = parts.values.first {
            answers = [(indices, await Self.attempt(node, commands.map(\.0)))]
        } else {
            answers = await withTaskGroup { group in
                for (node, indices) in parts.values {
                    let part = indices.map { commands[$0].0 }
                    group.addTask { (indices, await Self.attempt(node, part)) }
                }
                return await group.reduce(into: []) { $0.append($1) }
            }
        }
        var again: [(index: Int, reply: RedisConnection.Reply)] = []
        var failure: StoreError?
        for (indices, answer) in answers {
            switch answer {
            case .failure(let error):
                // Nothing of this part was sent; of another part something may have happened.
                if !location.isCluster { throw parts.count == 1 ? error : Self.indeterminate(error.message) }
                again += indices.map { ($0, .failure(.notSent(error.message))) }
            case .success(let part):
                for (index, reply) in zip(indices, part) {
                    switch reply {
                    case .success(let value) where Redirection(value) == nil: replies[index] = value
                    case .success, .failure(.notSent): again.append((index, reply))
                    case .failure(.lost(let why)): failure = Self.indeterminate(why)
                    }
                }
            }
        }
        if let failure { throw failure }
        for (index, reply) in again.sorted(by: { $0.index < $1.index }) {
            do throws(StoreError) {
                replies[index] = try await send(commands[index].0, commands[index].1, after: reply, attempts: 0)
            } catch {
                throw again.count < commands.count && error.code == .unavailable ? Self.indeterminate(error.message) : error
            }
        }
        return replies
    }

    private static func attempt(_ node: RedisNode, _ commands: [RedisCommand]) async -> Result<[RedisConnection.Reply], StoreError> {
        do throws(StoreError) {
            return .success(try await node.send(commands))
        } catch {
            return .failure(error)
        }
    }

    private static func indeterminate(_ why: String) -> StoreError {
        StoreError(
            .indeterminate,
            "The connection to Redis was lost before its answer: \(why). Whether it happened is unknown; say the same again.")
    }

    /// - Parameter earlier: the reply to a first attempt that was made already.
    private func send(
        _ command: RedisCommand, _ slot: HashSlot, after earlier: RedisConnection.Reply?, attempts: Int
    ) async throws(StoreError) -> RESPValue {
        var node = try owner(of: slot)
        var isAsking = false
        var earlier = earlier
        let deadline = dialing.environment.uptime() + endurance
        var pauses = 0
        while true {
            var reply: RedisConnection.Reply
            if let first = earlier {
                reply = first
                earlier = nil
            } else {
                do throws(StoreError) {
                    reply = isAsking ? try await node.send([RedisCommand("ASKING"), command])[1] : try await node.send(command)
                } catch {
                    guard location.isCluster, error.code == .unavailable else { throw error }
                    reply = .failure(.notSent(error.message))
                }
            }
            isAsking = false
            let waitsFor: StoreError
            switch reply {
            case .failure(.lost(let why)): throw Self.indeterminate(why)
            case .failure(.notSent(let why)):
                waitsFor = StoreError(.unavailable, "Redis at \(node.endpoint) cannot be reached: \(why).")
                if location.isCluster { refresh() }
            case .success(let value):
                switch Redirection(value) {
                case nil: return value
                case .moved(let number, let endpoint):
                    let endpoint = endpoint.host.isEmpty ? RedisLocation.Endpoint(host: node.endpoint.host, port: endpoint.port) : endpoint
                    topology.withLock { topology in
                        topology.routes[number] = nil
                        if !topology.owners.isEmpty { topology.owners[Int(number)] = endpoint }
                    }
                    refresh()
                    node = try self.node(at: endpoint, slot)
                    // A slot that two servers send to each other settles within moments, or never.
                    guard dialing.environment.uptime() < deadline else {
                        throw StoreError(.unavailable, "The nodes of the cluster do not agree on who has slot \(number).")
                    }
                    pauses += 1
                    if pauses > 3 { try await pause(pauses) }
                    continue
                case .ask(let endpoint):
                    node = try self.node(at: endpoint.host.isEmpty ? .init(host: node.endpoint.host, port: endpoint.port) : endpoint, slot)
                    isAsking = true
                    guard dialing.environment.uptime() < deadline else {
                        throw StoreError(.unavailable, "Slot \(slot.number) is on the move and does not arrive.")
                    }
                    continue
                case .later(let text):
                    waitsFor = .refusal(text, by: "\(node.endpoint)")
                    if location.isCluster { refresh() }
                case .readOnly(let text):
                    // A primary that was demoted: in a cluster the map will say who took over.
                    guard location.isCluster else { throw .refusal(text, by: "\(node.endpoint)") }
                    waitsFor = .refusal(text, by: "\(node.endpoint)")
                    refresh()
                }
            }
            guard dialing.environment.uptime() < deadline else { throw waitsFor }
            pauses += 1
            try await pause(pauses)
            node = try owner(of: slot)
        }
    }

    private func pause(_ number: Int) async throws(StoreError) {
        let limit = min(500, 5 << min(number, 10))
        var generator = dialing.environment.generator
        do {
            try await dialing.environment.clock.sleep(for: .milliseconds(Int64.random(in: 1...Int64(limit), using: &generator)))
        } catch {
            throw StoreError(.unavailable, "The call was cancelled while Redis was not to be had; nothing was sent.", underlying: error)
        }
    }

    // MARK: The map

    /// Every server that takes writes.
    func masters() async throws(StoreError) -> [RedisNode] {
        guard location.isCluster else { return [try node(at: location.endpoints[0], HashSlot(0))] }
        let endpoints = topology.withLock { Set($0.owners.compactMap(\.self)) }
        var nodes: [RedisNode] = []
        for endpoint in endpoints.sorted(by: { ($0.host, $0.port) < ($1.host, $1.port) }) {
            nodes.append(try node(at: endpoint, HashSlot(0)))
        }
        return nodes
    }

    private func owner(of slot: HashSlot) throws(StoreError) -> RedisNode {
        if let known = topology.withLock({ $0.routes[slot.number] }) { return known }
        let endpoint = topology.withLock { $0.owners.isEmpty ? nil : $0.owners[Int(slot.number)] }
        // Whoever is asked knows better, and says MOVED.
        let node = try node(at: endpoint ?? location.endpoints[0], slot)
        if endpoint != nil || !location.isCluster {
            topology.withLock { if !$0.isClosed { $0.routes[slot.number] = node } }
        }
        return node
    }

    /// A connection to an endpoint: always the same for one slot, so that commands about one key keep their order.
    private func node(at endpoint: RedisLocation.Endpoint, _ slot: HashSlot) throws(StoreError) -> RedisNode {
        let node: RedisNode? = topology.withLock { topology in
            if topology.isClosed { return nil }
            let index = Int(slot.number >> 6) % location.connections
            if let nodes = topology.nodes[endpoint] { return nodes[index] }
            let nodes = (0..<location.connections).map { _ in RedisNode(endpoint, dialing, onConnected: onConnected) }
            topology.nodes[endpoint] = nodes
            return nodes[index]
        }
        guard let node else { throw StoreError(.stopped, "The Redis store was closed.") }
        return node
    }

    /// Learns the map anew in the background, once for all who ask while it is under way.
    private func refresh() {
        topology.withLock { topology in
            guard topology.refresh == nil, !topology.isClosed, location.isCluster else { return }
            topology.refresh = dialing.environment.detach { [weak self] in
                do throws(StoreError) {
                    try await self?.learn()
                } catch {
                    // Nobody could be asked; the next command that fails asks again.
                }
                self?.topology.withLock { $0.refresh = nil }
            }
        }
    }

    private func learn() async throws(StoreError) {
        let known = topology.withLock { Array($0.nodes.keys) }
        let candidates = known + location.endpoints.filter { !known.contains($0) }
        var last = StoreError(.unavailable, "No node of the cluster \(location) can be reached.")
        for endpoint in candidates {
            do throws(StoreError) {
                guard case .success(let reply) = try await node(at: endpoint, HashSlot(0)).send(RedisCommand("CLUSTER", "SLOTS")) else {
                    continue
                }
                if case .error(let text) = reply {
                    if text.contains("cluster support disabled") {
                        throw StoreError(
                            .misconfigured, "Redis at \(endpoint) is not a node of a cluster. Remedy: write redis://\(endpoint).")
                    }
                    throw .refusal(text, by: "\(endpoint)")
                }
                let owners = Self.owners(in: reply, saidBy: endpoint)
                guard owners.contains(where: { $0 != nil }) else {
                    throw StoreError(
                        .unavailable, "The cluster of \(endpoint) has no slots assigned. Remedy: create it with redis-cli --cluster create."
                    )
                }
                let gone = topology.withLock { topology in
                    topology.owners = owners
                    topology.routes = [:]
                    let needed = Set(owners.compactMap(\.self)).union(location.endpoints)
                    let gone = topology.nodes.filter { !needed.contains($0.key) }
                    for endpoint in gone.keys { topology.nodes[endpoint] = nil }
                    return gone.values.flatMap(\.self)
                }
                // Whoever waits for a reply of theirs holds them; the connections end with the last of these.
                _ = gone
                return
            } catch {
                if error.code == .stopped { throw error }
                last = error
            }
        }
        throw last
    }

    private static func owners(in reply: RESPValue, saidBy endpoint: RedisLocation.Endpoint) -> [RedisLocation.Endpoint?] {
        var owners = [RedisLocation.Endpoint?](repeating: nil, count: HashSlot.count)
        for range in reply.elements ?? [] {
            guard let parts = range.elements, parts.count >= 3, let first = parts[0].integer, let last = parts[1].integer,
                let node = parts[2].elements, node.count >= 2, let port = node[1].integer,
                first >= 0, last < HashSlot.count, first <= last
            else { continue }
            let host = node[0].text.flatMap { $0.isEmpty || $0 == "?" ? nil : $0 } ?? endpoint.host
            for slot in Int(first)...Int(last) { owners[slot] = RedisLocation.Endpoint(host: host, port: Int(port)) }
        }
        return owners
    }
}

/// A reply that says where or when to ask instead.
private enum Redirection {
    case moved(UInt16, RedisLocation.Endpoint)
    case ask(RedisLocation.Endpoint)
    case later(String)
    case readOnly(String)

    init?(_ reply: RESPValue) {
        guard case .error(let text) = reply else { return nil }
        let words = text.split(separator: " ")
        switch words.first {
        case "MOVED", "ASK":
            guard words.count >= 3, let slot = UInt16(words[1]), slot < HashSlot.count, let colon = words[2].lastIndex(of: ":"),
                let port = Int(words[2][words[2].index(after: colon)...])
            else { return nil }
            let endpoint = RedisLocation.Endpoint(host: String(words[2][..<colon]), port: port)
            self = words.first == "MOVED" ? .moved(slot, endpoint) : .ask(endpoint)
        case "TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN": self = .later(text)
        case "READONLY": self = .readOnly(text)
        default: return nil
        }
    }
}
