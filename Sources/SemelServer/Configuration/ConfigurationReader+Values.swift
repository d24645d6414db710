internal import HTTPTypes
internal import SemelCore

// One function for each kind of value. Each says what is wrong and returns `nil`; the caller goes on with a default, so
// that one run finds every mistake.
extension ConfigurationReader {
    /// The mapping of a key; a bare value stands for the mapping with only `short`.
    func section(_ parent: Section, _ name: String, short: String? = nil) -> Section? {
        guard let node = parent[name] else { return nil }
        return section(node, path: parent.path(name), short: short)
    }

    func section(_ node: Node, path: String, short: String? = nil) -> Section? {
        if node.members != nil { return Section(node: node, path: path) }
        if let short, node.scalar != nil || node.elements != nil {
            let member = Node.Member(name: short, place: node.place, value: node)
            return Section(node: Node(content: .mapping([member]), place: node.place), path: path)
        }
        mistake(node.place, path, "\(node.kind) stands where a mapping of names to values is expected", "write it as `{ name: value }`, or indented under the key")
        return nil
    }

    /// The text of a key. The path of the value is reported with it.
    func text(_ parent: Section, _ name: String, example: String) -> String? {
        guard let node = parent[name] else { return nil }
        return text(node, path: parent.path(name), example: example)
    }

    func text(_ node: Node, path: String, example: String) -> String? {
        if let text = node.scalar, !text.isEmpty { return text }
        let kind = node.scalar == nil ? node.kind : "an empty text"
        mistake(node.place, path, "\(kind) stands where one value is expected", "write a value such as `\(example)`")
        return nil
    }

    func duration(_ parent: Section, _ name: String, example: String = "30s", isZeroAllowed: Bool = false) -> Duration? {
        guard let node = parent[name], let text = text(node, path: parent.path(name), example: example) else { return nil }
        let path = parent.path(name)
        let duration: Duration
        do {
            duration = try DurationText.parse(text)
        } catch {
            mistake(node.place, path, "`\(error.text)`: \(error.problem)", error.remedy)
            return nil
        }
        guard isZeroAllowed || duration > .zero else {
            mistake(node.place, path, "`\(text)` is no time at all", "write a duration above zero, such as \(example)")
            return nil
        }
        return duration
    }

    func size(_ parent: Section, _ name: String, upTo limit: Int) -> Int? {
        guard let node = parent[name], let text = text(node, path: parent.path(name), example: "1MiB") else { return nil }
        let path = parent.path(name)
        let size: Int
        do {
            size = try ByteSizeText.parse(text)
        } catch {
            mistake(node.place, path, "`\(error.text)`: \(error.problem)", error.remedy)
            return nil
        }
        guard size <= limit else {
            mistake(node.place, path, "`\(text)` is more than the most that is possible, \(limit >> 20)MiB", "write \(limit >> 20)MiB or less")
            return nil
        }
        return size
    }

    func integer(_ parent: Section, _ name: String, in range: ClosedRange<Int>) -> Int? {
        guard let node = parent[name] else { return nil }
        return integer(node, path: parent.path(name), in: range)
    }

    func integer(_ node: Node, path: String, in range: ClosedRange<Int>) -> Int? {
        if let text = node.scalar, let number = Int(text), range.contains(number) { return number }
        mistake(node.place, path, "\(node.kind) is not a whole number from \(range.lowerBound) to \(range.upperBound)", "write a number such as \(range.lowerBound)")
        return nil
    }

    func boolean(_ parent: Section, _ name: String) -> Bool? {
        guard let node = parent[name] else { return nil }
        switch node.scalar {
        case "true": return true
        case "false": return false
        default:
            mistake(node.place, parent.path(name), "\(node.kind) is neither true nor false", "write true or false")
            return nil
        }
    }

    /// One of a few words.
    func choice<Value>(_ parent: Section, _ name: String, among choices: KeyValuePairs<String, Value>) -> Value? {
        guard let node = parent[name] else { return nil }
        return choice(node, path: parent.path(name), among: choices)
    }

    func choice<Value>(_ node: Node, path: String, among choices: KeyValuePairs<String, Value>) -> Value? {
        if let text = node.scalar, let found = choices.first(where: { $0.key == text }) { return found.value }
        let words = choices.map(\.key)
        let meant = node.scalar.flatMap { Spelling.suggestion(for: $0, among: words) }
        mistake(node.place, path, "\(node.kind) is not one of the values this key takes", meant.map { "did you mean `\($0)`?" } ?? "write one of \(words.joined(separator: ", "))")
        return nil
    }

    /// The elements of a list; one bare value is a list of one.
    func list(_ parent: Section, _ name: String) -> [Node]? {
        guard let node = parent[name] else { return nil }
        if let elements = node.elements { return elements }
        if node.scalar != nil { return [node] }
        mistake(node.place, parent.path(name), "\(node.kind) stands where a list is expected", "write it as `[one, two]`")
        return nil
    }

    func fieldName(_ parent: Section, _ name: String, example: String) -> HTTPField.Name? {
        guard let node = parent[name] else { return nil }
        return fieldName(node, path: parent.path(name), example: example)
    }

    func fieldName(_ node: Node, path: String, example: String) -> HTTPField.Name? {
        guard let text = text(node, path: path, example: example) else { return nil }
        if let name = HTTPField.Name(text), !text.hasPrefix(":") { return name }
        mistake(node.place, path, "`\(text)` is not the name of a header field", "write a name such as \(example)")
        return nil
    }

    /// Statuses, as one number or a list of them.
    func statuses(_ parent: Section, _ name: String, in range: ClosedRange<Int> = 200...599) -> Set<Int>? {
        guard let nodes = list(parent, name) else { return nil }
        let path = parent.path(name)
        if nodes.isEmpty { mistake(parent[name]?.place ?? parent.place, path, "the list is empty", "write at least one status") }
        return Set(nodes.compactMap { integer($0, path: path, in: range) })
    }

    func address(_ parent: Section, _ name: String, default standard: ListenAddress) -> ListenAddress {
        guard let node = parent[name], let text = text(node, path: parent.path(name), example: "\(standard)") else { return standard }
        if let address = ListenAddress(text) { return address }
        let path = parent.path(name)
        if let port = Int(text) {
            mistake(node.place, path, "`\(text)` is a port without a host", "write 127.0.0.1:\((0...65535).contains(port) ? port : standard.port)")
        } else if let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]), !(0...65535).contains(port) {
            mistake(node.place, path, "the port \(port) is not between 0 and 65535", "write a port such as \(standard.port)")
        } else {
            mistake(node.place, path, "`\(text)` is not an address to listen on", "write HOST:PORT, such as \(standard), or [::1]:\(standard.port)")
        }
        return standard
    }

    /// `https://host:port/base`.
    func url(_ node: Node, path: String) -> (transport: Upstream.Transport, address: ListenAddress, path: String)? {
        let example = "http://127.0.0.1:9000"
        guard let text = text(node, path: path, example: example) else { return nil }
        func refuse(_ problem: String, _ remedy: String) -> (Upstream.Transport, ListenAddress, String)? {
            mistake(node.place, path, problem, remedy)
            return nil
        }
        let parts = text.split(separator: "://", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, let transport = Upstream.Transport(rawValue: parts[0].lowercased()) else {
            return refuse("`\(text)` does not begin with http:// or https://", "write a URL such as \(example)")
        }
        let rest = parts[1]
        guard !rest.contains(where: { "?# \\".contains($0) }) else {
            return refuse("`\(text)` has a query, a fragment or a space, and only scheme, host, port and path are used", "write a URL such as \(example)")
        }
        let slash = rest.firstIndex(of: "/") ?? rest.endIndex
        let authority = String(rest[..<slash])
        guard !authority.contains("@") else {
            return refuse("the URL carries credentials, which would appear in logs", "leave them out, and let the client or the network authenticate")
        }
        let hasPort = authority.hasSuffix("]") ? false : authority.contains(":")
        let standardPort = transport == .http ? 80 : 443
        guard let address = ListenAddress(hasPort ? authority : "\(authority):\(standardPort)"), address.port > 0 else {
            return refuse("`\(authority)` is not a host and a port", "write a URL such as \(example)")
        }
        return (transport, address, String(rest[slash...]))
    }

    /// A secret, given in place or by the name of a file.
    func secret(_ parent: Section, _ name: String, _ fileName: String, atLeast length: Int) -> (bytes: [UInt8], place: Place)? {
        let inPlace = parent[name]
        let inFile = parent[fileName]
        if let inPlace, inFile != nil {
            mistake(inPlace.place, parent.path(name), "both `\(name)` and `\(fileName)` are given", "keep one of the two")
            return nil
        }
        let bytes: [UInt8]
        let node: Node
        if let inPlace {
            guard let text = text(inPlace, path: parent.path(name), example: "…") else { return nil }
            (bytes, node) = (Array(text.utf8), inPlace)
        } else if let inFile {
            guard let contents = contents(of: inFile, path: parent.path(fileName)) else { return nil }
            bytes = contents.last == 0x0A ? contents.dropLast(contents.suffix(2).first == 0x0D ? 2 : 1) : contents
            node = inFile
        } else {
            return nil
        }
        guard bytes.count >= length else {
            mistake(node.place, parent.path(inPlace == nil ? fileName : name), "the secret has \(bytes.count) bytes, which can be guessed", "use at least \(length), such as the output of `openssl rand -hex 32`")
            return nil
        }
        return (bytes, node.place)
    }

    /// What is in the file that a key names.
    func contents(of node: Node, path: String) -> [UInt8]? {
        guard let name = text(node, path: path, example: "./file") else { return nil }
        do {
            return try FileContents.read(name)
        } catch {
            mistake(node.place, path, error.problem, "name a file that this process may read")
            return nil
        }
    }

    /// The name of a file that must be readable, without its contents.
    func readableFile(_ parent: Section, _ name: String) -> String? {
        guard let node = parent[name], contents(of: node, path: parent.path(name)) != nil else { return nil }
        return node.scalar
    }
}
