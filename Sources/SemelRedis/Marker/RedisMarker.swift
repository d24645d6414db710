public import Logging
public import Semel

/// A short-lived *pending* mark in Redis in front of a database with a unique constraint.
///
/// The mark keeps repeats away from the database while a first request is on its way through a queue; the constraint
/// decides. So the composition is as good as the constraint, which deduplicates by a deterministic key for as long as the
/// row is kept, and no failure of Redis changes that: without Redis every request asks the database.
///
/// - A mark is set only where there is none, for at least ``Configuration/floor``, with some seconds of chance on top so
///   that marks set together do not end together. A repeat never prolongs it (R9); its owner alone removes it.
/// - A mark that has gone says nothing about the work: whoever carries the request out asks the database, and writes what is
///   not there (R10). A conflict with this operation's own earlier write is success (R11), with another's a conflict.
/// - Redis that cannot be asked is never taken for *marked* nor for *free* (R2): the database is asked instead, each such
///   decision is logged, and the marks are used again as soon as Redis answers.
///
/// Not guaranteed: that two requests never reach the database together (a mark may expire, or Redis forget it). Then one of
/// them wins there.
///
/// ```swift
/// let marker = try await RedisMarker("user:pending:", in: location, database: users)
/// switch try await marker.begin("ada") {
/// case .begun(let ticket): try await send(message, ticket)     // 202
/// case .pending: …                                              // 409, in progress
/// case .exists(let user): …                                     // it is done
/// }
/// // the consumer
/// let written = try await marker.write("ada", ticket) { try await users.insert(user, operation: ticket.operation) }
/// ```
public final class RedisMarker<Database: UniqueRows>: Sendable {
    public struct Configuration: Sendable {
        /// How long a mark stands at least: longer than a message may wait, and a consumer take to come back.
        public var floor: Duration
        /// The most that chance adds to it.
        public var jitter: Duration
        /// How long Redis may owe an answer before the database is asked instead.
        public var patience: Duration

        public init(floor: Duration = .seconds(600), jitter: Duration = .seconds(5), patience: Duration = .milliseconds(500)) {
            self.floor = floor
            self.jitter = jitter
            self.patience = patience
        }
    }

    /// The right to carry a request out, which travels with it to whoever does.
    public struct Ticket: Hashable, Sendable {
        /// The same for every repeat of the request's own attempt: the row keeps it, so that an own earlier write is known.
        public var operation: Owner
        /// Whether a mark stands for it; without one the database alone keeps repeats apart.
        public var isMarked: Bool

        public init(operation: Owner, isMarked: Bool) {
            self.operation = operation
            self.isMarked = isMarked
        }
    }

    /// What a request met.
    public enum Beginning: Sendable {
        /// It is the first: carry it out.
        case begun(Ticket)
        /// Another one is on its way.
        case pending
        /// The row is there.
        case exists(Database.Row)
    }

    /// What came of writing.
    public enum Writing: Sendable {
        case written
        /// This operation's own earlier write was there: success, not written again.
        case wasWritten
        /// Somebody else's row has the key.
        case conflict(Database.Row)
    }

    private let client: RedisClient
    private let prefix: [UInt8]
    private let configuration: Configuration
    private let database: Database
    private let environment: Environment
    private let logger: Logger
    private let isDegraded = Locked(false)

    /// What the composition gives to an effect behind it: as long as the database keeps its rows, a repeat meets the first
    /// one's, so it is `deduplicates`, whatever Redis forgets.
    public func effect(keeps: Duration) -> Effect { .deduplicates(keeps: keeps) }

    /// Redis need not be there: the database is asked until it is.
    ///
    /// - Parameter prefix: marks are named by it and the key.
    /// - Throws: `misconfigured` for a floor under ten minutes unless `allowsShortMarks`, for tests.
    public init(
        _ prefix: String, in location: RedisLocation, database: Database, configuration: Configuration = Configuration(),
        allowsShortMarks: Bool = false, environment: Environment = .live, logger: Logger = Logger(label: "semel.marker")
    ) throws(StoreError) {
        guard allowsShortMarks || configuration.floor >= .seconds(600) else {
            throw StoreError(
                .misconfigured,
                "Marks of \(configuration.floor) end before a queue that stands still for minutes goes on. Remedy: let them stand 10 minutes or longer."
            )
        }
        client = RedisClient(
            try RedisDialing(location, patience: configuration.patience, environment: environment), endurance: configuration.patience)
        self.prefix = Array(prefix.utf8)
        self.configuration = configuration
        self.database = database
        self.environment = environment
        self.logger = logger
    }

    public func close() { client.close() }

    /// Whether the last decision was made without Redis.
    public var isDegradedNow: Bool { isDegraded.withLock { $0 } }

    /// Marks a key, unless it is marked, or done.
    ///
    /// - Parameter trace: who asked, for the log.
    public func begin(_ key: String, trace: String? = nil) async throws -> Beginning {
        let operation = environment.newOwner()
        let marked: Bool
        do throws(StoreError) {
            marked = try await mark(key, operation)
            recovered()
        } catch {
            degraded(error, "begin", key, trace)
            if let row = try await database.row(key) { return .exists(row) }
            return .begun(Ticket(operation: operation, isMarked: false))
        }
        guard marked else { return .pending }
        do {
            if let row = try await database.row(key) {
                try? await unmark(key, operation)
                return .exists(row)
            }
        } catch {
            // Nothing was sent: the next one need not wait for the mark to end.
            try? await unmark(key, operation)
            throw error
        }
        return .begun(Ticket(operation: operation, isMarked: true))
    }

    /// Gives a key back whose request was not sent on.
    public func giveBack(_ key: String, _ ticket: Ticket) async { await cleanUp(key, ticket, "give back") }

    /// Writes the row once, by the word of the database alone, and then removes the mark.
    ///
    /// - Parameter insert: writes the row with the ticket's operation; throws what the database throws, the violation of the
    ///   constraint as ``UniqueViolation``.
    public func write(_ key: String, _ ticket: Ticket, trace: String? = nil, _ insert: () async throws -> Void) async throws -> Writing {
        let writing: Writing
        if let row = try await database.row(key) {
            writing = await judged(row, key, ticket)
        } else {
            do {
                try await insert()
                writing = .written
            } catch is UniqueViolation {
                // Written between the question and the insert, or by this one before its answer was lost.
                guard let row = try await database.row(key) else { throw UniqueViolation() }
                writing = await judged(row, key, ticket)
            }
        }
        await cleanUp(key, ticket, "write", trace)
        return writing
    }

    private func judged(_ row: Database.Row, _ key: String, _ ticket: Ticket) async -> Writing {
        if database.operation(of: row) == ticket.operation {
            logger.warning("The row was written before; it is not written again.", metadata: ["key": "\(key)"])
            return .wasWritten
        }
        logger.notice("The key belongs to another operation.", metadata: ["key": "\(key)"])
        return .conflict(row)
    }

    // MARK: The mark

    private func name(_ key: String) -> [UInt8] { prefix + Array(key.utf8) }

    private func mark(_ key: String, _ operation: Owner) async throws(StoreError) -> Bool {
        var generator = environment.generator
        let jitter = Int64.random(in: 0...max(0, configuration.jitter.microseconds / 1000), using: &generator)
        let life = max(1, configuration.floor.microseconds / 1000) + jitter
        let name = name(key)
        let command = RedisCommand(
            "SET", [name, Self.bytes(operation), Array("NX".utf8), Array("PX".utf8), Array(String(life).utf8)])
        let reply: RESPValue
        do throws(StoreError) {
            reply = try await client.send(command, HashSlot(of: name))
        } catch {
            guard error.code == .indeterminate else { throw error }
            // Whether the mark was set is unknown: whoever's it is can be read back (H14).
            let found = try await client.send(RedisCommand("GET", [name]), HashSlot(of: name))
            if found.bytes == Self.bytes(operation) { return true }
            guard case .null = found else { return false }
            throw error
        }
        switch reply {
        case .simple("OK"): return true
        case .null: return false
        case .error(let text): throw .refusal(text, by: "\(client.location)")
        default: throw StoreError(.refused, "Redis answered SET with \(reply).")
        }
    }

    /// Compares the owner and removes, in one step: an owner that was late does not remove its successor's mark (R13).
    private static var removal: Script {
        Script("if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0")
    }

    private func unmark(_ key: String, _ operation: Owner) async throws(StoreError) {
        let name = name(key)
        let reply = try await client.send(
            Self.removal.callInFull(keys: [name], [Self.bytes(operation)]), HashSlot(of: name))
        if case .error(let text) = reply { throw .refusal(text, by: "\(client.location)") }
    }

    private func cleanUp(_ key: String, _ ticket: Ticket, _ what: String, _ trace: String? = nil) async {
        guard ticket.isMarked else { return }
        do throws(StoreError) {
            try await unmark(key, ticket.operation)
            recovered()
        } catch {
            // The mark ends by itself; until then repeats are told that one is pending.
            degraded(error, what, key, trace)
        }
    }

    private static func bytes(_ owner: Owner) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendNumber(owner.high, bytes: 8)
        bytes.appendNumber(owner.low, bytes: 8)
        return bytes
    }

    private func degraded(_ error: StoreError, _ what: String, _ key: String, _ trace: String?) {
        isDegraded.withLock { $0 = true }
        logger.warning(
            "Redis cannot be asked; the database decides.",
            metadata: ["reason": "\(error.message)", "during": "\(what)", "key": "\(key)", "trace": "\(trace ?? "")"])
    }

    private func recovered() {
        let wasDegraded = isDegraded.withLock { isDegraded in
            defer { isDegraded = false }
            return isDegraded
        }
        if wasDegraded { logger.notice("Redis answers again; marks are used.") }
    }
}

/// The database behind a ``RedisMarker``: rows with a unique key, each of which says which operation wrote it.
public protocol UniqueRows: Sendable {
    associatedtype Row: Sendable

    /// The row with the key, from where writes are seen at once: never a replica that lags.
    func row(_ key: String) async throws -> Row?

    /// The operation that wrote the row; ``RedisMarker/Ticket/operation`` of its ticket.
    func operation(of row: Row) -> Owner
}

/// An insert found its key taken.
public struct UniqueViolation: Error, Hashable, Sendable {
    public init() {}
}
