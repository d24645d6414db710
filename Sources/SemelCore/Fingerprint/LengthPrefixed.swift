/// An unambiguous encoding of a list of parts, to be hashed or compared as a whole.
///
/// Each part is a presence byte, its length and its bytes, so no two different lists have the same encoding:
/// `("ab", "c")` and `("a", "bc")` differ (H30), and so do an absent part, an empty one and none at all. Text is taken as
/// the UTF-8 it is, byte for byte: no case folding, no Unicode normalisation (H27). The encoding is stable; digests of it
/// may be stored.
public struct LengthPrefixed: Hashable, Sendable {
    private var writer = ByteWriter(reservingCapacity: 160)

    /// The encoding so far.
    public var bytes: [UInt8] { writer.bytes }

    /// Begins with the name of what is encoded, so that lists made for different purposes never meet.
    ///
    /// - Parameter purpose: such as `semel.fingerprint.1`; it carries the version of the format.
    public init(purpose: String) {
        append(purpose)
    }

    /// Appends a text, or its absence.
    public mutating func append(_ text: String?) {
        writer.writeOptional(text) { $0.writeLengthPrefixed($1) }
    }

    /// Appends a digest's 32 bytes.
    mutating func append(_ digest: Digest256) {
        writer.write(true)
        writer.writeVarint(UInt64(Digest256.byteCount))
        digest.write(to: &writer)
    }

    /// Appends bytes.
    public mutating func append(_ part: some Collection<UInt8>) {
        writer.write(true)
        writer.writeLengthPrefixed(part)
    }
}
