#if MySQL
import CMariaDB
import Semel

/// One connection to the server. It blocks whoever uses it, so it stays on a thread of its own.
final class Connection {
    private let handle: UnsafeMutablePointer<MYSQL>
    private var prepared: [String: Statement] = [:]
    private var callers: [String: Statement] = [:]
    let isMariaDB: Bool
    /// As one number: 101119 is 10.11.19.
    let version: Int

    /// What an affected row is. Both are right for somebody, so each connection chooses.
    enum RowCount {
        /// Rows that now differ: tells an inserted row from one that was there.
        case changed
        /// Rows that the condition met, as in other databases: an UPDATE to the same value counts.
        case matched
    }

    private static let isInitialised: Bool = mysql_server_init(0, nil, nil) == 0

    /// - Parameter timeout: for connecting, and for each answer of the server.
    init(to target: Target, timeout: Duration, counting: RowCount) throws(MySQLError) {
        guard Self.isInitialised, let handle = mysql_init(nil) else {
            throw MySQLError(code: 2008, message: "the client library cannot be initialised")
        }
        self.handle = handle
        var seconds = UInt32(max(1, timeout.components.seconds))
        for option in [MYSQL_OPT_CONNECT_TIMEOUT, MYSQL_OPT_READ_TIMEOUT, MYSQL_OPT_WRITE_TIMEOUT] {
            mysql_options(handle, option, &seconds)
        }
        var no: UInt32 = 0
        mysql_options(handle, MYSQL_OPT_LOCAL_INFILE, &no)
        mysql_options(handle, MYSQL_SET_CHARSET_NAME, "utf8mb4")
        var largest: UInt = 1 << 30
        mysql_options(handle, MYSQL_OPT_MAX_ALLOWED_PACKET, &largest)
        target.encryption.apply(to: handle)
        let flags: UInt = counting == .matched ? 2 : 0  // CLIENT_FOUND_ROWS
        let isConnected =
            mysql_real_connect(
                handle, target.socket == nil ? target.host : nil, target.user, target.password, target.database,
                UInt32(target.port), target.socket, flags) != nil
        isMariaDB = isConnected && mariadb_connection(handle) != 0
        version = isConnected ? Int(mysql_get_server_version(handle)) : 0
        // From here on the deinitializer closes it, also when this throws.
        if !isConnected { throw Self.error(handle) }
        // The library goes on in the clear where the server has no encryption and no certificate was to be verified.
        if target.encryption != .off, mysql_get_ssl_cipher(handle) == nil {
            throw MySQLError(code: 2026, message: "the server offers no encryption")
        }
    }

    deinit {
        prepared = [:]
        callers = [:]
        mysql_close(handle)
    }

    private static func error(_ handle: UnsafeMutablePointer<MYSQL>) -> MySQLError {
        MySQLError(
            code: Int(mysql_errno(handle)), sqlState: String(cString: mysql_sqlstate(handle)), message: String(cString: mysql_error(handle)))
    }

    /// A statement of ours without values, as plain text.
    func execute(_ sql: String) throws(MySQLError) {
        guard mysql_real_query(handle, sql, UInt(sql.utf8.count)) == 0 else { throw Self.error(handle) }
        if let result = mysql_store_result(handle) { mysql_free_result(result) }
    }

    /// A statement of ours, prepared once in this connection.
    func statement(_ sql: String) throws(MySQLError) -> Statement {
        if let statement = prepared[sql] { return statement }
        let statement = try Statement(sql, on: handle)
        prepared[sql] = statement
        return statement
    }

    /// A statement of the caller's: few are kept, for nobody knows how many there will be.
    func callersStatement(_ sql: String) throws(MySQLError) -> Statement {
        if let statement = callers[sql] { return statement }
        if callers.count >= 64 { callers.removeAll() }
        let statement = try Statement(sql, on: handle, hasOpenTypes: true)
        callers[sql] = statement
        return statement
    }

    func rows(_ sql: String) throws(MySQLError) -> [MySQLRow] { try Statement(sql, on: handle).query() }

    /// Whether the server says, with its last answer, that a transaction is open.
    var isInTransaction: Bool { handle.pointee.server_status & 1 != 0 }

    var isAlive: Bool { mysql_ping(handle) == 0 }

    /// The global id of the transaction that was just committed, as the server told with its answer.
    var lastPosition: String? {
        guard isMariaDB else { return tracked(SESSION_TRACK_GTIDS).first }
        let pairs = tracked(SESSION_TRACK_SYSTEM_VARIABLES)
        for index in stride(from: 0, to: pairs.count - 1, by: 2) where pairs[index] == "last_gtid" { return pairs[index + 1] }
        return nil
    }

    private func tracked(_ kind: enum_session_state_type) -> [String] {
        var data: UnsafePointer<CChar>?
        var length = 0
        var texts: [String] = []
        var result = mysql_session_track_get_first(handle, kind, &data, &length)
        while result == 0, let start = data {
            texts.append(String(decoding: UnsafeRawBufferPointer(start: start, count: length), as: UTF8.self))
            result = mysql_session_track_get_next(handle, kind, &data, &length)
        }
        return texts
    }
}
#endif
