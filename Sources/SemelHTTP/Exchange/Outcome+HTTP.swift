internal import Crypto
public import HTTPTypes
internal import NIOCore
internal import Semel

extension Outcome {
    /// What is kept of an answer: its status, the fields a replay may carry, and its body and trailers.
    init(_ head: HTTPResponse, kept body: ByteBuffer, trailers: HTTPFields?, policy: HTTPPolicy) {
        self.init(
            status: UInt16(head.status.code), fields: policy.replayed(head.headerFields),
            body: .kept(Array(buffer: body)), trailers: trailers.map(policy.replayedTrailers) ?? [])
    }

    /// What is kept of an answer that is too large, or that is an event stream (H35).
    init(_ head: HTTPResponse, omitted length: Int, digest: SHA256Digest, policy: HTTPPolicy) {
        self.init(
            status: UInt16(head.status.code), fields: policy.replayed(head.headerFields),
            body: .omitted(length: UInt64(length), digest: Array(digest)))
    }

    /// The answer that was recorded; `nil` when its body was not kept.
    func answer() -> HTTPAnswer? {
        guard case .kept(let bytes) = body, status >= 200 else { return nil }
        let head = HTTPResponse(status: .init(code: Int(status)), headerFields: HTTPFields(fields))
        return HTTPAnswer(head, .bytes(ByteBuffer(bytes: bytes), trailers: trailers.isEmpty ? nil : HTTPFields(trailers)))
    }
}

extension HTTPFields {
    fileprivate init(_ fields: [Outcome.Field]) {
        self.init()
        reserveCapacity(fields.count + 3)
        for field in fields {
            guard let name = HTTPField.Name(field.name) else { continue }
            append(HTTPField(name: name, value: field.value))
        }
    }
}

extension HTTPPolicy {
    /// Fields that describe the result, and so belong to every copy of it.
    static let standardReplayedFields: Set<HTTPField.Name> = [
        .contentType, .contentEncoding, .contentLanguage, .contentDisposition, .location, .eTag, .lastModified, .link, .cacheControl,
    ]

    /// Fields that belong to one client, one connection or one answer: never recorded, whatever a policy adds (H37).
    public static let neverReplayed: Set<HTTPField.Name> = [
        .setCookie, .setCookie2, .cookie, .authorization, .wwwAuthenticate, .authenticationInfo, .proxyAuthenticate,
        .proxyAuthorization, .proxyAuthenticationInfo, .proxyConnection, .connection, .keepAlive, .te, .trailer, .transferEncoding,
        .upgrade, .contentLength, .idempotentReplayed, .idempotencyKeyExpires, .semelGuarantee,
    ]

    func replayed(_ fields: HTTPFields) -> [Outcome.Field] {
        let connection = fields.connectionOptions
        return fields.compactMap { field in
            let name = field.name
            guard Self.standardReplayedFields.contains(name) || replayedFields.contains(name), !Self.neverReplayed.contains(name),
                !connection.contains(name)
            else { return nil }
            return Outcome.Field(name.rawName, field.value)
        }
    }

    /// A handler sends trailers about the body it sent, so all of them are kept but those that belong to one client.
    func replayedTrailers(_ fields: HTTPFields) -> [Outcome.Field] {
        fields.compactMap { Self.neverReplayed.contains($0.name) ? nil : Outcome.Field($0.name.rawName, $0.value) }
    }
}

extension HTTPFields {
    /// The fields that `Connection` declares to be about this connection only (RFC 9110 §7.6.1).
    fileprivate var connectionOptions: Set<HTTPField.Name> {
        guard contains(.connection) else { return [] }
        return Set(self[values: .connection].flatMap { $0.split(separator: ",") }.compactMap { HTTPField.Name(String($0.trimmingBlanks)) })
    }
}

extension HTTPField.Name {
    static let link = Self("Link")!
    static let keepAlive = Self("Keep-Alive")!
    static let proxyConnection = Self("Proxy-Connection")!
    static let proxyAuthenticationInfo = Self("Proxy-Authentication-Info")!
    static let authenticationInfo = Self("Authentication-Info")!
    static let setCookie2 = Self("Set-Cookie2")!
}
