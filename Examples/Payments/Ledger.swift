import HTTPTypes

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// The payments that were made, and how many each key made. Every method is one transaction of the ``Writer``.
struct Ledger: Sendable {
    let writer: Writer

    /// What came with a payment besides its body.
    struct Origin: Sendable {
        /// The client's key, without the quotes of the structured field.
        let key: String?
        let derivedKey: String?
        /// The fencing number of whoever asks; compared with the key's fence.
        let epoch: Int64?
    }

    static func migrate(_ connection: Connection) throws {
        try connection.run(
            """
            CREATE TABLE IF NOT EXISTS effects(
                id TEXT PRIMARY KEY, idempotency_key TEXT, derived_key TEXT, body TEXT NOT NULL, applied_at INTEGER NOT NULL
            )
            """)
        // Not unique: the service is to show what happens when nobody deduplicates for it.
        try connection.run("CREATE INDEX IF NOT EXISTS effects_by_key ON effects(idempotency_key) WHERE idempotency_key IS NOT NULL")
        try connection.run("CREATE TABLE IF NOT EXISTS fences(key TEXT PRIMARY KEY, epoch INTEGER NOT NULL) WITHOUT ROWID")
        try connection.run(
            "CREATE TABLE IF NOT EXISTS deduplicated(key TEXT PRIMARY KEY, request TEXT NOT NULL, effect TEXT NOT NULL) WITHOUT ROWID")
    }

    /// Makes the payment, at every call.
    ///
    /// - Throws: ``Problem`` `stale-epoch` (409), without effect, when the key's fence is above the origin's epoch:
    ///   the comparison and the effect are one transaction, so no late writer passes between them.
    func apply(_ request: PaymentRequest, from origin: Origin) async throws -> Payment {
        try await writer.perform { connection in
            try connection.pass(origin)
            return try connection.insert(Payment(request), from: origin)
        }
    }

    /// Makes the payment unless its key has made one, whose result is then returned: what a service that deduplicates does.
    ///
    /// - Throws: ``Problem`` `key-in-use` (422) when the key made a payment of another order, amount or currency.
    func applyOnce(_ request: PaymentRequest, key: String, from origin: Origin) async throws -> (payment: Payment, isRepeat: Bool) {
        try await writer.perform { connection in
            let canonical = String(decoding: try encodeJSON(request), as: UTF8.self)
            let earlier = try connection.rows(
                "SELECT request, body FROM deduplicated JOIN effects ON id = effect WHERE key = ?", .text(key)
            ) { (request: $0.text(0), body: $0.text(1)) }.first
            if let earlier {
                guard earlier.request == canonical else {
                    throw Problem(.unprocessableContent, code: "key-in-use", detail: "The key was used for another payment.")
                }
                return (try decode(earlier.body), true)
            }
            try connection.pass(origin)
            let payment = try connection.insert(Payment(request), from: origin)
            try connection.run(
                "INSERT INTO deduplicated(key, request, effect) VALUES (?, ?, ?)", .text(key), .text(canonical), .text(payment.id))
            return (payment, false)
        }
    }

    /// The first payment that the key made, or nil when it has made none.
    ///
    /// With an epoch, the fence is raised first: whoever asks with a higher one and hears "none" knows that no older
    /// attempt can make it any more.
    func payment(key: String, raisingFenceTo epoch: Int64?) async throws -> Payment? {
        try await writer.perform { connection in
            if let epoch { try connection.raiseFence(of: key, to: epoch) }
            return try connection.rows(
                "SELECT body FROM effects WHERE idempotency_key = ? ORDER BY rowid LIMIT 1", .text(key)
            ) { try decode($0.text(0)) }.first
        }
    }

    func payment(id: String) async throws -> Payment? {
        try await writer.perform { connection in
            try connection.rows("SELECT body FROM effects WHERE id = ?", .text(id)) { try decode($0.text(0)) }.first
        }
    }

    struct Summary: Encodable, Sendable {
        let effects: Int
        let keys: Int
        let doubled: [KeyCount]
    }

    struct KeyCount: Encodable, Sendable {
        let key: String
        let count: Int
    }

    /// All effects, the distinct keys that came with them, and those keys that took effect more than once.
    func summary() async throws -> Summary {
        try await writer.perform { connection in
            let totals = try connection.rows("SELECT count(*), count(DISTINCT idempotency_key) FROM effects") {
                (effects: Int($0.integer(0)), keys: Int($0.integer(1)))
            }
            let doubled = try connection.counts(having: "HAVING count(*) > 1")
            return Summary(effects: totals[0].effects, keys: totals[0].keys, doubled: doubled)
        }
    }

    func counts() async throws -> [KeyCount] {
        try await writer.perform { try $0.counts() }
    }
}

extension Connection {
    fileprivate func pass(_ origin: Ledger.Origin) throws {
        guard let key = origin.key, let epoch = origin.epoch else { return }
        let fence = try rows("SELECT epoch FROM fences WHERE key = ?", .text(key)) { $0.integer(0) }.first
        if let fence, fence > epoch {
            let detail = "Epoch \(epoch) is below the fence \(fence) of this key; nothing was done."
            throw Problem(.conflict, code: "stale-epoch", detail: detail)
        }
        try raiseFence(of: key, to: epoch)
    }

    fileprivate func raiseFence(of key: String, to epoch: Int64) throws {
        try run(
            "INSERT INTO fences(key, epoch) VALUES (?, ?) ON CONFLICT(key) DO UPDATE SET epoch = max(epoch, excluded.epoch)",
            .text(key), .integer(epoch))
    }

    fileprivate func insert(_ payment: Payment, from origin: Ledger.Origin) throws -> Payment {
        try run(
            "INSERT INTO effects(id, idempotency_key, derived_key, body, applied_at) VALUES (?, ?, ?, ?, ?)",
            .text(payment.id), .text(optional: origin.key), .text(optional: origin.derivedKey),
            .text(String(decoding: try encodeJSON(payment), as: UTF8.self)),
            .integer(Int64(Date().timeIntervalSince1970 * 1000)))
        return payment
    }

    fileprivate func counts(having condition: String = "") throws -> [Ledger.KeyCount] {
        try rows(
            """
            SELECT idempotency_key, count(*) FROM effects WHERE idempotency_key IS NOT NULL
            GROUP BY idempotency_key \(condition) ORDER BY idempotency_key
            """
        ) { Ledger.KeyCount(key: $0.text(0), count: Int($0.integer(1))) }
    }
}

private func decode(_ body: String) throws -> Payment {
    try JSONDecoder().decode(Payment.self, from: Data(body.utf8))
}
