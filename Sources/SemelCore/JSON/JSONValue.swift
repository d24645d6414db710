/// A JSON value (RFC 8259), as strict as an identity needs it to be.
///
/// What was read is kept exactly: names in their order, numbers in their own digits, text in its own code points. Hence
/// two values are equal only if they are written the same way up to white space and escapes: `{"a":1,"b":2}` and
/// `{"b":2,"a":1}` are different values with one canonical form (see ``canonicalBytes(numbers:)``), and Unicode variants
/// of a text are different texts (H27).
public enum JSONValue: Sendable {
    case null
    case bool(Bool)
    case number(JSONNumber)
    case string(String)
    case array([JSONValue])
    case object(JSONObject)

    /// How deeply arrays and objects may be nested in text that is read, unless the reader says otherwise.
    public static let defaultMaximumDepth = 128

    /// Reads one JSON text.
    ///
    /// Refused, each with its position: anything beyond RFC 8259 (comments, trailing commas, a byte order mark, bytes after
    /// the value …), names that occur twice in one object once their escapes are resolved, text that is not UTF-8,
    /// `\u` escapes that leave half a surrogate pair, numbers outside the range of a double, and deeper nesting than
    /// `maximumDepth`. Nothing is repaired: two readers that repair differently would see different requests.
    ///
    /// - Parameter text: the bytes in UTF-8. Limit their number before; the value may take several times as much memory.
    public init(
        parsing text: some Collection<UInt8>, maximumDepth: Int = defaultMaximumDepth
    ) throws(JSONError) {
        let parsed =
            text.withContiguousStorageIfAvailable { Self.parse($0, maximumDepth: maximumDepth) }
            ?? Array(text).withUnsafeBufferPointer { Self.parse($0, maximumDepth: maximumDepth) }
        self = try parsed.get()
    }

    private static func parse(_ text: UnsafeBufferPointer<UInt8>, maximumDepth: Int) -> Result<JSONValue, JSONError> {
        var parser = JSONParser(text, maximumDepth: maximumDepth)
        return Result { () throws(JSONError) in try parser.parseText() }
    }
}

// MARK: - Building

extension JSONValue {
    public init(_ integer: some BinaryInteger) { self = .number(JSONNumber(integer)) }
    public init(_ text: String) { self = .string(text) }
    public init(_ flag: Bool) { self = .bool(flag) }
    public init(_ elements: some Sequence<JSONValue>) { self = .array(Array(elements)) }
}

extension JSONValue: ExpressibleByNilLiteral, ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral,
    ExpressibleByStringLiteral, ExpressibleByStringInterpolation, ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
    public init(nilLiteral: ()) { self = .null }
    public init(booleanLiteral flag: Bool) { self = .bool(flag) }
    public init(integerLiteral integer: Int) { self = .number(JSONNumber(integer)) }
    public init(stringLiteral text: String) { self = .string(text) }
    public init(arrayLiteral elements: JSONValue...) { self = .array(elements) }

    /// An object with the members in the order written.
    ///
    /// - Precondition: no name is written twice.
    public init(dictionaryLiteral members: (String, JSONValue)...) {
        var object = JSONObject()
        for (name, value) in members {
            precondition(object[name] == nil, "the name \(name) is written twice in a JSON literal")
            object[name] = value
        }
        self = .object(object)
    }
}

// MARK: - Reading

extension JSONValue {
    public var isNull: Bool {
        if case .null = self { true } else { false }
    }

    /// The Boolean, nil for any other kind of value.
    public var bool: Bool? {
        if case .bool(let flag) = self { flag } else { nil }
    }

    /// The number, nil for any other kind of value.
    public var number: JSONNumber? {
        if case .number(let number) = self { number } else { nil }
    }

    /// The integer, if this is a number written as one and an `Int` holds it.
    public var integer: Int? { number?.integer }

    /// The nearest double, if this is a number.
    public var double: Double? { number?.double }

    /// The text, nil for any other kind of value.
    public var string: String? {
        if case .string(let text) = self { text } else { nil }
    }

    /// The elements, nil for any other kind of value.
    public var array: [JSONValue]? {
        if case .array(let elements) = self { elements } else { nil }
    }

    /// The members, nil for any other kind of value.
    public var object: JSONObject? {
        if case .object(let object) = self { object } else { nil }
    }

    /// The member of this name; nil if there is none or this is no object. A member that is `null` is not nil.
    public subscript(name: String) -> JSONValue? { object?[name] }

    /// The element at this index; nil if there is none or this is no array.
    public subscript(index: Int) -> JSONValue? {
        guard let array, array.indices.contains(index) else { return nil }
        return array[index]
    }

    /// What kind of value this is, for messages.
    public var kind: String {
        switch self {
        case .null: "null"
        case .bool: "a Boolean"
        case .number: "a number"
        case .string: "a string"
        case .array: "an array"
        case .object: "an object"
        }
    }
}

extension JSONValue: Hashable {
    public static func == (left: JSONValue, right: JSONValue) -> Bool {
        switch (left, right) {
        case (.null, .null): true
        case (.bool(let left), .bool(let right)): left == right
        case (.number(let left), .number(let right)): left == right
        case (.string(let left), .string(let right)): ExactText(left) == ExactText(right)
        case (.array(let left), .array(let right)): left == right
        case (.object(let left), .object(let right)): left == right
        default: false
        }
    }

    public func hash(into hasher: inout Hasher) {
        switch self {
        case .null: hasher.combine(0)
        case .bool(let flag): hasher.combine(flag)
        case .number(let number): hasher.combine(number)
        case .string(let text): hasher.combine(ExactText(text))
        case .array(let elements): hasher.combine(elements)
        case .object(let object): hasher.combine(object)
        }
    }
}

extension JSONValue: CustomStringConvertible {
    /// The compact JSON text.
    public var description: String { String(decoding: serialized(), as: UTF8.self) }
}
