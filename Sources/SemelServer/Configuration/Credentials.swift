internal import Crypto
package import SemelCore

/// Bytes that nobody gets to read in a log.
package struct Secret: Hashable, Sendable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    package let bytes: [UInt8]

    package init(bytes: [UInt8]) {
        self.bytes = bytes
    }

    package var description: String { "(secret)" }
    package var debugDescription: String { description }
    package var customMirror: Mirror { Mirror(self, children: []) }
}

/// A bearer token as the configuration keeps it: its SHA-256 and nothing else.
package struct TokenDigest: Hashable, Sendable, CustomStringConvertible {
    package let bytes: [UInt8]

    /// Not the digest: whoever can read a log could try tokens against it.
    package var description: String { "(a token's digest)" }

    package init(of token: String) {
        bytes = Array(SHA256.hash(data: Array(token.utf8)))
    }

    /// Reads 64 hexadecimal digits.
    package init?(hexadecimal text: some StringProtocol) {
        let digits = Array(text.utf8)
        guard digits.count == 64, digits.allSatisfy({ ($0 >= 0x30 && $0 <= 0x39) || ($0 >= 0x61 && $0 <= 0x66) }) else { return nil }
        bytes = stride(from: 0, to: 64, by: 2).map { UInt8(String(decoding: digits[$0..<$0 + 2], as: UTF8.self), radix: 16)! }
    }

    /// Compares digests without leaving early, so the time taken tells nothing about the token.
    package func matches(_ presented: String) -> Bool {
        zip(bytes, TokenDigest(of: presented).bytes).reduce(0) { $0 | ($1.0 ^ $1.1) } == 0
    }
}

/// What the holder of a token of the control plane may do.
package enum Role: String, Hashable, Sendable, CaseIterable, Comparable {
    /// Reads.
    case viewer
    /// Reads, resolves and forgets.
    case `operator`

    package static func < (left: Role, right: Role) -> Bool { left == .viewer && right == .operator }
}

/// A token of the control plane.
package struct RoleToken: Hashable, Sendable {
    /// Who holds it, for the audit log.
    package var name: String
    package var digest: TokenDigest
    package var role: Role

    package init(name: String, digest: TokenDigest, role: Role) {
        self.name = name
        self.digest = digest
        self.role = role
    }
}

/// A token of the claims API.
package struct ScopeToken: Hashable, Sendable {
    package enum Scopes: Hashable, Sendable {
        case all
        /// Compared byte for byte: two spellings of one character are two scopes (H27), and a token for the one opens
        /// nothing of the other.
        case named(Set<ExactText>)
    }

    package var name: String
    package var digest: TokenDigest
    package var scopes: Scopes

    package init(name: String, digest: TokenDigest, scopes: Scopes) {
        self.name = name
        self.digest = digest
        self.scopes = scopes
    }

    package func allows(_ scope: String) -> Bool {
        switch scopes {
        case .all: true
        case .named(let names): names.contains(ExactText(scope))
        }
    }
}
