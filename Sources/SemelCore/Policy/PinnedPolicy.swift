internal import Crypto

/// A policy as it is pinned in the records made under it: its scene's name, its text, and the hash of both.
///
/// Stores keep the text by its hash, so that an operation is replayed, verified and retained by the rules it started
/// under, whatever is configured now (H57).
public struct PinnedPolicy: Hashable, Sendable {
    public let scene: String
    /// Canonical and self-contained; for people, and for resolvers of a policy that is no longer configured.
    public let text: String
    public let hash: PolicyHash

    public init(scene: String, text: String) {
        self.scene = scene
        self.text = text
        var writer = ByteWriter()
        writer.writeLengthPrefixed(Array(scene.utf8))
        writer.writeLengthPrefixed(Array(text.utf8))
        var digest = SHA256()
        digest.update(data: writer.bytes)
        hash = digest.finalize().withUnsafeBytes { bytes in
            PolicyHash(
                high: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 0, as: UInt64.self)),
                low: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
        }
    }

    public static func == (left: PinnedPolicy, right: PinnedPolicy) -> Bool { left.hash == right.hash }

    public func hash(into hasher: inout Hasher) { hasher.combine(hash) }
}
