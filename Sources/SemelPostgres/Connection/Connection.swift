#if Postgres
import CPostgres
import Semel
#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// One connection to the server, in libpq's non-blocking pipeline mode. Used by one thread, which it never leaves waiting
/// longer than it was told to.
///
/// A run sends any number of statements at once and then reads their answers: one round trip, and, where none of them says
/// BEGIN, one transaction.
final class Connection {
    /// A statement that is prepared once in a connection.
    struct Statement: Hashable {
        let name: String
        let sql: String
    }

    enum Command {
        case prepared(Statement, Parameters)
        /// A caller's statement: its values and its answer are text, which the server takes for whatever type it needs.
        case callers(Statement, [String?])
        /// Parsed each time: for what is rare.
        case text(String, Parameters = Parameters())
    }

    enum Reply {
        case rows(Rows)
        case failed(PostgresError)
        /// A statement before it failed, so it was not tried.
        case skipped

        func get() throws(PostgresError) -> Rows {
            switch self {
            case .rows(let rows): return rows
            case .failed(let error): throw error
            case .skipped: throw PostgresError(sqlState: "25P02", message: "a statement before it failed")
            }
        }
    }

    /// The connection is gone, or silent for too long. Whether what was sent took effect is unknown.
    struct Lost: Error, CustomStringConvertible {
        let description: String
    }

    private let handle: OpaquePointer
    private let uptime: @Sendable () -> Duration
    /// By name: as the server has them, and during a run as it will have them.
    private var prepared: [String: Statement] = [:]
    private var callersStatements: [String: Statement] = [:]

    /// Connects, within a time.
    init(to target: Target, within time: Duration, uptime: @escaping @Sendable () -> Duration, name: String) throws(StoreError) {
        self.uptime = uptime
        var parameters = target.parameters
        parameters.append(("fallback_application_name", name))
        // A peer that vanished is noticed even where nothing is asked of it.
        if !parameters.contains(where: { $0.name == "keepalives_idle" }) { parameters.append(("keepalives_idle", "15")) }
        parameters.append(("client_encoding", "UTF8"))
        var names = parameters.map { strdup($0.name) } + [nil]
        var values = parameters.map { strdup($0.value) } + [nil]
        defer { for text in names + values { free(text) } }
        let started = names.withUnsafeMutableBufferPointer { names in
            values.withUnsafeMutableBufferPointer { values in
                names.withMemoryRebound(to: UnsafePointer<CChar>?.self) { names in
                    values.withMemoryRebound(to: UnsafePointer<CChar>?.self) { values in
                        PQconnectStartParams(names.baseAddress, values.baseAddress, 0)
                    }
                }
            }
        }
        guard let started else { throw StoreError(.unavailable, "\(target.place): out of memory") }
        handle = started
        // So that the reason for a refusal can be told in any language.
        PQsetErrorVerbosity(handle, PQERRORS_VERBOSE)
        // From here on an error leaves a whole object, which gives the connection up.
        try Self.finishConnecting(handle, until: uptime() + time, uptime: uptime, at: target)
        PQsetErrorVerbosity(handle, PQERRORS_DEFAULT)
        _ = PQsetNoticeReceiver(handle, ignoreNotice, nil)
        guard PQsetnonblocking(handle, 1) == 0, PQenterPipelineMode(handle) == 1 else {
            let reason = String(cString: PQerrorMessage(handle)).trimmed
            throw StoreError(.unavailable, "\(target.place): no pipeline mode: \(reason)")
        }
    }

    deinit { PQfinish(handle) }

    private static func finishConnecting(
        _ handle: OpaquePointer, until deadline: Duration, uptime: () -> Duration, at target: Target
    ) throws(StoreError) {
        guard PQstatus(handle) != CONNECTION_BAD else { throw refusal(handle, at: target) }
        var state = PGRES_POLLING_WRITING
        while true {
            switch state {
            case PGRES_POLLING_OK: return
            case PGRES_POLLING_FAILED: throw refusal(handle, at: target)
            default:
                let left = deadline - uptime()
                guard left > .zero, wait(PQsocket(handle), writing: state == PGRES_POLLING_WRITING, for: left) else {
                    throw StoreError(.unavailable, "\(target.place): the server did not take the connection in time")
                }
                state = PQconnectPoll(handle)
            }
        }
    }

    var serverVersion: Int { Int(PQserverVersion(handle)) }

    /// The server's process that serves this connection.
    var process: Int32 { PQbackendPID(handle) }

    /// The socket, for waiting on together with something else.
    var socket: CInt { PQsocket(handle) }

    // MARK: Running

    /// Sends all commands at once, and returns their answers.
    ///
    /// - Throws: ``Lost``.
    func run(_ commands: [Command], within time: Duration) throws(Lost) -> [Reply] {
        let deadline = uptime() + time
        // What is prepared is known from the answers, one after the other.
        var known = prepared
        // One entry a result that will come.
        var expected: [Expected] = []
        for command in commands {
            switch command {
            case .callers(let statement, let values):
                try prepare(statement, &expected)
                try sendText(values, to: statement)
            case .prepared(let statement, let parameters):
                try prepare(statement, &expected)
                try send(parameters) { PQsendQueryPrepared(handle, statement.name, $0, $1, $2, $3, 1) }
            case .text(let sql, let parameters):
                try send(parameters) { PQsendQueryParams(handle, sql, $0, nil, $1, $2, $3, 1) }
            }
            expected.append(.answer)
        }
        try check(PQpipelineSync(handle))
        try flush(until: deadline)

        var replies: [Reply] = []
        replies.reserveCapacity(commands.count)
        var preparing: Reply?
        for result in expected {
            let reply = try reply(until: deadline)
            switch result {
            case .released(let former):
                if case .rows = reply { known[former.name] = nil }
                if case .failed = reply { preparing = reply }
            case .prepared(let statement):
                // Prepared statements outlive the transaction; one that failed or was skipped is prepared next time.
                if case .rows = reply { known[statement.name] = statement }
                if case .failed = preparing {} else { preparing = reply }
            case .answer:
                // That a statement could not be prepared is the reason, and not that it was skipped.
                if case .skipped = reply, case .failed = preparing { replies.append(preparing!) } else { replies.append(reply) }
                preparing = nil
            }
        }
        prepared = known
        guard let end = try result(until: deadline) else { throw lost("an answer is missing") }
        let status = PQresultStatus(end)
        PQclear(end)
        guard status == PGRES_PIPELINE_SYNC else { throw lost("the answers are out of step") }
        return replies
    }

    /// What a result of the server will be about.
    private enum Expected {
        case released(Statement)
        case prepared(Statement)
        case answer
    }

    /// Prepares a statement, in place of another one of its name.
    private func prepare(_ statement: Statement, _ expected: inout [Expected]) throws(Lost) {
        let former = prepared[statement.name]
        guard former != statement else { return }
        if let former, !former.name.isEmpty {
            try check(PQsendQueryParams(handle, "DEALLOCATE \"\(former.name)\"", 0, nil, nil, nil, nil, 1))
            expected.append(.released(former))
        }
        try check(PQsendPrepare(handle, statement.name, statement.sql, 0, nil))
        prepared[statement.name] = statement
        expected.append(.prepared(statement))
    }

    /// A statement for a caller's SQL: a new one, or the one that this SQL has. Only so many are kept.
    func statement(forCaller sql: String) -> Statement {
        if let known = callersStatements[sql] { return known }
        // The unnamed statement is prepared anew each time.
        guard callersStatements.count < 100 else {
            let unnamed = Statement(name: "", sql: sql)
            prepared[unnamed.name] = nil
            return unnamed
        }
        let statement = Statement(name: "semel_caller_\(callersStatements.count)", sql: sql)
        callersStatements[sql] = statement
        return statement
    }

    /// Where a transaction stands after the last run.
    enum TransactionState { case none, open, failed }

    var transactionState: TransactionState {
        switch PQtransactionStatus(handle) {
        case PQTRANS_INTRANS: .open
        case PQTRANS_INERROR: .failed
        default: .none
        }
    }

    /// The notifications that have come: payloads, with the process that sent them.
    func notifications() throws(Lost) -> [(payload: String, sender: Int32)] {
        try check(PQconsumeInput(handle))
        var found: [(String, Int32)] = []
        while let notification = PQnotifies(handle) {
            found.append((String(cString: notification.pointee.extra), notification.pointee.be_pid))
            PQfreemem(notification)
        }
        return found
    }

    private func send(
        _ parameters: Parameters,
        _ body: (CInt, UnsafePointer<UnsafePointer<CChar>?>?, UnsafePointer<CInt>?, UnsafePointer<CInt>?) -> CInt
    ) throws(Lost) {
        let code = parameters.bytes.withUnsafeBytes { bytes in
            // Something to point at where a value has no bytes: no address would be NULL.
            withUnsafeBytes(of: UInt64(0)) { nothing in
                let values = parameters.fields.map { field -> UnsafePointer<CChar>? in
                    if field.count < 0 { return nil }
                    let start = field.count == 0 ? nothing.baseAddress! : bytes.baseAddress! + field.offset
                    return start.assumingMemoryBound(to: CChar.self)
                }
                let lengths = parameters.fields.map { CInt(max(0, $0.count)) }
                let binary = [CInt](repeating: 1, count: values.count)
                return body(CInt(values.count), values, lengths, binary)
            }
        }
        try check(code)
    }

    private func sendText(_ values: [String?], to statement: Statement) throws(Lost) {
        let texts = values.map { $0.map { strdup($0) } ?? nil }
        defer { for text in texts { free(text) } }
        let pointers = texts.map { UnsafePointer($0) }
        try check(PQsendQueryPrepared(handle, statement.name, CInt(values.count), pointers, nil, nil, 0))
    }

    private func reply(until deadline: Duration) throws(Lost) -> Reply {
        guard let result = try result(until: deadline) else { throw lost("an answer is missing") }
        let reply: Reply
        switch PQresultStatus(result) {
        case PGRES_COMMAND_OK, PGRES_TUPLES_OK, PGRES_EMPTY_QUERY:
            reply = .rows(Rows(result))
        case PGRES_PIPELINE_ABORTED:
            PQclear(result)
            reply = .skipped
        default:
            let error = PostgresError(result)
            PQclear(result)
            if PQstatus(handle) == CONNECTION_BAD || error.isShutdown { throw lost(error.message) }
            reply = .failed(error)
        }
        guard try self.result(until: deadline) == nil else { throw lost("an answer came twice") }
        return reply
    }

    private func result(until deadline: Duration) throws(Lost) -> OpaquePointer? {
        while PQisBusy(handle) == 1 {
            guard Self.wait(PQsocket(handle), writing: false, for: deadline - uptime()) else {
                throw Lost(description: "the server did not answer in time")
            }
            try check(PQconsumeInput(handle))
        }
        return PQgetResult(handle)
    }

    private func flush(until deadline: Duration) throws(Lost) {
        while true {
            switch PQflush(handle) {
            case 0: return
            case 1:
                // The server may be unable to read before its own answers are.
                guard Self.wait(PQsocket(handle), writing: true, for: deadline - uptime()) else {
                    throw Lost(description: "the server did not take what was sent in time")
                }
                try check(PQconsumeInput(handle))
            default: throw lost("sending failed")
            }
        }
    }

    private func check(_ code: CInt) throws(Lost) {
        if code != 1 { throw lost("the connection failed") }
    }

    private func lost(_ what: String) -> Lost {
        let reason = String(cString: PQerrorMessage(handle)).trimmed
        return Lost(description: reason.isEmpty ? what : "\(what): \(reason)")
    }

    /// Waits until the socket can be read, or also written.
    private static func wait(_ socket: CInt, writing: Bool, for time: Duration) -> Bool {
        var item = pollfd(fd: socket, events: Int16(POLLIN) | (writing ? Int16(POLLOUT) : 0), revents: 0)
        while true {
            let milliseconds = max(0, min(time.components.seconds * 1000 + time.components.attoseconds / 1_000_000_000_000_000 + 1, 1 << 30))
            guard time > .zero else { return false }
            let code = poll(&item, 1, CInt(milliseconds))
            if code > 0 { return true }
            if code == 0 { return false }
            if errno != EINTR { return false }
        }
    }

    // MARK: Refusals

    /// Why no connection came about, as an error with a remedy.
    private static func refusal(_ handle: OpaquePointer, at target: Target) -> StoreError {
        let text = String(cString: PQerrorMessage(handle)).trimmed
        switch sqlState(in: text) {
        case "28P01", "28000":
            return StoreError(
                .credentialsRefused, "\(target.place): the server refuses the user or password: \(text). Correct them in the store's URL, or let them in by pg_hba.conf")
        case "3D000":
            return StoreError(.misconfigured, "\(target.place): there is no such database: \(text). Create it, or correct the store's URL")
        default: break
        }
        if text.contains("password") && text.contains("no password supplied") {
            return StoreError(.credentialsRefused, "\(target.place): the server asks for a password, and the store's URL has none: \(text)")
        }
        if text.contains("SSL") || text.contains("certificate") {
            return StoreError(
                .encryptionFailed, "\(target.place): no encrypted connection: \(text). Check the server's certificate and ssl settings, and sslmode and sslrootcert in the store's URL")
        }
        if text.contains("invalid") && text.contains("value") {
            return StoreError(.misconfigured, "\(target.place): the store's URL has a wrong value: \(text)")
        }
        return StoreError(.unavailable, "\(target.place): cannot be reached: \(text)")
    }

    /// The five characters that a verbose message carries, as `FATAL:  28P01: …`.
    private static func sqlState(in text: String) -> String? {
        var rest = text[...]
        while let colon = rest.firstIndex(of: ":") {
            rest = rest[rest.index(after: colon)...].drop { $0 == " " }
            let code = rest.prefix { $0.isASCII && ($0.isNumber || $0.isUppercase) }
            // The severity before it is five letters too.
            if code.count == 5, code.contains(where: \.isNumber), rest.dropFirst(5).first == ":" { return String(code) }
        }
        return nil
    }
}

/// A function and not a closure: libpq calls it on whatever thread runs.
private func ignoreNotice(_: UnsafeMutableRawPointer?, _: OpaquePointer?) {}
#endif
