#if MySQL
import CMariaDB

/// What MySQL or MariaDB answered instead of doing what it was asked, or what became of the connection.
public struct MySQLError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The server's number (below 2000 and from 3000) or the client library's (2000 to 2999).
    public let code: Int
    /// The five characters of the SQL standard.
    public let sqlState: String
    public let message: String

    package init(code: Int, sqlState: String = "HY000", message: String) {
        self.code = code
        self.sqlState = sqlState
        self.message = message
    }

    public var description: String { "MySQL error \(code) (\(sqlState)): \(message)" }

    /// The connection is gone, or silent for too long: whether what was sent took effect is unknown.
    var isConnectionLost: Bool {
        switch code {
        // Cannot connect, gone, lost, handshake failed, malformed packet, out of sync.
        case 2002, 2003, 2005, 2006, 2012, 2013, 2014, 2027, 2055: true
        // The server shuts down, or ended this connection.
        case 1053, 1077, 1079, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 3169, 4031: true
        // Too many connections: it will be better later.
        case 1040, 1203, 1226: true
        default: false
        }
    }

    /// Two transactions that waited for each other; the server undid this one, and again it may go well.
    var isDeadlock: Bool { code == 1213 || code == 1020 }
    /// Somebody else holds a row for longer than we wait.
    var isLockTimeout: Bool { code == 1205 }
    var isDuplicate: Bool { code == 1062 }
    /// It was ended from outside, or took longer than it may.
    var isInterrupted: Bool { code == 1317 || code == 1969 || code == 3024 }
    var isFull: Bool { code == 1021 || code == 1114 }
    var isReadOnly: Bool { code == 1290 || code == 1836 || code == 1792 }
    var isMissingTable: Bool { code == 1146 || code == 1054 }
    var isUnknownDatabase: Bool { code == 1049 }
    /// The server refuses the user, the password or the address, or this user may not do this.
    var isAccessDenied: Bool { [1044, 1045, 1130, 1142, 1143, 1227, 1251, 1524, 1698, 2059, 2061].contains(code) }
    var isEncryption: Bool { code == 2026 || code == 3159 }
    var isDamage: Bool { [1034, 1035, 126, 127, 1194, 1712].contains(code) }
    var isTooLarge: Bool { code == 1153 || code == 2020 || code == 1301 }
}
#endif
