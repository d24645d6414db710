/// Why bytes from a client are not an HTTP/1.1 request that may be forwarded (RFC 9112). The answer is a problem document,
/// and the connection is closed: nobody can tell where the next request would begin.
package struct RequestRefusal: Error, Hashable, Sendable {
    package var status: Int
    /// The last part of the problem's type.
    package var code: String
    package var detail: String

    package static func malformed(_ detail: String) -> RequestRefusal {
        RequestRefusal(status: 400, code: "request-malformed", detail: detail)
    }

    package static let requestLineTooLong = RequestRefusal(
        status: 414, code: "request-line-too-long",
        detail: "The request line is longer than \(RequestFraming.requestLineLimit) bytes.")
    package static let headerTooLarge = RequestRefusal(
        status: 431, code: "header-too-large",
        detail: "The header section is larger than \(RequestFraming.headerSectionLimit) bytes.")
    package static let versionUnsupported = RequestRefusal(
        status: 505, code: "version-unsupported", detail: "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    package static let tunnelUnsupported = RequestRefusal(
        status: 501, code: "upgrade-unsupported", detail: "CONNECT and protocol upgrades are not forwarded.")
    /// The client closed its side before the request was complete.
    package static let truncated = malformed("The connection ended before the request did.")
}
