/// Why the control plane cannot be had.
package struct ControlPlaneError: Error, CustomStringConvertible {
    package enum Code: String, Sendable {
        /// Beyond loopback it needs tokens and TLS.
        case unprotected
        case certificate
        case cannotListen
        /// A reload cannot change this.
        case needsRestart
        case stopped
    }

    package var code: Code
    /// What is wrong.
    package var problem: String
    package var remedy: String

    init(_ code: Code, _ problem: String, remedy: String) {
        self.code = code
        self.problem = problem
        self.remedy = remedy
    }

    package var description: String { "\(problem) \(remedy)" }
}
