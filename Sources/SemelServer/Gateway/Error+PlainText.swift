internal import AsyncHTTPClient
internal import NIOCore
internal import NIOPosix
#if canImport(Glibc)
internal import Glibc
#elseif canImport(Darwin)
internal import Darwin
#endif

extension Error {
    /// What went wrong with a connection, in words for somebody who does not know the libraries; without a full stop.
    var plainText: String {
        switch self {
        case let error as IOError:
            return String(cString: strerror(error.errnoCode)).lowercased()
        case let error as NIOConnectionError:
            return error.connectionErrors.first.map(\.error.plainText) ?? "the name \(error.host) has no address"
        case let error as HTTPClientError:
            switch error {
            case .readTimeout, .deadlineExceeded: return "no answer came in time"
            case .writeTimeout: return "it did not take the request in time"
            case .connectTimeout: return "no connection came about in time"
            case .remoteConnectionClosed: return "it closed the connection"
            default: break
            }
        default:
            break
        }
        var text = "\(self)"
        while text.hasSuffix(".") { text.removeLast() }
        return text
    }
}
