/// A text that equals only itself, byte for byte.
///
/// Swift's own comparison follows Unicode canonical equivalence: `"é"` equals `"e"` with a combining accent. For names and
/// identities that would merge what the sender kept apart (H27).
package struct ExactText: Hashable, Sendable, ExpressibleByStringLiteral, CustomStringConvertible {
    package let text: String

    package init(_ text: String) {
        self.text = text
    }

    package init(stringLiteral text: String) {
        self.text = text
    }

    package var description: String { text }

    package static func == (left: ExactText, right: ExactText) -> Bool {
        left.text.utf8.count == right.text.utf8.count && left.text.utf8.elementsEqual(right.text.utf8)
    }

    package func hash(into hasher: inout Hasher) {
        for byte in text.utf8 { hasher.combine(byte) }
        hasher.combine(0xFF as UInt8)  // never occurs in UTF-8, so it ends the text
    }
}
