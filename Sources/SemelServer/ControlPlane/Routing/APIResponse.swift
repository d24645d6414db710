internal import HTTPTypes
internal import Semel

/// An answer of the control plane. None is ever cached, sniffed or framed.
struct APIResponse: Sendable {
    var status: Int
    var fields: HTTPFields
    var body: [UInt8]

    init(status: Int = 200, _ contentType: String, _ body: [UInt8]) {
        self.status = status
        self.body = body
        fields = [
            .contentType: contentType, .cacheControl: "no-store", .xContentTypeOptions: "nosniff",
            .contentLength: String(body.count),
        ]
    }

    init(status: Int = 200, _ document: JSONValue) {
        self.init(status: status, "application/json", document.serialized())
    }
}
