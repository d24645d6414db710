public import Semel

extension StoreError.Code {
    /// The server may throw records away to make room.
    public static let evicting = StoreError.Code("evicting")
}

extension StoreError {
    /// What the server's own error reply means for a command that it refused.
    static func refusal(_ text: String, by server: String) -> StoreError {
        var word = text.prefix { $0 != " " }
        // Before version 7, what a script's command was refused with is wrapped: "ERR Error running script (…): …: -MISCONF …".
        if text.hasPrefix("ERR Error running script"), let inner = text.firstRange(of: ": -") {
            word = text[inner.upperBound...].prefix { $0 != " " }
        }
        return switch word {
        case "NOAUTH", "WRONGPASS":
            StoreError(
                .credentialsRefused, "Redis at \(server) refuses the user or password: \(text). Remedy: correct them in the store's URL.")
        case "NOPERM":
            StoreError(
                .credentialsRefused,
                "Redis at \(server) forbids this user a command: \(text). Remedy: allow it with ACL SETUSER (Semel needs +@read +@write +@scripting +@pubsub +@connection +info +time +config|get +cluster, and its keys and channels)."
            )
        case "READONLY":
            StoreError(
                .readOnly, "Redis at \(server) is a replica that takes no writes. Remedy: name the primary in the store's URL.")
        case "OOM":
            StoreError(
                .full, "Redis at \(server) has no memory left for new keys: \(text). Remedy: raise maxmemory, or shorten the retentions.")
        case "MISCONF":
            StoreError(.full, "Redis at \(server) cannot save its data and takes no writes: \(text). Remedy: free space on its disk.")
        case "LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS":
            StoreError(.unavailable, "Redis at \(server) cannot answer now: \(text).")
        default:
            StoreError(.refused, "Redis at \(server) refused a command: \(text).")
        }
    }
}
