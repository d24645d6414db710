/// What a request asked for, as a SHA-256 digest: two requests with one key and different fingerprints are a misuse of
/// the key, and are refused in every state (H25).
///
/// ``FingerprintBuilder`` makes the fingerprint of an HTTP request. A fingerprint is compared in constant time, and always
/// in full.
public struct Fingerprint: Hashable, Sendable, CustomStringConvertible {
    public static let byteCount = Digest256.byteCount

    public let digest: Digest256

    public init(_ digest: Digest256) {
        self.digest = digest
    }

    /// The fingerprint of content that the caller has already put into one unambiguous form, such as the text that
    /// a caller of the claims API sends as its fingerprint.
    public init(of content: some Collection<UInt8>) {
        var parts = LengthPrefixed(purpose: "semel.fingerprint.content.1")
        parts.append(content)
        digest = Digest256(hashing: parts)
    }

    /// A fingerprint from its 32 stored bytes; nil for any other number of bytes.
    public init?(bytes: some Collection<UInt8>) {
        guard let digest = Digest256(bytes: bytes) else { return nil }
        self.digest = digest
    }

    /// A fingerprint from its 64 hexadecimal digits; nil for anything else.
    public init?(hexadecimal: String) {
        guard let digest = Digest256(hexadecimal: hexadecimal) else { return nil }
        self.digest = digest
    }

    public var bytes: [UInt8] { digest.bytes }

    /// The fingerprint in 64 lower-case hexadecimal digits.
    public var description: String { digest.description }
}
