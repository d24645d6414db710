internal import Semel

/// An audit entry as the script that carried out the decision left it, with the record: not yet in the chain.
struct PendingAudit {
    var time: Timestamp
    var policy: PolicyNumber
    var before: (state: UInt8, epoch: Epoch)
    var after: (state: UInt8, epoch: Epoch)
    var act: OperatorAct
    var action: String
    var reference: OperationReference
    /// Tells it from every other.
    var nonce: [UInt8]

    /// What the caller of the script knows of it.
    static func head(_ act: OperatorAct, _ action: String, _ reference: OperationReference, _ nonce: Owner) -> [UInt8] {
        var writer = ByteWriter()
        writer.write(nonce.high)
        writer.write(nonce.low)
        writer.writeRaw(reference.bytes)
        writer.writeLengthPrefixed(act.actor)
        writer.writeLengthPrefixed(act.reason)
        writer.writeLengthPrefixed(action)
        return writer.bytes
    }

    init(_ bytes: [UInt8]) throws {
        var reader = ByteReader(bytes)
        time = Timestamp(microseconds: Int64(try reader.readNumber(bytes: 7)))
        policy = PolicyNumber(rawValue: UInt32(truncatingIfNeeded: try reader.readNumber(bytes: 4)))
        before = (try reader.read(), try reader.readEpoch())
        after = (try reader.read(), try reader.readEpoch())
        nonce = Array(try reader.readRaw(count: 16))
        reference = OperationReference(high: try reader.readNumber(bytes: 8), low: try reader.readNumber(bytes: 8))
        let (actor, reason) = (try reader.readLengthPrefixedText(), try reader.readLengthPrefixedText())
        act = OperatorAct(actor: actor, reason: reason)
        action = try reader.readLengthPrefixedText()
        try reader.finish()
    }

    /// States and epochs, never key or outcome; as the other stores say it.
    var detail: String {
        func name(_ side: (state: UInt8, epoch: Epoch)) -> String {
            RecordState(rawValue: side.state).map { "\($0) epoch \(side.epoch)" } ?? "absent"
        }
        return "\(name(before)) -> \(name(after))"
    }
}

// The audit log is one chain for the whole store, in one hash on one server, and a decision changes a record that may lie on
// another. So the script that decides leaves the entry beside the record, in one step with it; then it is put into the
// chain, and only then taken from beside the record. Whatever is interrupted is gone on with by whoever comes next: an entry
// that is in the chain already is known by its nonce.
extension Engine {
    private static let append = Script(
        """
        local last = tonumber(redis.call('HGET', KEYS[1], 'last') or '0')
        if redis.call('HEXISTS', KEYS[1], '@' .. ARGV[3]) == 1 then return -1 end
        if last ~= tonumber(ARGV[1]) then return last end
        redis.call('HSET', KEYS[1], 'last', last + 1, string.format('%d', last + 1), ARGV[2], '@' .. ARGV[3], last + 1)
        return -2
        """)

    /// Puts what lies in the buckets into the chain, oldest first.
    func chainAudit() async throws(StoreError) {
        let all = [Array("0".utf8), Array("-1".utf8)]
        let replies = try await client.send(
            (0..<KeySpace.bucketCount).map { (RedisCommand("LRANGE", [keys.audit($0)] + all), keys.slot($0)) })
        var pending: [(bucket: Int, bytes: [UInt8], entry: PendingAudit)] = []
        for (bucket, reply) in replies.enumerated() {
            if case .error(let text) = reply { throw .refusal(text, by: "\(client.location)") }
            for bytes in (reply.elements ?? []).compactMap(\.bytes) {
                do {
                    pending.append((bucket, bytes, try PendingAudit(bytes)))
                } catch {
                    throw StoreError(.damaged, "An audit entry in bucket \(bucket) cannot be read: \(error).", underlying: error)
                }
            }
        }
        pending.sort { $0.entry.time < $1.entry.time }
        for item in pending {
            try await chain(item.entry)
            let gone = try await client.send(
                RedisCommand("LREM", [keys.audit(item.bucket), Array("1".utf8), item.bytes]), keys.slot(item.bucket))
            if case .error(let text) = gone { throw .refusal(text, by: "\(client.location)") }
        }
    }

    private func chain(_ pending: PendingAudit) async throws(StoreError) {
        let scene = try await policies.policy(pending.policy)?.scene ?? ""
        while true {
            let (last, hash) = try await endOfChain()
            let entry = AuditEntry(
                sequence: last + 1, time: pending.time, act: pending.act, action: pending.action, operation: pending.reference,
                scene: scene,
                detail: pending.detail, following: hash)
            let call = Call(
                script: Self.append, keys: [Array(keys.auditChain.utf8)],
                arguments: [Array(String(last).utf8), Self.encode(entry), pending.nonce], bucket: 0)
            let slot = HashSlot(of: keys.auditChain)
            var reply = try await client.send(call.command, slot)
            if case .error(let text) = reply, text.hasPrefix("NOSCRIPT") { reply = try await client.send(call.commandInFull, slot) }
            switch reply {
            // Now, or by somebody else before.
            case .integer(-2), .integer(-1): return
            // Somebody else appended in between: follow that one.
            case .integer: continue
            case .error(let text): throw .refusal(text, by: "\(client.location)")
            default: throw StoreError(.damaged, "The audit log gave the answer \(reply).")
            }
        }
    }

    private func endOfChain() async throws(StoreError) -> (last: Int64, hash: [UInt8]) {
        let slot = HashSlot(of: keys.auditChain)
        let reply = try await client.send(RedisCommand("HGET", keys.auditChain, "last"), slot)
        if case .error(let text) = reply { throw .refusal(text, by: "\(client.location)") }
        guard let last = reply.integer, last > 0 else { return (0, AuditEntry.genesisHash) }
        guard let entry = try await entries(from: last, count: 1).first else {
            throw StoreError(.damaged, "The audit log has no entry \(last), which is its last.")
        }
        return (last, entry.hash)
    }

    func audit(after sequence: Int64, limit: Int) async throws(StoreError) -> [AuditEntry] {
        try await chainAudit()
        return limit > 0 ? try await entries(from: max(0, sequence) + 1, count: limit) : []
    }

    private func entries(from first: Int64, count: Int) async throws(StoreError) -> [AuditEntry] {
        var entries: [AuditEntry] = []
        var next = first
        while entries.count < count {
            let part = min(count - entries.count, 500)
            let numbers = (0..<Int64(part)).map { String(next + $0) }
            let reply = try await client.send(RedisCommand(["HMGET", keys.auditChain] + numbers), HashSlot(of: keys.auditChain))
            if case .error(let text) = reply { throw .refusal(text, by: "\(client.location)") }
            for (offset, value) in (reply.elements ?? []).enumerated() {
                guard let bytes = value.bytes else { return entries }
                do {
                    entries.append(try Self.decode(bytes, sequence: next + Int64(offset)))
                } catch {
                    throw StoreError(.damaged, "Audit entry \(next + Int64(offset)) cannot be read: \(error).", underlying: error)
                }
            }
            next += Int64(part)
        }
        return entries
    }

    private static func encode(_ entry: AuditEntry) -> [UInt8] {
        var writer = ByteWriter()
        writer.write(entry.time.microseconds)
        for text in [entry.actor, entry.reason, entry.action, entry.operation.description, entry.scene, entry.detail] {
            writer.writeLengthPrefixed(text)
        }
        writer.writeRaw(entry.previousHash)
        writer.writeRaw(entry.hash)
        return writer.bytes
    }

    private static func decode(_ bytes: [UInt8], sequence: Int64) throws -> AuditEntry {
        var reader = ByteReader(bytes)
        let time = Timestamp(microseconds: try reader.read())
        var texts: [String] = []
        for _ in 0..<6 { texts.append(try reader.readLengthPrefixedText()) }
        guard let operation = OperationReference(texts[3]) else { throw RecordCodec.Failure("it names no operation") }
        let (previous, hash) = (Array(try reader.readRaw(count: 32)), Array(try reader.readRaw(count: 32)))
        try reader.finish()
        return AuditEntry(
            sequence: sequence, time: time, act: OperatorAct(actor: texts[0], reason: texts[1]), action: texts[2], operation: operation,
            scene: texts[4], detail: texts[5], previousHash: previous, storedHash: hash)
    }
}
