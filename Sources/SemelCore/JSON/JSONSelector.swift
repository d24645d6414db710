/// A path to a place in a JSON value: the part of JSONPath (RFC 9535) that names places and never searches.
///
/// `$` is the whole value, `.name` or `['name']` a member, `[0]` an element, `[*]` every element of an array. Names are
/// compared byte for byte. There are no filters, slices or descendants: a key must not depend on what else is in a payload.
public struct JSONSelector: Hashable, Sendable {
    enum Step: Hashable, Sendable {
        case name(ExactText)
        case index(Int)
        case everyElement
    }

    let steps: [Step]

    /// Reads a selector, such as `$.lines[*]['order-id']`.
    public init(_ text: String) throws(JSONSelectorError) {
        var parser = JSONSelectorParser(text)
        steps = try parser.parse()
    }

    /// What the selector finds.
    public func select(in value: JSONValue) -> JSONSelection {
        Self.select(steps[...], in: value)
    }

    private static func select(_ steps: ArraySlice<Step>, in value: JSONValue) -> JSONSelection {
        guard let step = steps.first else { return .value(value) }
        let rest = steps.dropFirst()
        switch step {
        case .name(let name): return value[name.text].map { select(rest, in: $0) } ?? .missing
        case .index(let index): return value[index].map { select(rest, in: $0) } ?? .missing
        case .everyElement: return value.array.map { .each($0.map { select(rest, in: $0) }) } ?? .missing
        }
    }
}

extension JSONSelector: CustomStringConvertible {
    /// The selector in its one normal form (RFC 9535 §2.7), such as `$['lines'][*]['order-id']`.
    public var description: String {
        steps.reduce(into: "$") { text, step in
            switch step {
            case .name(let name):
                text += "['"
                for scalar in name.text.unicodeScalars {
                    if scalar == "'" || scalar == "\\" { text += "\\" }
                    text.unicodeScalars.append(scalar)
                }
                text += "']"
            case .index(let index): text += "[\(index)]"
            case .everyElement: text += "[*]"
            }
        }
    }
}

/// What a ``JSONSelector`` found.
public indirect enum JSONSelection: Hashable, Sendable {
    /// There is no such place. A place that holds `null` is not missing.
    case missing
    case value(JSONValue)
    /// One result for each element that `[*]` stands for, in their order.
    case each([JSONSelection])

    /// The result in bytes, to be hashed: no two different results have the same ones. The value is in its canonical form,
    /// so the notation of the payload does not matter, while `1` and `"1"`, a missing place and `null`, `[]` and no
    /// element all differ.
    var encoded: [UInt8] {
        var writer = ByteWriter()
        encode(into: &writer)
        return writer.bytes
    }

    private func encode(into writer: inout ByteWriter) {
        switch self {
        case .missing: writer.write(UInt8(0))
        case .value(let value):
            writer.write(UInt8(1))
            writer.writeLengthPrefixed(value.canonicalBytes())
        case .each(let selections):
            writer.write(UInt8(2))
            writer.writeVarint(UInt64(selections.count))
            for selection in selections { selection.encode(into: &writer) }
        }
    }
}
