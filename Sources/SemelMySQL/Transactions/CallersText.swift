#if MySQL
/// What a caller's statement may be: one that reads or changes rows of the caller's own tables.
///
/// MySQL has no authorizer. So the first word must be one of a few, none of which can end the transaction; and no name in
/// it may be one of the store's tables. Afterwards the server is asked whether the transaction is still open.
enum CallersText {
    private static let allowed: Set<String> = ["SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE", "WITH", "VALUES", "TABLE", "DO"]

    /// Why a statement is refused; `nil` when it may run.
    static func refusal(of sql: String) -> String? {
        var scanner = Scanner(sql)
        var isFirst = true
        while let token = scanner.next() {
            switch token {
            case .executableComment: return "it has an executable comment (/*! or /*M!), which hides what it does"
            case .word(let word):
                let upper = word.uppercased()
                if isFirst {
                    guard allowed.contains(upper) else {
                        return "it begins with \(word); in here only \(allowed.sorted().joined(separator: ", ")) may, for nothing else leaves the transaction to the store"
                    }
                }
                isFirst = false
                if word.lowercased().hasPrefix("semel_") { return "it names \(word), a table of the store's own" }
            case .sign(let sign):
                // Parentheses may stand around a SELECT.
                if isFirst, sign != UInt8(ascii: "(") { return "it does not begin with a word" }
            }
        }
        return isFirst ? "it is empty" : nil
    }

    private enum Token {
        case word(String)
        case sign(UInt8)
        case executableComment
    }

    /// Passes over literals and comments.
    private struct Scanner {
        private let text: [UInt8]
        private var position = 0

        init(_ sql: String) { text = Array(sql.utf8) }

        private func at(_ offset: Int) -> UInt8 { position + offset < text.count ? text[position + offset] : 0 }

        mutating func next() -> Token? {
            while position < text.count {
                switch at(0) {
                case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\n"), UInt8(ascii: "\r"), 0x0B, 0x0C: position += 1
                case UInt8(ascii: "#"): skipLine()
                case UInt8(ascii: "-") where at(1) == UInt8(ascii: "-") && (at(2) <= 0x20): skipLine()
                case UInt8(ascii: "/") where at(1) == UInt8(ascii: "*"):
                    if at(2) == UInt8(ascii: "!") || (at(2) == UInt8(ascii: "M") && at(3) == UInt8(ascii: "!")) { return .executableComment }
                    position += 2
                    while position < text.count, !(at(0) == UInt8(ascii: "*") && at(1) == UInt8(ascii: "/")) { position += 1 }
                    position += 2
                case UInt8(ascii: "'"), UInt8(ascii: "\""): skipLiteral(at(0))
                case UInt8(ascii: "`"):
                    position += 1
                    let start = position
                    while position < text.count, at(0) != UInt8(ascii: "`") { position += 1 }
                    defer { position += 1 }
                    return .word(String(decoding: text[start..<min(position, text.count)], as: UTF8.self))
                case let byte where Self.isWord(byte):
                    let start = position
                    while position < text.count, Self.isWord(at(0)) { position += 1 }
                    return .word(String(decoding: text[start..<position], as: UTF8.self))
                case let byte:
                    position += 1
                    return .sign(byte)
                }
            }
            return nil
        }

        private mutating func skipLine() {
            while position < text.count, at(0) != UInt8(ascii: "\n") { position += 1 }
        }

        private mutating func skipLiteral(_ quote: UInt8) {
            position += 1
            while position < text.count {
                if at(0) == UInt8(ascii: "\\") { position += 2; continue }
                if at(0) == quote {
                    // Doubled, it stands for itself.
                    guard at(1) == quote else { break }
                    position += 1
                }
                position += 1
            }
            position += 1
        }

        private static func isWord(_ byte: UInt8) -> Bool {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"),
                UInt8(ascii: "$"), 0x80...: true
            default: false
            }
        }
    }
}
#endif
