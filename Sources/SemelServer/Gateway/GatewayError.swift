/// Why the gateway cannot start, or cannot take a configuration.
package struct GatewayError: Error, Hashable, CustomStringConvertible {
    package enum Code: Hashable, Sendable {
        /// The address is taken, or is not one of this machine.
        case cannotListen
        /// A file or URL of the configuration cannot be used.
        case unusable
        case stopped
    }

    package var code: Code
    /// What happened, to what, and what to do.
    package var description: String

    static func unusable(_ problem: String) -> GatewayError { GatewayError(code: .unusable, description: problem) }
}
