#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#elseif canImport(Darwin)
internal import Darwin
#endif

/// How many files and connections this process may have open.
package enum OpenFiles {
    #if canImport(Glibc)
    private static let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    #else
    private static let resource = RLIMIT_NOFILE
    #endif

    /// Raises the limit to what the system lets this process have, and returns it; `nil` when it cannot be read.
    ///
    /// The usual soft limit, 1024, is there for programs that use `select`; a gateway needs two connections for a request.
    package static func raiseLimit() -> Int? {
        var limit = rlimit()
        guard getrlimit(resource, &limit) == 0 else { return nil }
        var raised = limit
        raised.rlim_cur = raised.rlim_max
        // Refused by some sandboxes; then what there was stays.
        if setrlimit(resource, &raised) == 0 { limit = raised }
        return Int(clamping: limit.rlim_cur)
    }
}

extension ServerConfiguration {
    /// The files and connections that are open when every connection to an upstream is in use, each for a client of its own.
    var openFilesNeeded: Int { upstreams.values.reduce(100) { $0 + 2 * $1.connections } }
}
