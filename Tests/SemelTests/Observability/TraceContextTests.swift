import Semel
import Testing

@Suite("W3C trace context")
struct TraceContextTests {
    private static let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    @Test("a traceparent is read and written as it was")
    func roundTrip() throws {
        let context = try #require(TraceContext(traceparent: Self.valid))
        #expect(context.traceparent == Self.valid)
        #expect(context.traceID.hexadecimal == "4bf92f3577b34da6a3ce929d0e0e4736")
        #expect(context.spanText == "00f067aa0ba902b7")
        #expect(context.isSampled)
        #expect(TraceContext(traceparent: Self.valid.dropLast(2) + "00")?.isSampled == false)
        #expect(TraceContext(traceparent: Self.valid.dropLast(2) + "fe")?.isSampled == false)
    }

    @Test("of a later version what is known is read")
    func laterVersion() {
        #expect(TraceContext(traceparent: "cc" + Self.valid.dropFirst(2))?.traceparent == Self.valid)
        #expect(TraceContext(traceparent: "cc" + Self.valid.dropFirst(2) + "-more")?.traceparent == Self.valid)
        #expect(TraceContext(traceparent: "cc" + Self.valid.dropFirst(2) + "more") == nil)
    }

    @Test(
        "anything else is not read",
        arguments: [
            "", "00", valid + "-", valid + "-00", " " + valid, valid.uppercased(), "ff" + valid.dropFirst(2), "0g" + valid.dropFirst(2),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01x",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x", "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "é" + valid.dropFirst(1),
        ])
    func malformed(text: String) {
        #expect(TraceContext(traceparent: text) == nil)
    }

    @Test("a span continues its trace; without a readable one a new trace begins; ids come from the given randomness and are never zero")
    func continuing() throws {
        var numbers: [UInt64] = [0, 7, 0, 0, 9, 11, 13, 15]
        let random = { numbers.removeFirst() }
        let child = TraceContext.continuing(Self.valid, random: random)
        #expect(child.traceparent == "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-01")
        let fresh = TraceContext.continuing("nonsense", random: random)
        #expect(fresh.traceparent == "00-00000000000000000000000000000009-000000000000000b-01")
        #expect(TraceContext.continuing(String?.none, random: { 5 }).traceID == TraceID(high: 5, low: 5))
        #expect(fresh.child(random: random).traceID == fresh.traceID)
        #expect(child.parentSpanID == 0x00f0_67aa_0ba9_02b7 && fresh.parentSpanID == nil)
    }

    @Test("a later attempt joins the trace of the first, unless its client continues a trace of its own")
    func joining() {
        let first = TraceID(high: 1, low: 2)
        let root = TraceContext.root(random: { 5 })
        #expect(root.joining(first) == TraceContext(traceID: first, spanID: 5, isSampled: true))
        #expect(root.joining(nil) == root && root.joining(TraceID(high: 0, low: 0)) == root)
        let child = TraceContext.continuing(Self.valid, random: { 5 })
        #expect(child.joining(first) == child)
    }
}
