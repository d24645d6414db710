internal import Semel

/// The store at work: what its tasks share. It lives as long as the ``RedisStore`` in front of it.
final class Engine: Sendable {
    let client: RedisClient
    let keys: KeySpace
    let policies: Policies
    let counts: LiveCounts
    let observations = ObservationRegistry()
    let environment: Environment
    let dialing: RedisDialing
    let configuration: RedisStore.Configuration
    private let time: SeenTime
    private let incarnation = Locked((value: UInt16(0), isKnown: false))
    private let subscriber = Locked<RedisSubscriber?>(nil)
    /// What the store said of itself when it was opened, and what is wrong since.
    let declared = Locked(StoreCapabilities.Durability.durable)
    let problem = Locked<String?>(nil)

    init(
        _ location: RedisLocation, _ configuration: RedisStore.Configuration, _ environment: Environment, time: SeenTime? = nil
    ) throws(StoreError) {
        self.environment = environment
        self.time = time ?? SeenTime(isShared: !location.isCluster)
        self.configuration = configuration
        dialing = try RedisDialing(
            location, patience: configuration.patience, environment: environment,
            preparation: Scripts.all.map { RedisCommand("SCRIPT", "LOAD", $0.text) })
        keys = KeySpace(prefix: location.prefix)
        // What a new connection means for what is known of the server; set once all is made.
        let reconnected = Locked<(@Sendable () -> Void)?>(nil)
        client = RedisClient(dialing, endurance: configuration.patience, onConnected: { reconnected.withLock { $0 }?() })
        policies = Policies(client, keys)
        counts = LiveCounts(client, keys, environment)
        reconnected.withLock {
            $0 = { [policies, incarnation] in
                policies.doubt()
                incarnation.withLock { $0.isKnown = false }
            }
        }
    }

    func close() {
        subscriber.withLock { $0 }?.close()
        client.close()
    }

    // MARK: One key

    /// An operation as the scripts know it.
    struct Subject {
        let id: OperationID
        let reference: OperationReference
        let bucket: Int
        let identity: [UInt8]
        let name: [UInt8]
    }

    func subject(_ id: OperationID) throws(StoreError) -> Subject {
        guard id.scope.bytes.count <= RecordCodec.scopeLimit else {
            throw StoreError(.refused, "The scope has \(id.scope.bytes.count) bytes; the Redis store takes \(RecordCodec.scopeLimit).")
        }
        let reference = OperationReference(id)
        return Subject(
            id: id, reference: reference, bucket: keys.bucket(of: reference), identity: RecordCodec.identity(id),
            name: keys.record(reference))
    }

    /// A script's call that can be made again in full.
    struct Call {
        let script: Script
        let keys: [[UInt8]]
        let arguments: [[UInt8]]
        let bucket: Int

        var command: RedisCommand { script.call(keys: keys, arguments) }
        var commandInFull: RedisCommand { script.callInFull(keys: keys, arguments) }
    }

    /// Runs one script on the server that has the bucket.
    func run(_ call: Call) async throws(StoreError) -> RESPValue {
        guard configuration.waitForReplicas == nil else { return try await run([call])[0] }
        let reply = try await client.send(call.command, keys.slot(call.bucket))
        return try await finished(call, reply)
    }

    /// Runs scripts, those for one server in one write and in their order.
    func run(_ calls: [Call]) async throws(StoreError) -> [RESPValue] {
        var commands = calls.map { ($0.command, keys.slot($0.bucket)) }
        let wait = configuration.waitForReplicas
        if let wait {
            let confirm = RedisCommand("WAIT", String(wait.count), String(wait.timeout.microseconds / 1000))
            commands = commands.flatMap { [$0, (confirm, $0.1)] }
        }
        let replies = try await client.send(commands)
        var results: [RESPValue] = []
        results.reserveCapacity(calls.count)
        for (index, call) in calls.enumerated() {
            results.append(try await finished(call, replies[wait == nil ? index : 2 * index]))
            guard let wait, call.script.changes else { continue }
            let confirmed = replies[2 * index + 1].integer ?? 0
            guard confirmed >= wait.count else {
                throw StoreError(
                    .indeterminate,
                    "\(confirmed) of \(wait.count) replicas confirmed the change within \(wait.timeout); the primary has it. Say the same again."
                )
            }
        }
        return results
    }

    private func finished(_ call: Call, _ reply: RESPValue) async throws(StoreError) -> RESPValue {
        guard case .error(let text) = reply else { return reply }
        // The server was restarted, or its scripts were flushed. Nothing ran.
        guard text.hasPrefix("NOSCRIPT") else { return reply }
        return try await client.send(call.commandInFull, keys.slot(call.bucket))
    }

    // MARK: Time

    func leastTime(_ bucket: Int) -> UInt64 { time.least(bucket) }

    /// The store's incarnation, read anew after each reconnection.
    func currentIncarnation() async throws(StoreError) -> UInt16 {
        let (value, isKnown) = incarnation.withLock { $0 }
        if isKnown { return value }
        let reply = try await preparing { () async throws(StoreError) in
            try await client.send(RedisCommand("HGET", keys.meta, "incarnation"), HashSlot(of: keys.meta))
        }
        if case .error(let text) = reply { throw .refusal(text, by: "\(client.location)") }
        let read = UInt16(clamping: reply.integer ?? 0)
        return incarnation.withLock { state in
            state = (max(state.value, read), true)
            return state.value
        }
    }

    /// What is asked before a change, and lost, leaves no doubt about the change: it was not sent.
    func preparing<Value: Sendable>(_ body: () async throws(StoreError) -> Value) async throws(StoreError) -> Value {
        do throws(StoreError) {
            return try await body()
        } catch {
            throw error.code == .indeterminate ? StoreError(.unavailable, error.message, underlying: error) : error
        }
    }

    func forgetIncarnation() { incarnation.withLock { $0.isKnown = false } }

    // MARK: Answers

    /// What a script answered: its kind, the store's time, and the rest.
    struct Answer {
        let kind: Scripts.Answer
        let now: Timestamp
        let rest: ArraySlice<UInt8>
    }

    func answer(_ reply: RESPValue, _ bucket: Int) throws(StoreError) -> Answer {
        switch reply {
        case .bulk(let bytes):
            guard bytes.count >= 8, let kind = Scripts.Answer(rawValue: bytes[0]) else { break }
            let now = bytes[1..<8].reduce(0) { $0 << 8 | UInt64($1) }
            time.saw(now, in: bucket)
            return Answer(kind: kind, now: Timestamp(microseconds: Int64(now)), rest: bytes[8...])
        case .error(let text): throw failure(text)
        default: break
        }
        throw StoreError(.damaged, "A script of this store gave an answer that is none of its: \(reply).")
    }

    func kind(_ reply: RESPValue) throws(StoreError) -> Scripts.Answer {
        switch reply {
        case .integer(let number):
            if let kind = UInt8(exactly: number).flatMap({ Scripts.Answer(rawValue: $0) }) { return kind }
        case .error(let text): throw failure(text)
        default: break
        }
        throw StoreError(.damaged, "A script of this store gave an answer that is none of its: \(reply).")
    }

    private func failure(_ text: String) -> StoreError {
        // Lua stops at bytes that it cannot take apart.
        if text.contains("data string too short") || text.contains("bad argument") || text.contains("arithmetic on")
            || text.contains("compare")
        {
            return StoreError(.damaged, "A record in Redis at \(client.location) is damaged: \(text).")
        }
        return .refusal(text, by: "\(client.location)")
    }

    func decode(_ bytes: ArraySlice<UInt8>) async throws(StoreError) -> Result<(id: OperationID, record: Record), RecordCodec.Failure> {
        if let number = RecordCodec.policyNumber(bytes), policies.known(number) == nil { _ = try await policies.policy(number) }
        do throws(RecordCodec.Failure) {
            return .success(try RecordCodec.decode(bytes) { policies.known($0)?.hash })
        } catch {
            return .failure(error)
        }
    }

    // MARK: Watching

    /// Watches a key: changes made here are signalled at once, others by the channel.
    func observe(_ id: OperationID) -> Observation {
        subscriber.withLock { subscriber in
            if subscriber == nil { subscriber = makeSubscriber() }
        }
        return observations.observe(id)
    }

    /// Whether a record that is read now must tell of its changes. Waits for the subscription, which was begun by the
    /// first watch, so that nothing is told before somebody listens.
    func isWatched(_ id: OperationID) async -> Bool {
        guard !observations.isEmpty, observations.isObserved(id) else { return false }
        await subscriber.withLock { $0 }?.ready()
        return true
    }

    func signal(_ id: OperationID) {
        if !observations.isEmpty { observations.signal(id) }
    }

    private func makeSubscriber() -> RedisSubscriber {
        RedisSubscriber(
            dialing, client.location.endpoints, channels: [keys.channel],
            onMessage: { [observations] _, message in
                // What is no identity was published by somebody else.
                if let id = try? RecordCodec.decodeIdentity(message) { observations.signal(id) }
            },
            onReady: { [observations] in observations.signalAll() })
    }
}

extension Script {
    var changes: Bool { text != Scripts.read.text }
}
