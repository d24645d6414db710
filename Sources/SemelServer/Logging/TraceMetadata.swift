package import Logging
internal import Semel

extension Logger.MetadataProvider {
    /// `trace_id` and `span_id` of what the current task works for.
    package static let trace = Logger.MetadataProvider {
        guard let trace = TraceContext.current else { return [:] }
        return ["trace_id": .string(trace.traceID.hexadecimal), "span_id": .string(trace.spanText)]
    }
}
