internal import Semel

/// Reads the members of one JSON object of a request. Whatever is not as described is refused with its place: a member
/// that is not known, too, so that a slip in the name of a rule is not taken for its default.
struct ObjectReader {
    private let object: JSONObject
    private let pointer: String

    init(_ value: JSONValue, at pointer: String = "", names: Set<String>) throws(APIProblem) {
        guard let object = value.object else {
            throw APIProblem(.invalidRequest, "An object is expected here, not \(value.kind).", at: pointer)
        }
        self.object = object
        self.pointer = pointer
        for member in object.members where !names.contains(member.name) {
            throw APIProblem(
                .invalidRequest,
                "The member \(JSONValue.string(String(member.name.prefix(64)))) is not known here. Known are \(names.sorted().joined(separator: ", ")).",
                at: pointer)
        }
    }

    func place(_ name: String) -> String { "\(pointer)/\(name)" }

    /// The member, unless there is none. `null` is a value like any other, and is refused where it is not expected.
    func value(_ name: String) -> JSONValue? { object[name] }

    func required<Value>(_ name: String, _ value: Value?) throws(APIProblem) -> Value {
        guard let value else { throw APIProblem(.invalidRequest, "\(name) is missing.", at: place(name)) }
        return value
    }

    func string(_ name: String) throws(APIProblem) -> String? {
        guard let value = object[name] else { return nil }
        guard let text = value.string else {
            throw APIProblem(.invalidRequest, "\(name) must be a string, not \(value.kind).", at: place(name))
        }
        return text
    }

    /// A text with a bounded number of bytes and no control characters.
    func text(_ name: String, bytes limit: Int) throws(APIProblem) -> String? {
        guard let text = try string(name) else { return nil }
        guard (1...limit).contains(text.utf8.count) else {
            throw APIProblem(.invalidRequest, "\(name) has \(text.utf8.count) bytes; it must have 1 to \(limit).", at: place(name))
        }
        guard !text.utf8.contains(where: { $0 < 0x20 || $0 == 0x7F }) else {
            throw APIProblem(.invalidRequest, "\(name) has a control character; it must have none.", at: place(name))
        }
        return text
    }

    /// One of the names of a list of choices.
    func choice<Value>(_ name: String, _ choices: KeyValuePairs<String, Value>) throws(APIProblem) -> Value? {
        guard let text = try string(name) else { return nil }
        guard let choice = choices.first(where: { $0.key == text }) else {
            throw APIProblem(.invalidRequest, "\(name) must be one of: \(choices.map(\.key).joined(separator: ", ")).", at: place(name))
        }
        return choice.value
    }

    /// A duration as text with its unit. A bare number is refused: nobody knows of what (R3).
    func duration(_ name: String, in range: ClosedRange<Duration>) throws(APIProblem) -> Duration? {
        guard let value = object[name] else { return nil }
        guard let text = value.string else {
            throw APIProblem(
                .invalidRequest, "\(name) must be a duration with its unit, such as \"250ms\", \"30s\" or \"24h\", not \(value.kind).",
                at: place(name))
        }
        let duration: Duration
        do throws(UnitTextError) {
            duration = try DurationText.parse(text)
        } catch {
            throw APIProblem(.invalidRequest, "\(name): \(error)", at: place(name))
        }
        guard range.contains(duration) else {
            throw APIProblem(
                .invalidRequest,
                "\(name) must be from \(DurationText.format(range.lowerBound)) to \(DurationText.format(range.upperBound)).", at: place(name))
        }
        return duration
    }
}
