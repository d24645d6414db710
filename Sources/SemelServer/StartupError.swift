internal import NIOCore
package import Semel
#if canImport(Glibc)
internal import Glibc
#elseif canImport(Darwin)
internal import Darwin
#endif

/// Why `semel serve` did not start or go on: what, where, and what to do; and the exit code that says so.
package struct StartupError: Error, Sendable, CustomStringConvertible {
    package enum ExitCode: Int32, Sendable {
        /// What was asked for is wrong.
        case configuration = 2
        /// Something that is needed cannot be had: a port, the store.
        case unreachable = 3
    }

    package var exitCode: ExitCode
    /// What is wrong and where.
    package var problem: String
    /// `nil` where the problem says it already.
    package var remedy: String?

    package init(_ exitCode: ExitCode, _ problem: String, remedy: String? = nil) {
        self.exitCode = exitCode
        self.problem = problem
        self.remedy = remedy
    }

    package var description: String { remedy.map { "\(problem)\nRemedy: \($0)." } ?? problem }

    /// A store's own message says what to do.
    package init(opening store: StoreLocation, named name: String = "store", _ error: StoreError) {
        self.init(error.code == .misconfigured ? .configuration : .unreachable, "The \(name) \(store) cannot be opened: \(error.message)")
    }

    /// What a service failed with while it started or ran.
    package init(_ error: any Error) {
        switch error {
        case let error as StartupError: self = error
        case let error as StoreError: self.init(error.code == .misconfigured ? .configuration : .unreachable, error.message)
        case let error as ControlPlaneError:
            self.init([.cannotListen, .stopped].contains(error.code) ? .unreachable : .configuration, error.description)
        case let error as GatewayError:
            self.init(error.code == .unusable ? .configuration : .unreachable, error.description)
        case let error as IOError:
            let isOurs = error.errnoCode == EACCES || error.errnoCode == EADDRNOTAVAIL
            self.init(isOurs ? .configuration : .unreachable, "Cannot listen: \(error).", remedy: "free the address, or set `listen` and `admin` to others")
        default: self.init(.unreachable, "\(error)")
        }
    }

    /// The mistakes of a configuration, one a line.
    package init(_ mistakes: [ConfigurationDiagnostic]) {
        self.init(.configuration, mistakes.map(\.description).joined(separator: "\n"))
    }
}
