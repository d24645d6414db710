#if Postgres
import Foundation
import Semel
#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Wakes those who observe keys: in this process after each commit, in others by NOTIFY.
///
/// The notifications go by a connection of their own, after the commit: in the data's own transaction they would make
/// commits wait for each other. So one may be lost (a crash in between, a connection that broke), and therefore everybody
/// is woken about once a second anyway: a signal means only "look again".
final class Signals: Sendable {
    /// Keys are known by half of their reference here: whoever is woken for another's change looks once in vain.
    private let observations = Observations<UInt64>()
    private let state = Locked(State())

    private struct State {
        var outgoing: [UInt64] = []
        /// Somebody else listens.
        var hasPeers = true
        var wake: CInt = -1
        var isClosing = false
        var isRunning = false
        var isActive = false
    }

    func observe(_ id: OperationID) -> Observation { observations.observe(OperationReference(id).high) }

    /// Absent keys were claimed. Nobody elsewhere waits for that.
    func claimed(_ ids: [OperationReference]) {
        guard !observations.isEmpty else { return }
        for id in ids { observations.signal(id.high) }
    }

    func changed(_ ids: [OperationReference]) {
        guard !ids.isEmpty else { return }
        claimed(ids)
        state.withLock { state in
            state.isActive = true
            guard state.hasPeers, state.outgoing.count < 100_000 else { return }
            let wakes = state.outgoing.isEmpty
            state.outgoing += ids.map(\.high)
            if wakes, state.wake >= 0 { _ = write(state.wake, [1], 1) }
        }
    }

    var isRunning: Bool { state.withLock { $0.isRunning } }

    func close() {
        state.withLock { state in
            state.isClosing = true
            if state.wake >= 0 { _ = write(state.wake, [1], 1) }
        }
    }

    // MARK: The thread

    /// Starts the thread that listens, notifies, and looks after the store about once a second.
    func start(_ shared: Shared) {
        var pipe: [CInt] = [-1, -1]
        guard Glibc.pipe(&pipe) == 0 else { return }
        for end in pipe {
            _ = fcntl(end, F_SETFD, FD_CLOEXEC)
            _ = fcntl(end, F_SETFL, O_NONBLOCK)
        }
        let (readEnd, writeEnd) = (pipe[0], pipe[1])
        state.withLock { state in
            state.wake = writeEnd
            state.isRunning = true
        }
        // Not the store's: the thread must not keep what closes it alive.
        let thread = Thread { [self, weak shared] in
            serve(readEnd, { shared })
            state.withLock { state in
                state.wake = -1
                state.isRunning = false
            }
            Glibc.close(readEnd)
            Glibc.close(writeEnd)
        }
        thread.name = "semel-pg-signals"
        thread.stackSize = 1 << 20
        thread.start()
    }

    private static let tick = Duration.seconds(1)
    private static let chunk = 400

    private func serve(_ pipe: CInt, _ shared: () -> Shared?) {
        var connection: Connection?
        var nextAttempt = Duration.zero
        var nextTick = Duration.zero
        var nextCount = Duration.zero
        while !state.withLock({ $0.isClosing }) {
            guard let shared = shared() else { return }
            let uptime = shared.environment.uptime
            if connection == nil, uptime() >= nextAttempt {
                connection = listen(shared)
                nextAttempt = uptime() + .milliseconds(Int64(shared.environment.random() % 2000) + 200)
                // Whatever was missed while nobody listened.
                observations.signalAll()
            }
            do {
                if let connection {
                    try notify(connection, shared)
                    try receive(connection)
                }
                if uptime() >= nextTick {
                    nextTick = uptime() + Self.tick
                    observations.signalAll()
                    if let connection {
                        try lookAfter(shared, connection)
                        if uptime() >= nextCount {
                            // Counting many takes time: it must stay a small part of it.
                            let start = uptime()
                            try count(shared, connection)
                            nextCount = uptime() + (uptime() - start) * 10
                        }
                    }
                }
            } catch {
                connection = nil
            }
            Self.wait(pipe, connection?.socket, for: min(nextTick, connection == nil ? nextAttempt : nextTick) - uptime())
        }
    }

    private static func wait(_ pipe: CInt, _ socket: CInt?, for time: Duration) {
        var items = [pollfd(fd: pipe, events: Int16(POLLIN), revents: 0)]
        if let socket { items.append(pollfd(fd: socket, events: Int16(POLLIN), revents: 0)) }
        poll(&items, nfds_t(items.count), CInt(max(0, min(time.milliseconds + 1, 1000))))
        var buffer = [UInt8](repeating: 0, count: 64)
        while read(pipe, &buffer, buffer.count) > 0 {}
    }

    private func channel(_ shared: Shared) -> String { "semel_\(shared.target.schema)" }

    private func listen(_ shared: Shared) -> Connection? {
        do {
            let connection = try Connection(
                to: shared.target, within: shared.configuration.connectLimit, uptime: shared.environment.uptime, name: "semel listener")
            // A lock that all listeners share tells how many there are; the greeting makes the others look.
            let number = shared.target.lockNumber
            for reply in try connection.run(
                [
                    .text("SELECT pg_advisory_lock_shared(\(Int32(truncatingIfNeeded: number >> 32)), \(Int32(truncatingIfNeeded: number)))"),
                    .text("LISTEN \"\(channel(shared))\""), .text("SELECT pg_notify('\(channel(shared))', 'hello')"),
                ], within: shared.configuration.connectLimit)
            { _ = try reply.get() }
            state.withLock { $0.hasPeers = true }
            return connection
        } catch {
            return nil
        }
    }

    private func notify(_ connection: Connection, _ shared: Shared) throws {
        let ids = state.withLock { state in
            defer { state.outgoing = [] }
            return state.outgoing
        }
        guard !ids.isEmpty else { return }
        var commands: [Connection.Command] = []
        for start in stride(from: 0, to: ids.count, by: Self.chunk) {
            var parameters = Parameters()
            parameters.add(channel(shared))
            parameters.add(ids[start..<min(start + Self.chunk, ids.count)].map { String($0, radix: 36) }.joined(separator: " "))
            commands.append(.prepared(Self.notification, parameters))
        }
        for reply in try connection.run(commands, within: shared.configuration.answerLimit) { _ = try reply.get() }
    }

    private static let notification = Connection.Statement(name: "semel_notify", sql: "SELECT pg_notify($1::text, $2::text)")

    private func receive(_ connection: Connection) throws {
        for (payload, sender) in try connection.notifications() where sender != connection.process {
            if payload == "hello" {
                state.withLock { $0.hasPeers = true }
                continue
            }
            if observations.isEmpty { continue }
            for word in payload.split(separator: " ") {
                if let id = UInt64(word, radix: 36) { observations.signal(id) }
            }
        }
    }

    /// About once a second: are there others to notify, what time has been seen, and how full the current segment is.
    private func lookAfter(_ shared: Shared, _ connection: Connection) throws {
        let schema = shared.target.quotedSchema
        let number = shared.target.lockNumber
        let isActive = state.withLock { state in
            defer { state.isActive = false }
            return state.isActive
        }
        let high = UInt32(truncatingIfNeeded: number >> 32)
        let low = UInt32(truncatingIfNeeded: number)
        var commands: [Connection.Command] = [
            .text(
                """
                SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = \(high) AND objid::bigint = \(low) AND objsubid = 2
                    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                """)
        ]
        commands.append(
            isActive
                ? .text("UPDATE \(schema).meta SET seen = greatest(seen, \(Statements.microseconds)) RETURNING seen, incarnation")
                : .text("SELECT seen, incarnation FROM \(schema).meta"))
        let (segment, untold) = shared.segments.untold()
        if untold > 0 {
            commands.append(.text("UPDATE \(schema).segment SET keys = keys + \(untold) WHERE number = \(segment) AND sealed IS NULL RETURNING keys"))
        }
        let replies = try connection.run(commands, within: shared.configuration.answerLimit)
        let peers = try replies[0].get().integer(0, 0, as: Int64.self)
        state.withLock { $0.hasPeers = peers > 1 }
        if untold > 0 {
            let keys = try replies[2].get()
            if keys.count == 1 { shared.segments.heard(Int(keys.integer(0, 0, as: Int64.self)), of: segment, telling: untold) }
        }
        let meta = try replies[1].get()
        if meta.count == 1 {
            shared.saw(meta.integer(0, 0), Incarnation(rawValue: UInt16(clamping: meta.integer(0, 1, as: Int32.self))))
        }
    }

    private func count(_ shared: Shared, _ connection: Connection) throws {
        let start = shared.environment.uptime()
        let live = try connection.run(
            [
                .text("SET enable_seqscan = off"),
                .text("SELECT count(*) FROM \(shared.target.quotedSchema).record WHERE \(Statements.isLive)"),
            ], within: shared.configuration.answerLimit)[1].get()
        shared.counted(Int(live.integer(0, 0, as: Int64.self)), since: start)
    }
}
#endif
