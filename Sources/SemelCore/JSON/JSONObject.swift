/// The members of a JSON object, in the order in which they were read or added. No name occurs twice.
///
/// Looking up a name takes time in proportion to the number of members: objects in requests are small.
public struct JSONObject: Hashable, Sendable {
    public struct Member: Sendable {
        public let name: String
        public let value: JSONValue
    }

    public private(set) var members: [Member]

    public init() {
        members = []
    }

    /// The caller guarantees that no name occurs twice.
    init(uniqueMembers members: [Member]) {
        self.members = members
    }

    /// The value of a member. Names are compared byte for byte.
    ///
    /// Setting replaces the value in its place, or appends the member; setting nil removes it (assign `JSONValue.null` for
    /// a member that is `null`).
    public subscript(name: String) -> JSONValue? {
        get {
            index(of: name).map { members[$0].value }
        }
        set {
            switch (index(of: name), newValue) {
            case (let index?, let value?): members[index] = Member(name: name, value: value)
            case (let index?, nil): members.remove(at: index)
            case (nil, let value?): members.append(Member(name: name, value: value))
            case (nil, nil): break
            }
        }
    }

    private func index(of name: String) -> Int? {
        let name = ExactText(name)
        return members.firstIndex { ExactText($0.name) == name }
    }
}

extension JSONObject.Member: Hashable {
    public static func == (left: Self, right: Self) -> Bool {
        ExactText(left.name) == ExactText(right.name) && left.value == right.value
    }

    public func hash(into hasher: inout Hasher) {
        hasher.combine(ExactText(name))
        hasher.combine(value)
    }
}
