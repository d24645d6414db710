internal import Semel

/// Where a walk over all keys stands.
struct PurgeWalk: Sendable {
    var endpoint: RedisLocation.Endpoint?
    var cursor = "0"
}

extension Engine {
    /// Removes what has outlived its retention, beginning where the walk before ended, until so much is removed or every key
    /// was looked at.
    func purge(limit: Int, looking budget: Int = .max, from walk: inout PurgeWalk) async throws(StoreError) -> PurgeReport {
        var report = PurgeReport(outcomes: 0, keys: 0)
        let nodes = try await client.masters()
        guard !nodes.isEmpty else { return report }
        var index = nodes.firstIndex { $0.endpoint == walk.endpoint } ?? 0
        if nodes[index].endpoint != walk.endpoint { walk = PurgeWalk(endpoint: nodes[index].endpoint) }
        var looked = 0
        // A walk that begins in the midst of a server comes to that one again, for its beginning.
        for _ in 0..<(walk.cursor == "0" ? nodes.count : nodes.count + 1) {
            repeat {
                guard report.outcomes + report.keys < limit, looked < budget else { return report }
                let (next, references) = try await scanOnce(nodes[index], from: walk.cursor)
                looked += max(1, references.count)
                // A part that was not finished is looked at again.
                guard try await strip(references, limit, &report) else { return report }
                walk.cursor = next
            } while walk.cursor != "0"
            index = (index + 1) % nodes.count
            walk.endpoint = nodes[index].endpoint
        }
        return report
    }

    private func strip(_ references: [OperationReference], _ limit: Int, _ report: inout PurgeReport) async throws(StoreError) -> Bool {
        var rest = references[...]
        while !rest.isEmpty {
            let room = limit - report.outcomes - report.keys
            guard room > 0 else { return false }
            let part = rest.prefix(min(room, 500))
            rest = rest.dropFirst(part.count)
            let calls = part.map { reference in
                let bucket = keys.bucket(of: reference)
                var least: [UInt8] = []
                least.appendNumber(leastTime(bucket), bytes: 7)
                return Call(script: Scripts.strip, keys: [keys.record(reference)], arguments: [least], bucket: bucket)
            }
            for reply in try await run(calls) {
                switch reply {
                case .integer(1): report.outcomes += 1
                case .integer(2): report.keys += 1
                // A record that cannot be taken apart is not forgotten.
                default: break
                }
            }
        }
        return true
    }
}

extension Engine {
    /// Looks after the store until the task ends: watchers look again, the server is checked again, what has expired goes.
    func keepHouse() async {
        var walk = PurgeWalk()
        var second = 0
        while !Task.isCancelled {
            do { try await environment.clock.sleep(for: .seconds(1)) } catch { return }
            second += 1
            // A message may have been missed, and a key that was absent when it was watched tells nothing.
            observations.signalAll()
            if second % 10 == 0 { await checkServers() }
            if second % 60 == 0, configuration.purgesByItself {
                do throws(StoreError) {
                    try await purgeAPart(&walk)
                } catch {
                    // The server is not to be had; what has expired waits, and answers as expired meanwhile.
                }
            }
        }
    }

    /// A sixtieth of all keys a minute, so a whole round takes an hour; one process of all that share the store.
    private func purgeAPart(_ walk: inout PurgeWalk) async throws(StoreError) {
        let turn = try await client.send(
            RedisCommand("SET", keys.housekeeper, "1", "NX", "PX", "50000"), HashSlot(of: keys.housekeeper))
        guard turn.text == "OK" else { return }
        var size = 0
        for node in try await client.masters() {
            if case .success(let reply) = try await node.send(RedisCommand("DBSIZE")) { size += Int(reply.integer ?? 0) }
        }
        _ = try await purge(limit: .max, looking: max(2000, size / 60), from: &walk)
    }

    /// Whether the servers still are what the store declared when it was opened.
    func checkServers() async {
        do throws(StoreError) {
            var facts: [ServerFacts] = []
            for node in try await client.masters() {
                let fact = try await ServerFacts.ask(node)
                try fact.check(asCluster: client.location.isCluster)
                facts.append(fact)
            }
            let durability = facts.durability
            if case .forgetful(let why) = durability, declared.withLock({ $0 }) == .durable {
                problem.withLock {
                    $0 =
                        "Redis at \(client.location) was durable when the store was opened and is no more (\(why)). Remedy: set it back, or start Semel anew at the lower level"
                }
            } else {
                problem.withLock { $0 = nil }
            }
        } catch {
            // That it cannot be reached is found out by whoever asks for its health.
            if error.code != .unavailable { problem.withLock { $0 = error.message } }
        }
    }

    func health() async -> StoreHealth {
        if let problem = problem.withLock({ $0 }) { return StoreHealth(isReady: false, detail: problem) }
        do throws(StoreError) {
            let replies = try await client.send((0..<KeySpace.bucketCount).map { (RedisCommand("ZCARD", [keys.index($0)]), keys.slot($0)) })
            for case .error(let text) in replies { throw .refusal(text, by: "\(client.location)") }
            // A server that cannot write its log refuses this as it refuses writes, while it answers all that only reads.
            for node in try await client.masters() {
                if case .success(.error(let text)) = try await node.send(RedisCommand("PING")) { throw .refusal(text, by: "\(node.endpoint)") }
            }
            return StoreHealth(
                isReady: true, detail: "Redis at \(client.location)", liveRecords: replies.reduce(0) { $0 + Int($1.integer ?? 0) })
        } catch {
            return StoreHealth(isReady: false, detail: error.message)
        }
    }
}
