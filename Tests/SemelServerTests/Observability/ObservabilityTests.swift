import Foundation
import Semel
import Testing

@testable import SemelServer

/// What is seen of a real server, from outside: its metrics and its log.
@Suite("A running server")
struct ObservabilityTests {
    static func configuration(_ port: Int, log: String = "info") -> String {
        """
        upstreams: { payments: "http://127.0.0.1:\(port)" }
        log: { level: \(log) }
        scenes:
          - name: pay
            match: { methods: [POST], path: /pay/** }
            upstream: payments
            key: { header: Idempotency-Key, required: true }
            scope: none
            effect: unknown
          - name: refund
            match: { methods: [POST], path: /refund/** }
            upstream: payments
            key: { header: Idempotency-Key, required: true }
            scope: none
            effect: deduplicates

        """
    }

    /// A service that answers with the status at the end of the path; `hang` never answers.
    static func upstream() async throws -> ServiceDouble {
        try await ServiceDouble { request in
            let last = request.path.split(separator: "/").last ?? ""
            if last == "hang", request.head.field("x-hang") != nil { try? await Task.sleep(for: .seconds(600)) }
            return (Int(last) ?? 201, "{}")
        }
    }

    @Test("has a writer for every metric it names, and no label carries a key")
    func metrics() async throws {
        let upstream = try await Self.upstream()
        try await withTemporaryFolder { folder in
            let server = try await SemelProcess(Self.configuration(upstream.port), in: folder)
            #expect(try await server.pay("/pay/201", key: "visible-key-1").status == 201)
            #expect(try await server.pay("/pay/201", key: "visible-key-1").isReplay)
            #expect(try await server.pay("/pay/201", key: "visible-key-1", body: "{\"a\":1}").status == 422)
            #expect(try await server.pay("/pay/429", key: "visible-key-2").status == 429)
            #expect(try await server.pay("/pay/500", key: "visible-key-3").status == 500)
            #expect(try await server.pay("/pay/500", key: "visible-key-3").status == 409)
            let claim: JSONValue = ["scope": "s", "key": "visible-key-4", "fingerprint": "f", "lease": "30s"]
            let token = try #require(try await server.post("/v1/claim", claim).json["token"]?.string)
            let complete: JSONValue = ["scope": "s", "key": "visible-key-4", "token": .string(token), "outcome": ["status": 200]]
            #expect(try await server.post("/v1/complete", complete).json["applied"] == true)
            let renew: JSONValue = ["scope": "s", "key": "visible-key-4", "token": .string(token), "lease": "30s"]
            #expect(try await server.post("/v1/renew", renew).json["applied"] == false)

            // One that runs while the rest is looked at, and is lost with the process.
            let hanging = Task { try await server.pay("/refund/hang", key: "visible-key-5", [("X-Hang", "1")]) }
            try await eventually(
                { try await server.metrics()[#"semel_in_progress{scene="refund"}"#] == 1 }, "an operation that runs is counted")
            try await eventually({ try await server.metrics()[#"semel_uncertain{scene="pay"}"#] == 1 }, "an uncertain operation is counted")

            let seen = try await server.metrics()
            let expected: [String: Double] = [
                #"semel_claims_total{result="claimed",scene="pay"}"#: 3, #"semel_claims_total{result="completed",scene="pay"}"#: 1,
                #"semel_claims_total{result="mismatch",scene="pay"}"#: 1, #"semel_claims_total{result="uncertain",scene="pay"}"#: 1,
                #"semel_claims_total{result="claimed",scene="claims"}"#: 1, #"semel_operations_total{outcome="completed",scene="pay"}"#: 1,
                #"semel_operations_total{outcome="released",scene="pay"}"#: 1,
                #"semel_operations_total{outcome="uncertain",scene="pay"}"#: 1,
                #"semel_operations_total{outcome="completed",scene="claims"}"#: 1,
                #"semel_rejected_total{reason="key-reused",scene="pay"}"#: 1,
                #"semel_rejected_total{reason="outcome-uncertain",scene="pay"}"#: 1, #"semel_replayed_total{scene="pay"}"#: 1,
                #"semel_in_progress{scene="pay"}"#: 0, #"semel_lease_lost_total{scene="claims"}"#: 1,
                #"semel_store_errors_total{kind="unavailable",store="sqlite"}"#: 0, #"semel_degraded{component="store"}"#: 0,
            ]
            for (series, value) in expected { #expect(seen[series] == value, "\(series) is \(String(describing: seen[series]))") }
            #expect(seen[#"semel_claim_duration_seconds_count{store="sqlite"}"#] ?? 0 >= 8)
            let batches = seen[#"semel_store_batch_size_count{store="sqlite"}"#] ?? 0
            #expect(batches >= 9 && seen[#"semel_store_batch_size_sum{store="sqlite"}"#] ?? 0 >= batches)

            #expect(await server.end(SIGKILL) == -SIGKILL)
            _ = await hanging.result
            let again = try await SemelProcess(Self.configuration(upstream.port), in: folder)
            #expect(try await again.pay("/refund/hang", key: "visible-key-5").status == 201)
            let after = try await again.metrics()
            #expect(after[#"semel_claims_total{result="reclaimed",scene="refund"}"#] == 1)
            #expect(after[#"semel_retries_total{attempt="2",scene="refund"}"#] == 1)

            // Every metric that is described was written by one of the two, and every one that was written is described.
            let names = { (series: [String: Double]) in
                Set(series.keys.map { String($0.prefix { $0 != "{" }.replacing(#/_(bucket|sum|count)$/#, with: "")) })
            }
            let written = names(seen).union(names(after))
            // Without a collector there is nothing to drop, and only a caller's own tables are changed under optimistic locks.
            #expect(
                Set(SemelMetrics.descriptions.keys).subtracting(written) == [
                    "semel_telemetry_dropped_total", "semel_optimistic_lock_failures_total",
                ])
            #expect(written.subtracting(SemelMetrics.descriptions.keys).isEmpty)
            for series in seen.keys.map({ $0 }) + after.keys.map({ $0 }) { #expect(!series.contains("visible-key")) }
            #expect(await again.end() == 0)
        }
    }

    @Test("logs each step of an operation with its trace, span, attempt, epoch and duration; a retry is a new span of the same trace")
    func logs() async throws {
        let upstream = try await Self.upstream()
        try await withTemporaryFolder { folder in
            let server = try await SemelProcess(Self.configuration(upstream.port, log: "debug"), in: folder)
            let trace = "4bf92f3577b34da6a3ce929d0e0e4736"
            let first = "00-\(trace)-00f067aa0ba902b7-01", second = "00-\(trace)-00f067aa0ba902b8-01"
            #expect(try await server.pay("/pay/429", key: "visible-key-1", [("traceparent", first), ("tracestate", "v=1")]).status == 429)
            #expect(try await server.pay("/pay/429", key: "visible-key-1", [("traceparent", second)]).status == 429)
            #expect(
                try await server.pay("/pay/201", key: "visible-key-2", [("traceparent", "nonsense"), ("tracestate", "v=1")]).status == 201)
            #expect(try await server.pay("/pay/201", key: "visible-key-2").isReplay)
            #expect(try await server.pay("/pay/500", key: "visible-key-3").status == 500)
            #expect(try await server.pay("/pay/500", key: "visible-key-3").status == 409)
            let hanging = Task { try await server.pay("/refund/hang", key: "visible-key-4", [("X-Hang", "1")]) }
            try await eventually({ upstream.received.count == 5 }, "the upstream got the request that hangs")
            await server.end(SIGKILL)
            _ = await hanging.result

            // What was sent on: the client's trace, under spans of our own.
            let sent = try upstream.received.map { try #require(TraceContext(traceparent: $0.head.field("traceparent") ?? "")) }
            #expect(sent[0].traceID.hexadecimal == trace && sent[1].traceID.hexadecimal == trace)
            #expect(Set(sent.map(\.spanText) + ["00f067aa0ba902b7", "00f067aa0ba902b8"]).count == sent.count + 2)
            #expect(upstream.received[0].head.field("tracestate") == "v=1")
            #expect(upstream.received[2].head.field("tracestate") == nil, "what belongs to a trace that cannot be read is not sent on")

            let lines = try server.log
            func line(_ step: String, _ scene: String, _ index: Int = 0) throws -> JSONValue {
                let found = lines.filter { $0["step"]?.string == step && $0["scene"]?.string == scene }
                return try #require(found.count > index ? found[index] : nil, "no line \(index) of \(step) in \(scene)")
            }
            for line in lines where line["scene"] != nil {
                #expect(line["timestamp"]?.string?.wholeMatch(of: /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/) != nil)
                #expect(["debug", "info", "warning", "error"].contains(line["level"]?.string) && line["message"]?.string?.isEmpty == false)
                #expect(line["trace_id"]?.string?.wholeMatch(of: /[0-9a-f]{32}/) != nil, "\(line)")
                #expect(line["span_id"]?.string?.wholeMatch(of: /[0-9a-f]{16}/) != nil, "\(line)")
            }
            for step in ["start", "release"] {
                for index in 0...1 {
                    let line = try line(step, "pay", index)
                    #expect(line["trace_id"]?.string == trace && line["span_id"]?.string == sent[index].spanText, "\(line)")
                    #expect(line["operation"]?.string?.hasPrefix("op_") == true)
                    #expect(line["attempt"]?.integer == 1 && line["epoch"]?.integer ?? 0 > 0 && line["duration_ms"]?.integer != nil)
                }
            }
            #expect(try line("release", "pay")["status"]?.integer == 429)
            let complete = try line("complete", "pay")
            #expect(complete["status"]?.integer == 201 && complete["span_id"]?.string == sent[2].spanText)
            let replay = try line("replay", "pay")
            #expect(
                replay["status"]?.integer == 201 && replay["span_id"] != complete["span_id"] && replay["operation"] == complete["operation"]
            )
            let suspend = try line("suspend", "pay")
            #expect(suspend["level"] == "warning" && suspend["reason"] == "status-500" && suspend["epoch"]?.integer ?? 0 > 0)
            let reject = try line("reject", "pay")
            #expect(
                reject["status"]?.integer == 409 && reject["reason"] == "outcome-uncertain" && reject["operation"] == suspend["operation"])

            // The next process takes the lost operation over: attempt 2, a new span of the trace that attempt 1 began.
            let again = try await SemelProcess(Self.configuration(upstream.port, log: "debug"), in: folder)
            #expect(try await again.pay("/refund/hang", key: "visible-key-4").status == 201)
            let retry = try #require(TraceContext(traceparent: upstream.received[5].head.field("traceparent") ?? ""))
            #expect(retry.traceID == sent[4].traceID && retry.spanID != sent[4].spanID)
            #expect(await again.end() == 0)
            let last = try #require(try again.log.first { $0["step"] == "complete" })
            #expect(
                last["attempt"]?.integer == 2 && last["trace_id"]?.string == retry.traceID.hexadecimal
                    && last["span_id"]?.string == retry.spanText)
            #expect(last["epoch"]?.integer ?? 0 > (try line("start", "refund"))["epoch"]?.integer ?? .max)
            for line in lines + (try again.log) { #expect(!"\(line)".contains("visible-key")) }
        }
    }
}
