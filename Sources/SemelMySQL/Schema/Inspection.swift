#if MySQL
import Foundation
public import Semel

/// What was found out about a server before anything is entrusted to it; for `semel store check`.
public struct MySQLInspection: Sendable {
    /// As the server writes it, with its maker.
    public var serverVersion: String
    public var durability: StoreCapabilities.Durability
    /// The version of the store's tables; `nil` when there are none.
    public var schemaVersion: Int?
    /// How far the server's clock is ahead of this machine's. Only the server's decides.
    public var clockOffset: Duration
    /// What the store could not run with, in the order of its weight; empty when it could.
    public var problems: [StoreError]

    init(_ connection: Connection, at place: String) throws {
        let server = try Server(lookingAt: connection, at: place)
        let before = Date().timeIntervalSince1970
        let time = try connection.rows("SELECT \(Tables.time)")[0][0].integer ?? 0
        let middle = (before + Date().timeIntervalSince1970) / 2
        serverVersion = server.name
        durability = server.durability
        clockOffset = .microseconds(time - Int64(middle * 1_000_000))
        let found = try Schema.find(connection)
        schemaVersion = found.map { Int($0) }
        problems = server.problems.map(\.error)
        do {
            try Schema.check(found, at: place)
        } catch {
            problems.append(error)
        }
    }
}
#endif
