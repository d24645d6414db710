/// Reads the text of a ``JSONSelector``.
struct JSONSelectorParser {
    private let text: String
    private let characters: [Unicode.Scalar]
    private var position = 0

    init(_ text: String) {
        self.text = text
        characters = Array(text.unicodeScalars)
    }

    mutating func parse() throws(JSONSelectorError) -> [JSONSelector.Step] {
        guard take("$") else {
            let isName = characters.first.map(Self.beginsName) ?? false
            throw failure("a selector begins with $", remedy: isName ? "write $.\(text)" : "write a path such as $.order_id")
        }
        var steps: [JSONSelector.Step] = []
        while position < characters.count {
            if take(".") {
                steps.append(try parseName())
            } else if take("[") {
                steps.append(try parseBracket())
            } else if characters[position] == "-" {
                throw failure("a name with '-' must be quoted", remedy: "write it in brackets, as in $['order-id']")
            } else {
                throw failure("'.' or '[' is expected", remedy: "write a path such as $.order.id or $.lines[0]; a name with other characters is written in brackets, as in $['order id']")
            }
        }
        return steps
    }

    private mutating func parseName() throws(JSONSelectorError) -> JSONSelector.Step {
        guard position < characters.count else {
            throw failure("a name is expected after '.'", remedy: "write a path such as $.order_id")
        }
        switch characters[position] {
        case ".": throw failure("'..' searches all levels, which a key must not", remedy: "name every level, as in $.order.id")
        case "*": throw failure("'.*' is not supported", remedy: "write [*] for every element of an array")
        case let first where !Self.beginsName(first):
            throw failure("a name is expected after '.'", remedy: "write a name that does not begin with a letter or '_' in brackets, as in $['1st']")
        default: break
        }
        let start = position
        while position < characters.count, Self.continuesName(characters[position]) { position += 1 }
        return .name(ExactText(string(start..<position)))
    }

    private mutating func parseBracket() throws(JSONSelectorError) -> JSONSelector.Step {
        let step: JSONSelector.Step
        guard position < characters.count else { throw unclosed() }
        switch characters[position] {
        case "*":
            position += 1
            step = .everyElement
        case "'", "\"": step = .name(ExactText(try parseQuoted()))
        case "0"..."9": step = .index(try parseIndex())
        case "-": throw failure("elements cannot be counted from the end", remedy: "write an index from 0 on, or [*] for every element")
        case "?": throw failure("filters are not supported", remedy: "name the place, as in $.lines[0].id")
        default: throw failure("a quoted name, an index or * is expected", remedy: "write ['name'], [0] or [*]")
        }
        guard !take("]") else { return step }
        guard position < characters.count else { throw unclosed() }
        switch characters[position] {
        case ",": throw failure("a list of places is not supported", remedy: "write one selector for each place")
        case ":": throw failure("slices are not supported", remedy: "write an index such as [0], or [*] for every element")
        default: throw failure("']' is expected", remedy: "write ['name'], [0] or [*], without white space")
        }
    }

    private mutating func parseQuoted() throws(JSONSelectorError) -> String {
        let quote = characters[position]
        position += 1
        var name = String.UnicodeScalarView()
        while position < characters.count {
            if take(quote) { return String(name) }
            if take("\\") {
                guard position < characters.count, ["'", "\"", "\\"].contains(characters[position]) else {
                    throw failure("only a quote and a backslash can follow a backslash", remedy: "write the character itself")
                }
            }
            name.append(characters[position])
            position += 1
        }
        throw failure("the name has no closing quote", remedy: "write ['name']")
    }

    private mutating func parseIndex() throws(JSONSelectorError) -> Int {
        let start = position
        while position < characters.count, ("0"..."9").contains(characters[position]) { position += 1 }
        let digits = string(start..<position)
        guard let index = Int(digits), digits == "0" || !digits.hasPrefix("0") else {
            position = start
            throw failure("\(digits) is not an index", remedy: "write a number from 0 on, without leading zeros")
        }
        return index
    }

    /// The first characters of RFC 9535's shorthand names: letters of ASCII, '_', and everything beyond ASCII.
    private static func beginsName(_ character: Unicode.Scalar) -> Bool {
        switch character {
        case "a"..."z", "A"..."Z", "_": true
        default: !character.isASCII
        }
    }

    private static func continuesName(_ character: Unicode.Scalar) -> Bool {
        beginsName(character) || ("0"..."9").contains(character)
    }

    private func string(_ range: Range<Int>) -> String {
        var scalars = String.UnicodeScalarView()
        scalars.append(contentsOf: characters[range])
        return String(scalars)
    }

    private mutating func take(_ character: Unicode.Scalar) -> Bool {
        guard position < characters.count, characters[position] == character else { return false }
        position += 1
        return true
    }

    private func unclosed() -> JSONSelectorError {
        failure("the bracket is not closed", remedy: "write ['name'], [0] or [*]")
    }

    private func failure(_ problem: String, remedy: String) -> JSONSelectorError {
        JSONSelectorError(selector: text, column: position + 1, problem: problem, remedy: remedy)
    }
}

/// Why a text is not a ``JSONSelector``, where, and what to write instead.
public struct JSONSelectorError: Error, Hashable, Sendable, CustomStringConvertible {
    public let selector: String
    /// The place in characters (Unicode scalars), beginning with 1.
    public let column: Int
    public let problem: String
    public let remedy: String

    public var description: String {
        "the selector '\(selector)' is wrong at character \(column): \(problem); \(remedy)"
    }
}
