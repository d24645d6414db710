import Crypto

/// What of a request's body enters its fingerprint.
public enum FingerprintMode: Hashable, Sendable {
    /// The bytes as they are. The default: it needs no memory, reads nothing into the body, and has no false matches.
    case raw
    /// The canonical form of a JSON body: order of members, white space and notation of numbers do not matter (H26).
    case json
    /// Only these places of a JSON body, for clients that change something harmless at each attempt. Everything else in the
    /// body may differ unnoticed.
    case selected([JSONSelector])
}

/// Makes the fingerprint of an HTTP request while its body streams in.
///
/// The fingerprint is the SHA-256 digest of length-prefixed parts in a fixed order: version of this format, method, path,
/// query, media type, mode, content of the body. Since the length of a streamed body is not known in advance, the body is
/// hashed on its own and enters as its digest, so `finish` may come after any number of chunks and the result does not
/// depend on how the body was cut.
///
/// - The **method** is case-sensitive and the **path** is taken as it was sent (HTTP.md: it is forwarded unchanged too).
/// - An absent **query** and an empty one (`/a` and `/a?`) differ.
/// - Of the **media type** only type and subtype count, in lower case: parameters such as the boundary of a multipart body
///   are minted anew by some clients at each attempt.
/// - The **body** is what remains after decoding the transfer (chunks); content codings are the caller's choice, made the
///   same way each time.
///
/// Fingerprints made in different modes never match.
public struct FingerprintBuilder: Sendable {
    private var parts: LengthPrefixed
    private var body: Body

    private enum Body: Sendable {
        case hashing(SHA256)
        case collecting([UInt8], FingerprintMode)
    }

    /// - Parameters:
    ///   - query: what follows the question mark, nil if there is none.
    ///   - mediaType: the value of `Content-Type`, nil if there is none.
    public init(method: String, path: String, query: String?, mediaType: String?, mode: FingerprintMode = .raw) {
        parts = LengthPrefixed(purpose: "semel.fingerprint.request.1")
        parts.append(method)
        parts.append(path)
        parts.append(query)
        parts.append(mediaType.map(Self.essence))
        switch mode {
        case .raw: body = .hashing(SHA256())
        case .json, .selected: body = .collecting([], mode)
        }
    }

    /// Adds the next bytes of the body.
    ///
    /// In the mode ``FingerprintMode/raw`` they are hashed and not kept; in the others they are kept until `finish`, so
    /// the caller limits their number (HTTP.md: 1 MiB by default).
    public mutating func update(_ chunk: some Collection<UInt8>) {
        switch body {
        case .hashing(var hasher):
            // Given up first, so that the hasher is changed in place and not copied at each chunk.
            body = .collecting([], .raw)
            if chunk.withContiguousStorageIfAvailable({ hasher.update(bufferPointer: UnsafeRawBufferPointer($0)) }) == nil {
                Array(chunk).withUnsafeBytes { hasher.update(bufferPointer: $0) }
            }
            body = .hashing(hasher)
        case .collecting(var bytes, let mode):
            body = .collecting([], mode)
            bytes.append(contentsOf: chunk)
            body = .collecting(bytes, mode)
        }
    }

    /// The fingerprint of the request with the body given so far.
    ///
    /// - Throws: in the modes for JSON, when the body is not acceptable JSON (an empty one is not).
    public consuming func finish() throws(JSONError) -> Fingerprint {
        switch body {
        case .hashing(let hasher):
            parts.append("raw")
            parts.append(Digest256(finalizing: hasher))
        case .collecting(let bytes, .selected(let selectors)):
            let value = try JSONValue(parsing: bytes)
            parts.append("select")
            for selector in selectors {
                parts.append(selector.description)
                parts.append(selector.select(in: value).encoded)
            }
        case .collecting(let bytes, _):
            parts.append("json")
            parts.append(Digest256(hashing: try JSONValue(parsing: bytes).canonicalBytes()))
        }
        return Fingerprint(Digest256(hashing: parts))
    }

    /// Type and subtype without parameters, in lower case.
    private static func essence(of mediaType: String) -> String {
        if mediaType.utf8.allSatisfy({ $0 > 0x20 && $0 != UInt8(ascii: ";") && !(UInt8(ascii: "A")...UInt8(ascii: "Z")).contains($0) }) {
            return mediaType
        }
        var bytes = mediaType.utf8.prefix { $0 != UInt8(ascii: ";") }
        func isBlank(_ byte: UInt8?) -> Bool { byte == 0x20 || byte == 0x09 }
        while isBlank(bytes.first) { bytes.removeFirst() }
        while isBlank(bytes.last) { bytes.removeLast() }
        let lowerCased = bytes.map { (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains($0) ? $0 | 0x20 : $0 }
        return String(decoding: lowerCased, as: UTF8.self)
    }
}
