internal import HTTPTypes
internal import NIOCore
internal import NIOHTTP1
internal import SemelHTTP

extension HTTPRequest {
    /// The request as the rules for scenes see it. Fields that HTTPTypes cannot hold are left out; what is forwarded has them.
    init?(_ head: HTTPRequestHead) {
        guard let method = Method(head.method.rawValue) else { return nil }
        self.init(
            method: method, scheme: "http", authority: head.headers.first(name: "host"), path: head.uri,
            headerFields: HTTPFields(head.headers))
    }
}

extension HTTPFields {
    init(_ headers: HTTPHeaders) {
        self.init()
        reserveCapacity(headers.count)
        for (name, value) in headers {
            if let name = HTTPField.Name(name) { append(HTTPField(name: name, value: value)) }
        }
    }
}

extension HTTPHeaders {
    init(_ fields: HTTPFields) {
        self.init(fields.map { ($0.name.rawName, $0.value) })
    }
}

extension ResponseWriter {
    /// Sends an answer of the rules.
    func send(_ answer: HTTPAnswer) async throws {
        let status = HTTPResponseStatus(statusCode: answer.head.status.code, reasonPhrase: answer.head.status.reasonPhrase)
        var headers = HTTPHeaders(answer.head.headerFields)
        switch answer.body {
        case .bytes(let bytes, nil):
            if bytes.readableBytes > 0 { headers.replaceOrAdd(name: "content-length", value: String(bytes.readableBytes)) }
            try await send(status, headers, bytes)
        case .bytes(let bytes, let trailers?):
            // Trailers follow chunks.
            headers.remove(name: "content-length")
            try await begin(status, headers)
            if bytes.readableBytes > 0 && mayHaveBody(status) { try await write(bytes) }
            try await finish(HTTPHeaders(trailers))
        case .stream(_, let produce):
            try await begin(status, headers)
            let mayHaveBody = mayHaveBody(status)
            let trailers = try await produce { [self] piece in
                if mayHaveBody { try await write(piece) }
            }
            try await finish(trailers.map { HTTPHeaders($0) })
        }
    }
}
