internal import HTTPTypes
internal import Semel

/// A request of the control plane, after authentication and with its body read.
struct APIRequest: Sendable {
    var caller: Caller
    /// What stands in the place of each `{name}` of the route's path.
    var parameters: [String: String]
    var query: QueryParameters
    var body: [UInt8]
    /// Ends when the client goes away.
    var connection: ConnectionEnd

    func json() throws(APIProblem) -> JSONValue {
        // Eight levels are more than any request here has.
        do throws(JSONError) { return try JSONValue(parsing: body, maximumDepth: 8) } catch { throw APIProblem(error) }
    }
}

/// The parameters of a query string in the form encoding (`+` and `%20` are a space; a plus sign is `%2B`).
struct QueryParameters: Sendable {
    private let pairs: [(name: String, value: String)]

    init(_ query: Substring) throws(APIProblem) {
        var pairs: [(String, String)] = []
        for pair in query.utf8.split(separator: UInt8(ascii: "&")) {
            let parts = pair.split(separator: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
            pairs.append((try Self.decoded(parts[0]), parts.count == 2 ? try Self.decoded(parts[1]) : ""))
        }
        self.pairs = pairs
    }

    /// Refuses parameters that are not known, so that a filter with a slip in its name is not taken for none.
    func require(only names: Set<String>) throws(APIProblem) {
        for (name, _) in pairs where !names.contains(name) {
            let known = names.isEmpty ? "This takes no parameters" : "Known are \(names.sorted().joined(separator: ", "))"
            throw APIProblem(.invalidRequest, "The query parameter \(JSONValue.string(String(name.prefix(64)))) is not known here. \(known).")
        }
    }

    func all(_ name: String) -> [String] { pairs.filter { $0.name == name }.map(\.value) }

    func one(_ name: String) throws(APIProblem) -> String? {
        let values = all(name)
        guard values.count <= 1 else { throw APIProblem(.invalidRequest, "The query parameter \(name) is given twice; give it once.") }
        return values.first
    }

    func integer(_ name: String, in range: ClosedRange<Int64>, default fallback: Int64) throws(APIProblem) -> Int64 {
        guard let text = try one(name) else { return fallback }
        guard let number = Int64(text), range.contains(number), text.utf8.first != UInt8(ascii: "+") else {
            let limits = range.upperBound == .max ? "of at least \(range.lowerBound)" : "from \(range.lowerBound) to \(range.upperBound)"
            throw APIProblem(.invalidRequest, "The query parameter \(name) must be a whole number \(limits).")
        }
        return number
    }

    private static func decoded(_ text: Substring.UTF8View.SubSequence) throws(APIProblem) -> String {
        var bytes: [UInt8] = []
        var rest = text.makeIterator()
        while let byte = rest.next() {
            switch byte {
            case UInt8(ascii: "+"): bytes.append(UInt8(ascii: " "))
            case UInt8(ascii: "%"):
                guard let high = rest.next(), let low = rest.next(),
                    let value = UInt8(String(decoding: [high, low], as: UTF8.self), radix: 16), high != UInt8(ascii: "+")
                else { throw APIProblem(.invalidRequest, "The query has a percent sign without two hexadecimal digits.") }
                bytes.append(value)
            default: bytes.append(byte)
            }
        }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw APIProblem(.invalidRequest, "The query is not UTF-8.")
        }
        return text
    }
}
