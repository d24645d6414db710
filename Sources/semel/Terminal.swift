import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// What is written, and how it may look: colours only on a terminal, and never against `NO_COLOR`.
struct Terminal {
    enum Style: String {
        case bold = "1"
        case red = "31"
        case green = "32"
        case yellow = "33"
        case faint = "2"
    }

    private let descriptor: CInt
    let hasColours: Bool

    private init(_ descriptor: CInt) {
        self.descriptor = descriptor
        let environment = ProcessInfo.processInfo.environment
        // https://no-color.org: any value that is not empty.
        hasColours = isatty(descriptor) == 1 && (environment["NO_COLOR"] ?? "").isEmpty && environment["TERM"] != "dumb"
    }

    static let standardOutput = Terminal(STDOUT_FILENO)
    static let standardError = Terminal(STDERR_FILENO)

    func styled(_ text: String, _ style: Style?) -> String {
        guard hasColours, let style else { return text }
        return "\u{1B}[\(style.rawValue)m\(text)\u{1B}[0m"
    }

    func write(_ text: String) {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { bytes in Glibc.write(descriptor, bytes.baseAddress, bytes.count) }
            if count < 0 && errno == EINTR { continue }
            // Whoever read this has gone (`semel … | head`): that is no failure of the command.
            guard count > 0 else { return }
            rest = rest.dropFirst(count)
        }
    }

    static func exit(_ code: CommandFailure.Code) -> Never { Glibc.exit(code.rawValue) }

    /// Text from elsewhere must not steer the terminal: control characters are shown as `?`.
    static func printable(_ text: String, keepsLines: Bool = false) -> String {
        var printable = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            let isControl = scalar.properties.generalCategory == .control || scalar.properties.generalCategory == .format
            printable.append(isControl && !(keepsLines && scalar == "\n") ? "?" : scalar)
        }
        return String(printable)
    }
}

/// Columns of text, each as wide as its widest cell.
struct Table {
    struct Cell: ExpressibleByStringLiteral {
        var text: String
        var style: Terminal.Style?

        init(_ text: String, _ style: Terminal.Style? = nil) {
            self.text = Terminal.printable(text)
            self.style = style
        }

        init(stringLiteral text: String) { self.init(text) }
    }

    private let heads: [String]
    private var rows: [[Cell]] = []

    init(_ heads: String...) { self.heads = heads }

    mutating func add(_ cells: Cell...) { rows.append(cells) }

    func text(_ terminal: Terminal) -> String {
        let all = [heads.map { Cell($0, .bold) }] + rows
        let widths = heads.indices.map { column in all.map { $0[column].text.count }.max() ?? 0 }
        return all.map { row in
            row.enumerated().map { column, cell in
                let padding = column == row.count - 1 ? 0 : widths[column] + 2 - cell.text.count
                return terminal.styled(cell.text, cell.style) + String(repeating: " ", count: padding)
            }.joined() + "\n"
        }.joined()
    }
}
