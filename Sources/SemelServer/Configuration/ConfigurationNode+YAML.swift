internal import Yams

/// Why a text is no configuration at all.
struct ConfigurationSyntaxError: Error {
    var line: Int
    var column: Int
    var problem: String
    var remedy: String
}

/// Reads YAML into nodes. What it takes is bounded, whatever the text says.
struct YAMLConfiguration {
    static let sizeLimit = 256 << 10
    /// Beyond this many, aliases of aliases could stand for more nodes than fit into memory.
    static let aliasLimit = 16
    static let nodeLimit = 20_000
    static let depthLimit = 32

    /// A name that is given twice in one mapping.
    struct Repetition {
        var name: String
        var place: ConfigurationNode.Place
        var firstLine: Int
    }

    private let file: String
    private var nodes = 0
    private(set) var repetitions: [Repetition] = []

    init(file: String) {
        self.file = file
    }

    mutating func read(_ text: String) throws(ConfigurationSyntaxError) -> ConfigurationNode {
        guard text.utf8.count <= Self.sizeLimit else {
            throw ConfigurationSyntaxError(
                line: 1, column: 1, problem: "the file is larger than \(Self.sizeLimit >> 10) KiB", remedy: "check that it is the configuration")
        }
        try checkAliases(text)
        guard let root = try compose(Self.maskingTemplates(text)) else {
            return ConfigurationNode(content: .empty, place: .position(file, line: 1, column: 1))
        }
        return try node(root, depth: 0)
    }

    // `get: /v1/payments?key={key}` is documented inside a flow mapping, where YAML takes the bracket for one of its own.
    // So a `{key}` in the middle of a word is hidden from it: the same number of characters, of Unicode's private use.
    private static let maskedTemplate = "\u{E001}key\u{E002}"

    private static func maskingTemplates(_ text: String) -> String {
        text.replacing(/([A-Za-z0-9=\/_.~&?\-])\{key\}/) { "\($0.output.1)\(maskedTemplate)" }
    }

    private static func unmasked(_ text: String) -> String { text.replacing(maskedTemplate, with: "{key}") }

    /// An alias begins a token with `*` and a name. Counting everything that looks like one errs towards refusing.
    private func checkAliases(_ text: String) throws(ConfigurationSyntaxError) {
        var line = 1
        var count = 0
        var previous = UInt8(ascii: "\n")
        var isCandidate = false
        for byte in text.utf8 {
            if isCandidate, byte == 0x5F || byte == 0x2D || (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte) {
                count += 1
                guard count <= Self.aliasLimit else {
                    throw ConfigurationSyntaxError(
                        line: line, column: 1, problem: "there are more than \(Self.aliasLimit) aliases (*name)", remedy: "write the values out")
                }
            }
            isCandidate = byte == UInt8(ascii: "*") && (previous <= 0x20 || "[]{},?:-".utf8.contains(previous))
            if byte == 0x0A { line += 1 }
            previous = byte
        }
    }

    /// Composes the document. Yams stops at the first mapping that repeats a name; here that is one mistake among others,
    /// so the first of two equal names is marked, and the rest is read again.
    private func compose(_ text: String) throws(ConfigurationSyntaxError) -> Node? {
        var text = text
        for _ in 0..<100 {
            do {
                // Everything is read as the text it is: what is a number, and what a duration, is the schema's business.
                return try Yams.compose(yaml: text, .basic)
            } catch YamlError.duplicatedKeysInMapping(_, let context) {
                guard let marked = Self.mark(text, context.mark) else { throw Self.error(.duplicatedKeysInMapping(duplicates: [], context: context)) }
                text = marked
            } catch let error as YamlError {
                throw Self.error(error)
            } catch {
                throw ConfigurationSyntaxError(line: 1, column: 1, problem: "\(error)", remedy: "write valid YAML")
            }
        }
        throw ConfigurationSyntaxError(line: 1, column: 1, problem: "more than 100 names are given twice", remedy: "give each name once")
    }

    /// Of Unicode's private use, so no name of ours has it.
    private static let repetitionMark: Unicode.Scalar = "\u{E000}"

    private static func mark(_ text: String, _ mark: Mark) -> String? {
        var lines = text.unicodeScalars.split(separator: "\n", omittingEmptySubsequences: false).map { String.UnicodeScalarView($0) }
        guard lines.indices.contains(mark.line - 1) else { return nil }
        var line = lines[mark.line - 1]
        guard var index = line.index(line.startIndex, offsetBy: mark.column - 1, limitedBy: line.endIndex), index < line.endIndex else { return nil }
        if line[index] == "\"" || line[index] == "'" { index = line.index(after: index) }
        line.insert(repetitionMark, at: index)
        lines[mark.line - 1] = line
        return lines.map(String.init).joined(separator: "\n")
    }

    private mutating func node(_ node: Node, depth: Int) throws(ConfigurationSyntaxError) -> ConfigurationNode {
        let mark = node.mark
        let (line, column) = (mark?.line ?? 1, mark?.column ?? 1)
        let place = ConfigurationNode.Place.position(file, line: line, column: column)
        nodes += 1
        guard nodes <= Self.nodeLimit, depth <= Self.depthLimit else {
            throw ConfigurationSyntaxError(
                line: line, column: column, problem: nodes > Self.nodeLimit ? "there are more than \(Self.nodeLimit) values" : "values are nested more than \(Self.depthLimit) deep",
                remedy: "write a smaller configuration")
        }
        switch node {
        case .scalar(let scalar):
            let isNothing = scalar.style == .plain && ["", "~", "null"].contains(scalar.string)
            return ConfigurationNode(content: isNothing ? .empty : .scalar(Self.unmasked(scalar.string)), place: place)
        case .sequence(let sequence):
            var elements: [ConfigurationNode] = []
            for element in sequence { elements.append(try self.node(element, depth: depth + 1)) }
            return ConfigurationNode(content: .sequence(elements), place: place)
        case .mapping(let mapping):
            var members: [ConfigurationNode.Member] = []
            var marked: [String: Int] = [:]
            for (key, value) in mapping {
                guard case .scalar(let scalar) = key else {
                    throw ConfigurationSyntaxError(
                        line: key.mark?.line ?? line, column: key.mark?.column ?? column, problem: "a name is expected, and here is a list or a mapping",
                        remedy: "write `name: value`; put text with brackets in quotes")
                }
                let keyLine = scalar.mark?.line ?? line
                var name = Self.unmasked(scalar.string)
                if name.unicodeScalars.first == Self.repetitionMark {
                    name.unicodeScalars.removeAll { $0 == Self.repetitionMark }
                    marked[name] = marked[name] ?? keyLine
                    continue
                }
                let keyPlace = ConfigurationNode.Place.position(file, line: keyLine, column: scalar.mark?.column ?? column)
                if let firstLine = marked[name] { repetitions.append(Repetition(name: name, place: keyPlace, firstLine: firstLine)) }
                members.append(ConfigurationNode.Member(name: name, place: keyPlace, value: try self.node(value, depth: depth + 1)))
            }
            return ConfigurationNode(content: .mapping(members), place: place)
        case .alias:
            throw ConfigurationSyntaxError(line: line, column: column, problem: "an alias stands for nothing", remedy: "write the value out")
        }
    }

    private static func error(_ error: YamlError) -> ConfigurationSyntaxError {
        switch error {
        case .scanner(let context, let problem, let mark, _), .parser(let context, let problem, let mark, _), .composer(let context, let problem, let mark, _):
            ConfigurationSyntaxError(
                line: mark.line, column: mark.column, problem: "not valid YAML: " + [context?.text, problem].compactMap(\.self).joined(separator: ", "),
                remedy: remedy(for: problem))
        case .reader(let problem, _, _, _):
            ConfigurationSyntaxError(line: 1, column: 1, problem: "not valid YAML: \(problem)", remedy: "save the file as UTF-8 text without control characters")
        case .duplicatedKeysInMapping(_, let context):
            ConfigurationSyntaxError(line: context.mark.line, column: context.mark.column, problem: "a name is given twice", remedy: "give it once")
        default:
            ConfigurationSyntaxError(line: 1, column: 1, problem: "not valid YAML: \(error)", remedy: "write valid YAML")
        }
    }

    private static func remedy(for problem: String) -> String {
        if problem.contains("tab") || problem.contains("cannot start any token") { return "indent with spaces, and quote text that begins with a special character" }
        if problem.contains("mapping values are not allowed") { return "put text that contains `: ` in quotes, and align the names of a mapping" }
        if problem.contains("',' or") { return "close the bracket, and separate values with commas" }
        if problem.contains("undefined alias") { return "put text that begins with * in quotes" }
        if problem.contains("another document") { return "keep one document in the file, without a second `---`" }
        return "check indentation, brackets and quotes here and on the line before"
    }
}
