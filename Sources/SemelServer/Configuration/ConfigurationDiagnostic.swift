/// Something to say about a configuration: a mistake that keeps it from being used, or a warning.
package struct ConfigurationDiagnostic: Hashable, Sendable, CustomStringConvertible {
    package enum Severity: String, Hashable, Sendable { case mistake = "error", warning }

    package enum Place: Hashable, Sendable, CustomStringConvertible {
        /// A whole file, which could not be read.
        case file(String)
        /// Both from 1; columns count Unicode scalars.
        case position(String, line: Int, column: Int)
        case environment(variable: String)

        package var description: String {
            switch self {
            case .file(let name): name
            case .position(let name, let line, let column): "\(name):\(line):\(column)"
            case .environment(let variable): variable
            }
        }
    }

    package var severity: Severity
    package var place: Place
    /// The key it is about, such as `scenes.payment.capture.lease`; empty for the whole file.
    package var path: String
    package var problem: String
    package var remedy: String

    package var description: String {
        let subject = path.isEmpty ? "" : "\(path): "
        return "\(place): \(severity.rawValue): \(subject)\(problem). Remedy: \(remedy)."
    }

    /// For printing: in the order of the file, and what came by environment after it.
    package static func precedes(_ left: Self, _ right: Self) -> Bool {
        switch (left.place, right.place) {
        case (.position(_, let line, let column), .position(_, let otherLine, let otherColumn)): (line, column) < (otherLine, otherColumn)
        case (.environment(let variable), .environment(let other)): variable < other
        case (.environment, _): false
        case (_, .environment): true
        case (.file, .position): true
        case (_, .file): false
        }
    }
}

/// What came of reading a configuration.
package struct ConfigurationReading: Sendable {
    /// `nil` when there is a mistake.
    package var configuration: ServerConfiguration?
    /// In the order of the file.
    package var diagnostics: [ConfigurationDiagnostic]

    package var mistakes: [ConfigurationDiagnostic] { diagnostics.filter { $0.severity == .mistake } }
    package var warnings: [ConfigurationDiagnostic] { diagnostics.filter { $0.severity == .warning } }
}
