/// Why a command has no reply.
package enum RedisFailure: Error, Hashable, Sendable, CustomStringConvertible {
    /// It was never written: nothing happened.
    case notSent(String)
    /// It was written, and the connection ended before its reply: whether it happened is unknown.
    case lost(String)

    package var description: String {
        switch self {
        case .notSent(let why), .lost(let why): why
        }
    }
}
