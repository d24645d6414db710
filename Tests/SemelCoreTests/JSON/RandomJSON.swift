import SemelCore

/// Random JSON values, rich in what is hard: empty containers, control characters, Unicode variants, characters around
/// the surrogates, and numbers of every notation.
struct RandomJSON {
    static let characters: [Unicode.Scalar] = [
        "a", "b", "A", "\"", "\\", "/", "\0", "\u{1}", "\u{8}", "\t", "\n", "\u{C}", "\r", "\u{1F}", " ", "\u{7F}", "\u{80}",
        "\u{E9}", "\u{301}", "e", "\u{7FF}", "\u{800}", "\u{20AC}", "\u{D7FF}", "\u{E000}", "\u{FB33}", "\u{FFFD}", "\u{FFFF}",
        "\u{10000}", "\u{1F600}", "\u{10FFFF}",
    ]

    static func text(_ random: inout SeededRandom) -> String {
        var text = String.UnicodeScalarView()
        for _ in 0..<Int.random(in: 0...5, using: &random) { text.append(characters.randomElement(using: &random)!) }
        return String(text)
    }

    static func number(_ random: inout SeededRandom) -> JSONNumber {
        switch Int.random(in: 0..<4, using: &random) {
        case 0: return JSONNumber(Int.random(in: -20...20, using: &random))
        case 1: return JSONNumber(Int64.random(in: .min ... .max, using: &random))
        case 2: return JSONNumber(Double.random(in: -1e3...1e3, using: &random))!
        default:
            while true {
                if let number = JSONNumber(Double(bitPattern: random.next())) { return number }
            }
        }
    }

    static func value(_ random: inout SeededRandom, depth: Int = 0) -> JSONValue {
        switch Int.random(in: 0..<(depth < 4 ? 8 : 5), using: &random) {
        case 0: return .null
        case 1: return .bool(.random(using: &random))
        case 2: return .number(number(&random))
        case 3, 4: return .string(text(&random))
        case 5: return .array((0..<Int.random(in: 0...4, using: &random)).map { _ in value(&random, depth: depth + 1) })
        default:
            var object = JSONObject()
            for _ in 0..<Int.random(in: 0...16, using: &random) { object[text(&random)] = value(&random, depth: depth + 1) }
            return .object(object)
        }
    }

    /// The same value with the members of every object in another order.
    static func reordered(_ value: JSONValue, _ random: inout SeededRandom) -> JSONValue {
        switch value {
        case .array(let elements): return .array(elements.map { reordered($0, &random) })
        case .object(let object):
            var other = JSONObject()
            for member in object.members.shuffled(using: &random) { other[member.name] = reordered(member.value, &random) }
            return .object(other)
        default: return value
        }
    }
}
