/// Puts environment variables into a configuration: `SEMEL_` and the path of the key, in capitals, its words and levels
/// separated by `_`.
///
/// `SEMEL_LISTEN`, `SEMEL_LOG_LEVEL`, `SEMEL_UPSTREAMS_PAYMENTS` (an upstream that the file does not have is added under
/// its name in small letters), `SEMEL_SCENES_PAYMENT_CAPTURE_LEASE` for the scene `payment.capture`. A value that begins
/// with `[` or `{` is YAML; everything else is text. The environment wins over the file.
struct EnvironmentOverlay {
    static let prefix = "SEMEL_"
    /// Variables that are no keys: the commands' own, the failpoints', and what container platforms set for a service of
    /// this name.
    private static let others: Set<String> = ["SEMEL_TOKEN", "SEMEL_URL", "SEMEL_ACTOR", "SEMEL_CONFIG", "SEMEL_FAILPOINTS", "SEMEL_FAILPOINT_LOG"]
    private static func isOfPlatform(_ name: String) -> Bool { name == "SEMEL_PORT" || name.hasPrefix("SEMEL_PORT_") || name.hasPrefix("SEMEL_SERVICE_") }

    /// What was set, and the variables that name no key.
    static func apply(_ environment: [String: String], to root: inout ConfigurationNode) -> (unknown: [String], malformed: [(variable: String, error: ConfigurationSyntaxError)]) {
        var unknown: [String] = []
        var malformed: [(String, ConfigurationSyntaxError)] = []
        for (variable, text) in environment.sorted(by: { $0.key < $1.key })
        where variable.hasPrefix(prefix) && !others.contains(variable) && !isOfPlatform(variable) {
            do {
                let value = try node(text, variable: variable)
                if !set(value, at: variable.dropFirst(prefix.count), in: &root, .server) { unknown.append(variable) }
            } catch {
                malformed.append((variable, error))
            }
        }
        return (unknown, malformed)
    }

    /// `onStoreFailure` is `ON_STORE_FAILURE`, `payment.capture` is `PAYMENT_CAPTURE`.
    static func name(of key: String) -> String {
        var name = ""
        for character in key {
            if character.isUppercase, let last = name.last, last != "_" { name += "_" }
            name += character.isASCII && (character.isLetter || character.isNumber) ? character.uppercased() : "_"
        }
        return name
    }

    private static func node(_ text: String, variable: String) throws(ConfigurationSyntaxError) -> ConfigurationNode {
        let place = ConfigurationNode.Place.environment(variable: variable)
        guard text.hasPrefix("[") || text.hasPrefix("{") else {
            return ConfigurationNode(content: text.isEmpty ? .empty : .scalar(text), place: place)
        }
        var reader = YAMLConfiguration(file: variable)
        let node = try reader.read(text)
        if let repetition = reader.repetitions.first {
            throw ConfigurationSyntaxError(line: 1, column: 1, problem: "`\(repetition.name)` is given twice", remedy: "give it once")
        }
        return node.moved(to: place)
    }

    private static func set(_ value: ConfigurationNode, at rest: Substring, in node: inout ConfigurationNode, _ schema: ConfigurationSchema) -> Bool {
        guard !rest.isEmpty else {
            node = value
            return true
        }
        switch schema {
        case .value: return false
        case .mapping(let names, let short):
            guard let (name, next) = match(rest, among: names.keys), let inner = names[name] else { return false }
            var copy = node
            if copy.members == nil {
                let members = short.flatMap { short in copy.isEmpty ? nil : [ConfigurationNode.Member(name: short, place: copy.place, value: copy)] }
                copy = ConfigurationNode(content: .mapping(members ?? []), place: value.place)
            }
            guard set(value, at: next, inMember: name, of: &copy, inner) else { return false }
            node = copy
            return true
        case .byName(let inner):
            var copy = node.members == nil ? ConfigurationNode(content: .mapping([]), place: value.place) : node
            let (name, next) = match(rest, among: (copy.members ?? []).map(\.name)) ?? (rest.lowercased(), "")
            guard set(value, at: next, inMember: name, of: &copy, inner) else { return false }
            node = copy
            return true
        case .listByName(let inner):
            guard var elements = node.elements,
                let (name, next) = match(rest, among: elements.compactMap { $0["name"]?.scalar }), !next.isEmpty,
                let index = elements.firstIndex(where: { $0["name"]?.scalar == name }),
                set(value, at: next, in: &elements[index], inner)
            else { return false }
            node.content = .sequence(elements)
            return true
        }
    }

    private static func set(
        _ value: ConfigurationNode, at rest: Substring, inMember name: String, of node: inout ConfigurationNode, _ schema: ConfigurationSchema
    ) -> Bool {
        guard var members = node.members else { return false }
        if let index = members.firstIndex(where: { $0.name == name }) {
            guard set(value, at: rest, in: &members[index].value, schema) else { return false }
        } else {
            var inner = ConfigurationNode(content: .empty, place: value.place)
            guard set(value, at: rest, in: &inner, schema) else { return false }
            members.append(ConfigurationNode.Member(name: name, place: value.place, value: inner))
        }
        node.content = .mapping(members)
        return true
    }

    /// The longest of the keys that the text begins with, and what is left of it.
    private static func match(_ text: Substring, among keys: some Sequence<String>) -> (String, Substring)? {
        keys.compactMap { key -> (String, Substring)? in
            let name = name(of: key)
            guard text.hasPrefix(name) else { return nil }
            let rest = text.dropFirst(name.count)
            guard rest.isEmpty || rest.first == "_" else { return nil }
            return (key, rest.dropFirst())
        }.min { $0.1.count < $1.1.count }
    }
}

extension ConfigurationNode {
    fileprivate func moved(to place: Place) -> ConfigurationNode {
        var content = content
        switch content {
        case .empty, .scalar: break
        case .mapping(let members): content = .mapping(members.map { Member(name: $0.name, place: place, value: $0.value.moved(to: place)) })
        case .sequence(let elements): content = .sequence(elements.map { $0.moved(to: place) })
        }
        return ConfigurationNode(content: content, place: place)
    }
}
