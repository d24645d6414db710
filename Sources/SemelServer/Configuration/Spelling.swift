/// Which name was meant.
enum Spelling {
    /// The nearest of the candidates, when it is near enough to be what was meant.
    static func suggestion(for text: String, among candidates: some Sequence<String>) -> String? {
        let plain = normalized(text)
        return candidates.map { ($0, distance(plain, normalized($0))) }
            .filter { $0.1 <= max(1, min(plain.count, normalized($0.0).count) / 3) }
            .min { ($0.1, $0.0) < ($1.1, $1.0) }?.0
    }

    private static func normalized(_ text: String) -> [Character] { text.lowercased().filter { $0.isLetter || $0.isNumber } }

    /// The number of characters to insert, remove, replace or swap with their neighbour.
    private static func distance(_ left: [Character], _ right: [Character]) -> Int {
        guard left.count < 64, right.count < 64 else { return .max }
        var rows = [Array(0...right.count)]
        for i in left.indices {
            var row = [i + 1]
            for j in right.indices {
                var best = min(rows[i][j + 1] + 1, row[j] + 1, rows[i][j] + (left[i] == right[j] ? 0 : 1))
                if i > 0, j > 0, left[i] == right[j - 1], left[i - 1] == right[j] { best = min(best, rows[i - 1][j - 1] + 1) }
                row.append(best)
            }
            rows.append(row)
        }
        return rows[left.count][right.count]
    }
}
