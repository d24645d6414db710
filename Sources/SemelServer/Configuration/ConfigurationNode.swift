/// One value of a configuration, and where it was written.
struct ConfigurationNode {
    typealias Place = ConfigurationDiagnostic.Place

    struct Member {
        var name: String
        var place: Place
        var value: ConfigurationNode
    }

    enum Content {
        case empty
        case scalar(String)
        case mapping([Member])
        case sequence([ConfigurationNode])
    }

    var content: Content
    var place: Place

    var scalar: String? {
        if case .scalar(let text) = content { text } else { nil }
    }

    var members: [Member]? {
        if case .mapping(let members) = content { members } else { nil }
    }

    var elements: [ConfigurationNode]? {
        if case .sequence(let elements) = content { elements } else { nil }
    }

    var isEmpty: Bool {
        if case .empty = content { true } else { false }
    }

    subscript(name: String) -> ConfigurationNode? {
        members?.first { $0.name == name }?.value
    }

    /// What kind of value it is, for messages.
    var kind: String {
        switch content {
        case .empty: "nothing"
        case .scalar(let text): "`\(text.count > 60 ? text.prefix(60) + "…" : text[...])`"
        case .mapping: "a mapping"
        case .sequence: "a list"
        }
    }
}
