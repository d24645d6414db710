import HTTPTypes
import Hummingbird
import NIOCore

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// An error answered as this service's own problem document (RFC 9457), told from those of a gateway by its `type`.
struct Problem: HTTPResponseError {
    let status: HTTPResponse.Status
    let code: String
    let detail: String

    init(_ status: HTTPResponse.Status, code: String, detail: String) {
        self.status = status
        self.code = code
        self.detail = detail
    }

    private struct Document: Encodable {
        let type, title: String
        let status: Int
        let detail, code: String
    }

    func response(from request: Request, context: some RequestContext) throws -> Response {
        let document = Document(
            type: "urn:payments:\(code)", title: status.reasonPhrase, status: status.code, detail: detail, code: code)
        return try .json(document, status: status, mediaType: "application/problem+json")
    }
}

extension Response {
    /// A JSON answer whose bytes depend on the value alone.
    static func json(
        _ value: some Encodable, status: HTTPResponse.Status = .ok, mediaType: String = "application/json"
    ) throws -> Response {
        Response(
            status: status,
            headers: [.contentType: mediaType],
            body: ResponseBody(byteBuffer: ByteBuffer(bytes: try encodeJSON(value)))
        )
    }
}

func encodeJSON(_ value: some Encodable) throws -> Data {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return try encoder.encode(value)
}
