import HTTPTypes
import Hummingbird

/// The misbehaviour that a request asks for in its `Demo-…` fields, so that a test can have any failure at any moment.
struct Faults: Sendable {
    /// Before or after the effect, or in the middle of the answer's body.
    enum Moment: String, Sendable {
        case before, after, during
    }

    /// `Demo-Latency-Before: 20ms`, a pause before the effect.
    var latencyBefore = Duration.zero
    /// `Demo-Latency: 20ms`, a pause after the effect, before the answer.
    var latency: Duration?
    /// `Demo-Fail: before|after`, the answer 500 instead of the effect, or after it.
    var failure: Moment?
    /// `Demo-Drop: before|after|during`, the connection closed without an answer, or amid its body (with `Demo-Body`).
    var drop: Moment?
    /// `Demo-Body: 400KiB`, an answer of that many bytes, sent in chunks.
    var bodySize: Int?
    /// `Demo-Chunk-Latency: 10ms`, a pause before each chunk or event.
    var chunkLatency = Duration.zero
    /// `Demo-Stream: events`, the answer as server-sent events.
    var streamsEvents = false

    init() {}

    /// - Throws: ``Problem`` 400 `demo-malformed` for a value that is not understood: a fault that never fires proves nothing.
    init(_ fields: HTTPFields) throws {
        latencyBefore = try Self.read("Demo-Latency-Before", fields) { Pause(argument: $0)?.duration } ?? .zero
        latency = try Self.read("Demo-Latency", fields) { Pause(argument: $0)?.duration }
        failure = try Self.read("Demo-Fail", fields) { Moment(rawValue: $0) }
        drop = try Self.read("Demo-Drop", fields) { Moment(rawValue: $0) }
        bodySize = try Self.read("Demo-Body", fields, Self.size)
        chunkLatency = try Self.read("Demo-Chunk-Latency", fields) { Pause(argument: $0)?.duration } ?? .zero
        streamsEvents = try Self.read("Demo-Stream", fields) { $0 == "events" ? true : nil } ?? false
        guard failure != .during, drop != .during || bodySize != nil else {
            throw Problem(.badRequest, code: "demo-malformed", detail: "\"during\" is for Demo-Drop together with Demo-Body.")
        }
    }

    private static func read<Value>(_ name: String, _ fields: HTTPFields, _ parse: (String) -> Value?) throws -> Value? {
        guard let field = HTTPField.Name(name), let text = fields[field] else { return nil }
        guard let value = parse(text) else {
            throw Problem(.badRequest, code: "demo-malformed", detail: "\(name): \"\(text)\" is not understood.")
        }
        return value
    }

    private static func size(_ text: String) -> Int? {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        guard let count = Int(digits), count <= 1 << 20 else { return nil }
        switch text.dropFirst(digits.count) {
        case "B": return count
        case "KiB": return count << 10
        case "MiB": return count << 20
        default: return nil
        }
    }
}
