#if Postgres
import Semel
#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// One thread's connection, made anew when it is lost.
final class Session {
    /// What a connection is used for.
    enum Purpose {
        /// The store's own statements, whose plans are steered: a batch planned while the table was small must not scan it
        /// when it is large.
        case records
        /// A caller's statements too, which are planned as the server does.
        case callers

        fileprivate var settings: [(String, String)] {
            switch self {
            case .records:
                [
                    ("enable_seqscan", "off"), ("enable_hashjoin", "off"), ("enable_mergejoin", "off"), ("enable_sort", "on"),
                    ("plan_cache_mode", "force_generic_plan"), ("jit", "off"), ("default_transaction_isolation", "read committed"),
                ]
            case .callers: [("default_transaction_isolation", "read committed")]
            }
        }
    }

    let shared: Shared
    private let purpose: Purpose
    private var current: Connection?
    /// The server's process behind the current connection, or behind the last one.
    private var process: ServerProcess?
    private var failures = 0
    private var nextAttempt = Duration.zero

    init(_ shared: Shared, for purpose: Purpose) {
        self.shared = shared
        self.purpose = purpose
    }

    var answerLimit: Duration { shared.configuration.answerLimit }
    private var now: Duration { shared.environment.uptime() }

    /// The connection, made if there is none, by attempts that grow rarer (exponential, full jitter) until the deadline.
    func connection(until deadline: Duration) throws(StoreError) -> Connection {
        if let current { return current }
        while true {
            if nextAttempt > now { pause(min(nextAttempt, deadline) - now) }
            do throws(StoreError) {
                let connection = try connect()
                current = connection
                failures = 0
                return connection
            } catch {
                failures += 1
                let bound = min(5000, 25 << min(failures, 8))
                nextAttempt = now + .milliseconds(Int64(shared.environment.random() % UInt64(bound)) + 1)
                guard error.isTransient, nextAttempt < deadline else { throw error }
            }
        }
    }

    /// Gives the connection up; the next use makes a new one, and waits until the server has given up the old one too.
    func disconnect() { current = nil }

    /// A process of the server; its number alone may be given again.
    private struct ServerProcess {
        let number: Int32
        /// In microseconds since 1970.
        let start: Int64
    }

    /// Ends what the server may still be doing, or have in store, of a connection that was given up. Else it could come to
    /// effect after the same was said again, and answered: an epoch would change under its holder.
    private func end(_ former: ServerProcess, by connection: Connection) throws {
        let deadline = now + answerLimit
        while true {
            let found = try connection.run(
                [
                    .text(
                        """
                        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                        WHERE pid = \(former.number) AND (date_part('epoch', backend_start) * 1000000)::bigint = \(former.start)
                        """)
                ], within: answerLimit)[0].get()
            if found.count == 0 { return }
            guard now < deadline else {
                throw StoreError(
                    .unavailable,
                    "\(shared.target.place): the server's process \(former.number), whose connection was lost, does not end: end it by hand")
            }
            pause(.milliseconds(2))
        }
    }

    private func connect() throws(StoreError) -> Connection {
        let connection = try Connection(
            to: shared.target, within: shared.configuration.connectLimit, uptime: shared.environment.uptime, name: "semel")
        let limit = String(max(1, answerLimit.milliseconds))
        let settings = purpose.settings + [("statement_timeout", limit), ("idle_in_transaction_session_timeout", "60000")]
        let list = settings.map { "set_config('\($0.0)', '\($0.1)', false)" }.joined(separator: ", ")
        do {
            let replies = try connection.run(
                [
                    // Whatever the server's default becomes meanwhile: what is answered here was synced.
                    .text("SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off' AND \(shared.durability == .durable)"),
                    .text("SELECT version FROM \(shared.target.quotedSchema).meta"),
                    .text(
                        """
                        SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on',
                            current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on'
                                AND current_setting('synchronous_commit') <> 'off',
                            pid, (date_part('epoch', backend_start) * 1000000)::bigint, \(list)
                        FROM pg_stat_activity WHERE pid = pg_backend_pid()
                        """)
                ], within: shared.configuration.connectLimit)
            let version = try replies[1].get()
            if version.count == 1, version.integer(0, 0, as: Int32.self) > Int32(Schema.version) {
                throw StoreError(
                    .newerSchema,
                    "\(shared.target.place): the store's schema has version \(version.text(0, 0)) by now, and this program knows up to \(Schema.version): run the newer program")
            }
            _ = try replies[0].get()
            let rows = try replies[2].get()
            guard rows.count == 1 else {
                throw StoreError(.misconfigured, "\(shared.target.place): the user does not see its own connection in pg_stat_activity")
            }
            if rows.flag(0, 0) {
                throw StoreError(.readOnly, "\(shared.target.place): the server takes no writes any more: name the primary in the store's URL")
            }
            if shared.durability == .durable, !rows.flag(0, 1) {
                throw StoreError(
                    .misconfigured,
                    "\(shared.target.place): the server was durable when the store was opened and is not any more (fsync, full_page_writes, synchronous_commit): set it right, or open the store anew")
            }
            if let process { try end(process, by: connection) }
            process = ServerProcess(number: rows.integer(0, 2), start: rows.integer(0, 3))
            return connection
        } catch let error as StoreError {
            throw error
        } catch let lost as Connection.Lost {
            throw StoreError(.unavailable, "\(shared.target.place): cannot be reached: \(lost)", underlying: lost)
        } catch {
            throw shared.error(error)
        }
    }

    /// The connection, waited for as long as a call is.
    func connection() throws(StoreError) -> Connection {
        try connection(until: now + shared.configuration.patience)
    }

    /// Runs commands and returns their answers.
    func run(_ commands: [Connection.Command]) throws -> [Rows] {
        try connection().run(commands, within: answerLimit).map { reply throws(PostgresError) in try reply.get() }
    }

    /// Runs `body` in a transaction of its own. It commits by itself, as the last of what it runs.
    func transaction<Value>(_ body: () throws -> Value) throws -> Value {
        var conflicts = 0
        while true {
            do {
                let value = try body()
                if try connection().transactionState != .none { _ = try run([.text("ROLLBACK")]) }
                return value
            } catch let lost as Connection.Lost {
                throw lost
            } catch {
                if let current, current.transactionState != .none { _ = try run([.text("ROLLBACK")]) }
                guard let error = error as? PostgresError, error.isConflict, conflicts < 20 else { throw error }
                conflicts += 1
                pause(.milliseconds(Int64(shared.environment.random() % UInt64(1 << min(conflicts, 6)))))
            }
        }
    }

    func pause(_ time: Duration) {
        guard time > .zero else { return }
        usleep(UInt32(clamping: time.milliseconds * 1000 + 500))
    }
}

extension Duration {
    var milliseconds: Int64 { components.seconds * 1000 + components.attoseconds / 1_000_000_000_000_000 }
}
#endif
