/// The recorded result of an operation, in a form no transport owns: a status, fields, a body, trailers.
///
/// HTTP fills it with a response; a function with its encoded result. Whatever was recorded is replayed as what it was:
/// an empty body, a zero or a `null` are results like any other (R16).
public struct Outcome: Hashable, Sendable {
    public struct Field: Hashable, Sendable {
        public var name: String
        public var value: String

        public init(_ name: String, _ value: String) {
            self.name = name
            self.value = value
        }

        // Byte for byte: a repeated *complete* with another spelling of a value is another outcome (H27).

        public static func == (left: Field, right: Field) -> Bool {
            ExactText(left.name) == ExactText(right.name) && ExactText(left.value) == ExactText(right.value)
        }

        public func hash(into hasher: inout Hasher) {
            hasher.combine(ExactText(name))
            hasher.combine(ExactText(value))
        }
    }

    public enum Body: Hashable, Sendable {
        case kept([UInt8])
        /// Too large to keep, or not known: only its length and SHA-256 remain, where they are known (H35).
        case omitted(length: UInt64?, digest: [UInt8]?)
    }

    /// The HTTP status, or 200 for a function that returned and 500 for a recorded permanent failure.
    public var status: UInt16
    /// In their order, repeated names kept.
    public var fields: [Field]
    public var body: Body
    public var trailers: [Field]

    public init(status: UInt16 = 200, fields: [Field] = [], body: Body = .kept([]), trailers: [Field] = []) {
        self.status = status
        self.fields = fields
        self.body = body
        self.trailers = trailers
    }

    /// An operation known to be applied, of whose result nothing else is known.
    public static let unknownButApplied = Outcome(status: 0, body: .omitted(length: nil, digest: nil))

    /// Whether the whole result can be replayed.
    public var isReplayable: Bool {
        if case .kept = body { true } else { false }
    }
}
