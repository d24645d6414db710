/// Why a store could not answer.
public struct StoreError: Error, Sendable, CustomStringConvertible {
    public struct Code: Hashable, Sendable, CustomStringConvertible {
        public let description: String

        public init(_ description: String) {
            self.description = description
        }

        /// The store cannot be reached. Nothing happened.
        public static let unavailable = Code("unavailable")
        /// The store was closed, or stands still after an I/O error. Nothing happened, and nothing more happens until it is
        /// opened anew: trying again is of no use.
        public static let stopped = Code("stopped")
        /// The store cannot do this one call, and could not do it again; others go on. Nothing happened.
        public static let refused = Code("refused")
        /// Whether it happened is unknown: the answer was lost. Saying the same again finds out.
        public static let indeterminate = Code("indeterminate")
        /// There is no space for new claims. Outcomes are still recorded, from space kept in reserve.
        public static let full = Code("full")
        /// What is stored is damaged; nothing runs on it.
        public static let damaged = Code("damaged")
        /// The schema is newer than this program.
        public static let newerSchema = Code("newer-schema")
        /// Another process has the store open.
        public static let inUse = Code("in-use")
        /// The store's place cannot be written, or its settings cannot be had.
        public static let misconfigured = Code("misconfigured")
        /// The server refuses the user, the password or the certificate.
        public static let credentialsRefused = Code("credentials-refused")
        /// No encrypted connection as it was asked for.
        public static let encryptionFailed = Code("encryption-failed")
        /// The server is older than what this store needs.
        public static let serverTooOld = Code("server-too-old")
        /// The store's tables are not there, or older than this program.
        public static let missingSchema = Code("missing-schema")
        /// The server takes no writes: it is a replica.
        public static let readOnly = Code("read-only")
    }

    public var code: Code
    /// What happened, to what, and what to do.
    public var message: String
    public var underlying: (any Error)?

    public init(_ code: Code, _ message: String, underlying: (any Error)? = nil) {
        self.code = code
        self.message = message
        self.underlying = underlying
    }

    public var description: String { message }
}
