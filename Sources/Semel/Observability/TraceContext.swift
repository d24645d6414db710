public import SemelCore

/// A position in a trace, as the W3C `traceparent` field carries it (Trace Context, level 1).
///
/// Reading is strict: a value that is malformed in any way is not repaired, and a new trace begins, as the specification
/// says. Ids are drawn from the randomness that is passed in, so the same code runs in a simulation.
public struct TraceContext: Hashable, Sendable, CustomStringConvertible {
    public let traceID: TraceID
    /// The id of this span: never zero.
    public let spanID: UInt64
    /// Whether whoever began the trace records it.
    public let isSampled: Bool
    /// The span that this one continues; `nil` for the beginning of a trace, and for what was read from a field.
    public let parentSpanID: UInt64?

    /// - Precondition: neither id is zero.
    public init(traceID: TraceID, spanID: UInt64, isSampled: Bool, parentSpanID: UInt64? = nil) {
        precondition(spanID != 0 && (traceID.high | traceID.low) != 0, "a trace's ids are not zero")
        self.traceID = traceID
        self.spanID = spanID
        self.isSampled = isSampled
        self.parentSpanID = parentSpanID
    }

    /// The span that the current task works for. The HTTP rules set it for each request, so that logs, spans and what the
    /// handler sends on belong together.
    @TaskLocal public static var current: TraceContext?

    /// Reads `00-<32 hexadecimal digits>-<16>-<2>`; `nil` for anything else. Of a later version only what this one knows
    /// is read.
    public init?(traceparent text: some StringProtocol) {
        let bytes = Array(text.utf8)
        guard bytes.count >= 55, bytes[2] == UInt8(ascii: "-"), bytes[35] == UInt8(ascii: "-"), bytes[52] == UInt8(ascii: "-"),
            let version = Self.number(bytes[0..<2]), version != 0xFF,
            version == 0 ? bytes.count == 55 : bytes.count == 55 || bytes[55] == UInt8(ascii: "-"),
            let high = Self.number(bytes[3..<19]), let low = Self.number(bytes[19..<35]), high | low != 0,
            let span = Self.number(bytes[36..<52]), span != 0,
            let flags = Self.number(bytes[53..<55])
        else { return nil }
        self.init(traceID: TraceID(high: high, low: low), spanID: span, isSampled: flags & 1 == 1)
    }

    /// The trace of an incoming field as a new span, or a new trace when there is none that can be read.
    public static func continuing(_ traceparent: (some StringProtocol)?, random: () -> UInt64) -> TraceContext {
        traceparent.flatMap { TraceContext(traceparent: $0) }?.child(random: random) ?? root(random: random)
    }

    /// The beginning of a new trace.
    public static func root(isSampled: Bool = true, random: () -> UInt64) -> TraceContext {
        TraceContext(traceID: TraceID(high: random(), low: nonzero(random)), spanID: nonzero(random), isSampled: isSampled)
    }

    /// A new span of the same trace: each attempt is one.
    public func child(random: () -> UInt64) -> TraceContext {
        TraceContext(traceID: traceID, spanID: Self.nonzero(random), isSampled: isSampled, parentSpanID: spanID)
    }

    /// This span in the trace of an earlier attempt, of which the id alone is known. A span that continues a trace of its
    /// client's stays there.
    package func joining(_ earlier: TraceID?) -> TraceContext {
        guard parentSpanID == nil, let earlier, (earlier.high | earlier.low) != 0 else { return self }
        return TraceContext(traceID: earlier, spanID: spanID, isSampled: isSampled)
    }

    /// The field's value.
    public var traceparent: String { "00-\(traceID.hexadecimal)-\(spanText)-\(isSampled ? "01" : "00")" }

    /// The span's id as 16 hexadecimal digits.
    public var spanText: String { TraceID.hexadecimal(spanID) }

    /// ``parentSpanID``, likewise.
    package var parentText: String? { parentSpanID.map(TraceID.hexadecimal) }

    public var description: String { traceparent }

    private static func nonzero(_ random: () -> UInt64) -> UInt64 {
        while true {
            let value = random()
            if value != 0 { return value }
        }
    }

    /// Small hexadecimal digits only, as the specification demands.
    private static func number(_ digits: ArraySlice<UInt8>) -> UInt64? {
        var value: UInt64 = 0
        for digit in digits {
            switch digit {
            case 0x30...0x39: value = value << 4 | UInt64(digit - 0x30)
            case 0x61...0x66: value = value << 4 | UInt64(digit - 0x61 + 10)
            default: return nil
            }
        }
        return value
    }
}

extension TraceID {
    /// 32 hexadecimal digits.
    public var hexadecimal: String { Self.hexadecimal(high) + Self.hexadecimal(low) }

    fileprivate static func hexadecimal(_ value: UInt64) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 16 - digits.utf8.count) + digits
    }
}
