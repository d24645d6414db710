#if MySQL
import Semel

/// What the lanes of one store share.
final class Shared: Sendable {
    let target: Target
    let configuration: MySQLStore.Configuration
    let environment: Environment
    let observations = ObservationRegistry()
    private let policies = Locked([PolicyHash: PinnedPolicy]())
    private let room = Locked(Room())

    init(_ target: Target, _ configuration: MySQLStore.Configuration, _ environment: Environment) {
        self.target = target
        self.configuration = configuration
        self.environment = environment
    }

    // MARK: Policies

    /// Those that are certainly kept in the database.
    func isKept(_ hash: PolicyHash) -> Bool { policies.withLock { $0[hash] != nil } }
    func policy(_ hash: PolicyHash) -> PinnedPolicy? { policies.withLock { $0[hash] } }
    func noteKept(_ kept: [PinnedPolicy]) {
        if !kept.isEmpty { policies.withLock { policies in for policy in kept { policies[policy.hash] = policy } } }
    }

    // MARK: Live records

    /// How many live records there are in all, and how many this process has admitted since they were counted.
    private struct Room {
        var counted: Int?
        var admitted = 0
        var until = Duration.zero
    }

    /// Whether no scope can come near a limit: then nothing is counted by scope, and no lock is taken for the limit.
    ///
    /// Others may be admitting too. So this says yes only where the limit is far even if fifteen processes admit as fast as
    /// this one, and asks for a new count every few seconds. Near the limit the count is exact.
    ///
    /// - Returns: `nil` when the records must be counted first.
    func isFarFrom(limit: Int, admitting count: Int) -> Bool? {
        let now = environment.uptime()
        return room.withLock { room in
            guard let counted = room.counted, now < room.until else { return nil }
            guard counted + 16 * (room.admitted + count) + 4096 <= limit else { return false }
            room.admitted += count
            return true
        }
    }

    func noteCounted(_ count: Int) {
        let until = environment.uptime() + .seconds(5)
        room.withLock { $0 = Room(counted: count, admitted: 0, until: until) }
    }

    // MARK: Errors

    /// What a caller is told.
    func storeError(_ error: any Error) -> StoreError {
        switch error {
        case let error as StoreError: error
        case let error as MySQLError: storeError(error)
        case let failure as Row.Failure: StoreError(.damaged, "\(target.description): \(failure)", underlying: failure)
        default: StoreError(.unavailable, "\(target.description): \(error)", underlying: error)
        }
    }

    /// What a caller is told for an error of the server, when the transaction certainly did not happen.
    func storeError(_ error: MySQLError) -> StoreError {
        let place = target.description
        func say(_ code: StoreError.Code, _ what: String, _ remedy: String) -> StoreError {
            StoreError(code, "\(place): \(what): \(error). Remedy: \(remedy)", underlying: error)
        }
        return switch true {
        case error.isEncryption:
            say(.encryptionFailed, "no encrypted connection could be made", "set up TLS on the server and name its authority with ?ca=FILE, or choose ?tls=require or ?tls=off")
        case error.isAccessDenied: say(.credentialsRefused, "the server refuses this user", "correct user and password in the store's URL, and grant the user this database")
        case error.isUnknownDatabase: say(.misconfigured, "there is no such database", "CREATE DATABASE, or correct the name in the store's URL")
        case error.isReadOnly: say(.readOnly, "the server takes no writes", "name the primary in the store's URL")
        case error.isMissingTable: say(.missingSchema, "the store's tables are not as they should be", "run `semel store migrate`")
        case error.isFull: say(.full, "the server has no space left", "free some space")
        case error.isDamage: say(.damaged, "the server says that a table is damaged", "check and restore it")
        case error.isTooLarge: say(.refused, "a value is larger than the server takes", "raise max_allowed_packet, or lower the largest response that is kept")
        case error.isConnectionLost: say(.unavailable, "the server cannot be reached", "see whether it runs, and that it can be reached from here")
        case error.isDeadlock, error.isLockTimeout, error.isInterrupted, error.isDuplicate:
            say(.unavailable, "another transaction stands in the way", "see which transaction holds its locks for so long")
        default: say(.refused, "the server refused this call", "see the server's message")
        }
    }
}
#endif
