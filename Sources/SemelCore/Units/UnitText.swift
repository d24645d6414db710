/// Reads an amount with its unit. A number without one is refused: whether `3600` means seconds or milliseconds is how
/// deduplication gets switched off unnoticed (R3).
struct UnitText {
    /// The units that are written, from the smallest on, with how many of the smallest they are.
    let units: [(name: String, factor: Int64)]
    /// Units that others use, and what to write instead.
    let foreign: [String: String]
    let kind: String
    let example: String
    let maximum: Int64

    /// The amount in the smallest unit.
    func parse(_ text: String) throws(UnitTextError) -> Int64 {
        func failure(_ problem: String, _ remedy: String) -> UnitTextError {
            UnitTextError(text: text, problem: problem, remedy: remedy)
        }
        let known = units.map(\.name).joined(separator: ", ")
        let digits = text.prefix { ("0"..."9").contains($0) }
        let unit = String(text.dropFirst(digits.count))
        guard !digits.isEmpty else {
            let problem = text.hasPrefix("-") ? "a \(kind) is not negative" : "a \(kind) begins with a whole number"
            throw failure(problem, "write one such as \(example)")
        }
        guard !unit.isEmpty else {
            let choices = units.map { "\(digits)\($0.name)" }
            throw failure("the unit is missing", "write \(choices.dropLast().joined(separator: ", ")) or \(choices.last ?? "")")
        }
        guard let factor = units.first(where: { $0.name == unit })?.factor else {
            if unit.hasPrefix(".") || unit.hasPrefix(",") {
                throw failure("a \(kind) is a whole number of its unit", "use a smaller unit, such as \(example)")
            }
            if unit.hasPrefix(" ") { throw failure("there is a space before the unit", "write it as in \(example)") }
            let instead = foreign[unit] ?? foreign[unit.lowercased()]
            throw failure("the unit '\(unit)' is not known", instead.map { "write \(digits)\($0)" } ?? "write one of \(known)")
        }
        guard let number = Int64(digits), case let (amount, overflow) = number.multipliedReportingOverflow(by: factor),
            !overflow, amount <= maximum
        else { throw failure("the \(kind) is too large", "write at most \(format(maximum))") }
        return amount
    }

    /// The amount in the largest unit that gives a whole number.
    func format(_ amount: Int64) -> String {
        let unit = units.last { amount % $0.factor == 0 && (amount != 0 || $0.factor == 1) } ?? units[0]
        return "\(amount / unit.factor)\(unit.name)"
    }
}

/// Why a text is not an amount with a unit, and what to write instead.
public struct UnitTextError: Error, Hashable, Sendable, CustomStringConvertible {
    public let text: String
    public let problem: String
    public let remedy: String

    public var description: String { "'\(text)': \(problem); \(remedy)" }
}
