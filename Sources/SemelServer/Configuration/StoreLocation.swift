package import SemelCore

/// Where the records are kept.
package enum StoreLocation: Hashable, Sendable, CustomStringConvertible {
    case sqlite(path: String)
    /// - Parameter place: the URL without user, password and options, for people.
    case postgres(url: String, place: String)
    /// MySQL or MariaDB.
    case mysql(url: String, place: String)
    /// One Redis, or a cluster of them.
    case redis(url: String, place: String)
    /// Forgets everything when the process ends: the level is `bestEffort` unless the target deduplicates.
    case memory

    /// What the engine keeps, as far as its kind tells; opening it checks the rest.
    package var capabilities: StoreCapabilities {
        switch self {
        case .sqlite: StoreCapabilities(engine: "sqlite", durability: .durable, isTransactional: true)
        case .postgres: StoreCapabilities(engine: "postgres", durability: .durable, isTransactional: true)
        case .mysql: StoreCapabilities(engine: "mysql", durability: .durable, isTransactional: true)
        // Few are set up to keep everything; what this one keeps is read when it is opened, and may raise the level.
        case .redis:
            StoreCapabilities(
                engine: "redis", durability: .forgetful("unless every write is synced and nothing fails over"), isTransactional: false, isAuthority: false)
        case .memory: StoreCapabilities(engine: "memory", durability: .forgetful("it lives in the memory of one process"), isTransactional: false)
        }
    }

    /// As in the configuration.
    package var description: String {
        switch self {
        case .sqlite(let path): "sqlite:\(path)"
        case .postgres(_, let place), .mysql(_, let place), .redis(_, let place): place
        case .memory: "memory"
        }
    }
}
