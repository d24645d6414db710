#if Postgres
public import Semel

/// What was found out about a server before anything is entrusted to it; for `semel store check`.
public struct PostgresInspection: Sendable {
    /// As the server writes it.
    public var serverVersion: String
    public var durability: StoreCapabilities.Durability
    /// The version of the store's tables; `nil` when there are none.
    public var schemaVersion: Int?
    /// How far the server's clock is ahead of this machine's. Only the server's decides.
    public var clockOffset: Duration
    /// What the store could not run with, in the order of its weight; empty when it could.
    public var problems: [StoreError]
}

extension PostgresInspection {
    /// The oldest server that this store runs on.
    static let leastVersion = 140_000

    init(_ connection: Connection, at target: Target, within time: Duration, wallClock: () -> Int64) throws {
        let before = wallClock()
        let rows = try connection.run(
            [
                .text(
                    """
                    SELECT current_setting('server_version'), pg_is_in_recovery(), current_setting('transaction_read_only') = 'on',
                        current_setting('fsync') = 'on', current_setting('full_page_writes') = 'on', current_setting('synchronous_commit'),
                        \(Statements.microseconds)
                    """)
            ], within: time)[0].get()
        let middle = before + (wallClock() - before) / 2
        serverVersion = rows.text(0, 0)
        clockOffset = .microseconds(rows.integer(0, 6, as: Int64.self) - middle)
        var weaknesses: [String] = []
        if !rows.flag(0, 3) { weaknesses.append("fsync is off") }
        if !rows.flag(0, 4) { weaknesses.append("full_page_writes is off") }
        if rows.text(0, 5) == "off" { weaknesses.append("synchronous_commit is off") }
        durability = weaknesses.isEmpty ? .durable : .forgetful(weaknesses.joined(separator: ", "))
        schemaVersion = try Schema.found(on: connection, in: target, within: time)
        problems = []
        if connection.serverVersion < Self.leastVersion {
            problems.append(
                StoreError(.serverTooOld, "\(target.place): the server is PostgreSQL \(serverVersion); 14 or later is needed: upgrade it"))
        }
        if rows.flag(0, 1) || rows.flag(0, 2) {
            problems.append(
                StoreError(.readOnly, "\(target.place): the server takes no writes, it is \(rows.flag(0, 1) ? "a replica" : "set read-only"): name the primary in the store's URL"))
        }
        do {
            try Schema.check(schemaVersion, at: target)
        } catch {
            problems.append(error)
        }
    }
}
#endif
