internal import HTTPTypes
internal import NIOHTTP1
#if JWT
internal import FoundationEssentials
internal import JWTKit
internal import SemelCore

/// Verifies the bearer token of a request (RFC 7519): signature, `exp`, `nbf`, issuer and audience. A token that lacks one
/// that is configured is not valid.
struct TokenVerifier: Sendable {
    private let keys = JWTKeyCollection()
    private let settings: JWTSettings

    /// - Throws: when the keys cannot be read.
    init(_ settings: JWTSettings) async throws {
        self.settings = settings
        switch settings.key {
        case .secret(let secret):
            await keys.add(hmac: HMACKey(from: Data(secret.bytes)), digestAlgorithm: .sha256)
        case .keySet(let text):
            for (index, var key) in try JSONDecoder().decode(JWKS.self, from: Data(text.utf8)).keys.enumerated() {
                if key.keyIdentifier == nil { key.keyIdentifier = JWKIdentifier(string: "key-\(index)") }
                try await keys.add(jwk: key)
            }
        }
    }

    /// The claims of the request's token; `nil` when it has none, or none that is valid.
    func claims(of headers: HTTPHeaders) async -> [String: String]? {
        let fields = headers["authorization"]
        guard fields.count == 1, fields[0].lowercased().hasPrefix("bearer ") else { return nil }
        let token = String(fields[0].dropFirst("bearer ".count))
        guard let claims = try? await keys.verify(token, as: Claims.self, iteratingKeys: true),
            settings.issuer.map({ ExactText($0) == claims.single["iss"].map { ExactText($0) } }) ?? true,
            settings.audience.map({ audience in claims.audience.contains { ExactText($0) == ExactText(audience) } }) ?? true
        else { return nil }
        return claims.single
    }

    private struct Claims: JWTPayload {
        var expiration: ExpirationClaim?
        var notBefore: NotBeforeClaim?
        var audience: [String] = []
        /// Those that are one text or one whole number.
        var single: [String: String] = [:]

        init(from decoder: any Decoder) throws {
            let container = try decoder.container(keyedBy: Name.self)
            expiration = try container.decodeIfPresent(ExpirationClaim.self, forKey: Name("exp"))
            notBefore = try container.decodeIfPresent(NotBeforeClaim.self, forKey: Name("nbf"))
            audience = (try? container.decode([String].self, forKey: Name("aud"))) ?? []
            for name in container.allKeys {
                if let text = try? container.decode(String.self, forKey: name) {
                    single[name.stringValue] = text
                } else if let number = try? container.decode(Int64.self, forKey: name) {
                    single[name.stringValue] = String(number)
                }
            }
            if let text = single["aud"] { audience.append(text) }
        }

        func encode(to encoder: any Encoder) throws {
            try single.encode(to: encoder)
        }

        func verify(using algorithm: some JWTAlgorithm) throws {
            try expiration?.verifyNotExpired()
            try notBefore?.verifyNotBefore()
        }
    }

    private struct Name: CodingKey {
        let stringValue: String
        var intValue: Int? { nil }
        init(_ text: String) { stringValue = text }
        init?(stringValue: String) { self.stringValue = stringValue }
        init?(intValue: Int) { nil }
    }
}
#else
/// Cannot be made: this build has no trait JWT, and its configuration check has said so.
struct TokenVerifier: Sendable {
    init(_ settings: JWTSettings) async throws {
        throw GatewayError.unusable("This build of semel cannot verify tokens; build it with the trait JWT.")
    }

    func claims(of headers: HTTPHeaders) async -> [String: String]? { nil }
}
#endif
