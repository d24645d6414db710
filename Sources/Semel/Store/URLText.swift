extension String {
    /// A URL without what stands before the last `@` of its authority: for messages, in which no password may be. Also of one that is
    /// wrong, as when a password holds a `/`.
    package var withoutCredentials: String {
        guard let start = range(of: "://")?.upperBound else { return firstIndex(of: "@").map { "…" + self[$0...] } ?? self }
        let end = self[start...].firstIndex(of: "?") ?? endIndex
        guard let mark = self[start..<end].lastIndex(of: "@") else { return self }
        return self[..<start] + "…" + self[mark...]
    }

    private func range(of text: String) -> Range<String.Index>? {
        var index = startIndex
        while index < endIndex {
            if self[index...].hasPrefix(text) { return index..<self.index(index, offsetBy: text.count) }
            index = self.index(after: index)
        }
        return nil
    }
}
