/// Which program this is.
package enum Version {
    package static let number = "0.1.0"

    package static var configuration: String {
        #if DEBUG
        "debug"
        #else
        "release"
        #endif
    }

    package static var platform: String {
        #if os(Linux)
        "linux-\(architecture)"
        #elseif os(macOS)
        "macos-\(architecture)"
        #else
        architecture
        #endif
    }

    private static var architecture: String {
        #if arch(x86_64)
        "x86_64"
        #elseif arch(arm64)
        "arm64"
        #else
        "other"
        #endif
    }

    /// What was built in: the stores, and the parts that a trait switches.
    package static var parts: [String] {
        var parts = ["sqlite", "memory", "redis"]
        #if Postgres
        parts.append("postgres")
        #endif
        #if MySQL
        parts.append("mysql")
        #endif
        #if JWT
        parts.append("jwt")
        #endif
        return parts
    }
}
