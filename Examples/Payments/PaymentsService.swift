import HTTPTypes
import Hummingbird
import NIOCore

/// The service's routes.
struct PaymentsService: Sendable {
    let ledger: Ledger
    let latency: Duration
    let derivedKeyField: HTTPField.Name
    let obeysFaults: Bool

    func router() -> Router<PaymentsContext> {
        let router = Router(context: PaymentsContext.self)
        router.post("/v1/payments") { request, context in
            try await capture(request, context) { payment, origin in
                try await (ledger.apply(payment, from: origin), false)
            }
        }
        router.post("/v1/dedup/payments") { request, context in
            try await capture(request, context) { payment, origin in
                guard let key = origin.key else {
                    throw Problem(.badRequest, code: "key-missing", detail: "This route needs an Idempotency-Key.")
                }
                return try await ledger.applyOnce(payment, key: key, from: origin)
            }
        }
        router.get("/v1/payments") { request, _ in
            guard let key = request.uri.queryParameters["key"] else {
                throw Problem(.badRequest, code: "key-missing", detail: "Ask for one key: ?key=KEY")
            }
            let payment = try await ledger.payment(key: String(key), raisingFenceTo: try Self.epoch(request))
            return try Self.found(payment)
        }
        router.get("/v1/payments/:id") { _, context in
            try Self.found(try await ledger.payment(id: try context.parameters.require("id")))
        }
        router.get("/ledger") { _, _ in try Response.json(try await ledger.summary()) }
        router.get("/ledger/keys") { _, _ in
            var lines = ByteBuffer()
            for count in try await ledger.counts() {
                lines.writeBytes(try encodeJSON(count))
                lines.writeString("\n")
            }
            return Response(status: .ok, headers: [.contentType: "application/x-ndjson"], body: .init(byteBuffer: lines))
        }
        router.get("/healthz") { _, _ in "ok\n" }
        return router
    }

    /// One payment: check, effect, answer, with the faults that the request asks for around the effect.
    private func capture(
        _ request: Request,
        _ context: PaymentsContext,
        apply: (PaymentRequest, Ledger.Origin) async throws -> (payment: Payment, isRepeat: Bool)
    ) async throws -> Response {
        let faults = obeysFaults ? try Faults(request.headers) : Faults()
        let paymentRequest = try PaymentRequest(body: try await request.body.collect(upTo: 1 << 20))
        let origin = Ledger.Origin(
            key: request.headers[.idempotencyKey].map(Self.unquoted),
            derivedKey: request.headers[derivedKeyField].map(Self.unquoted),
            epoch: try Self.epoch(request)
        )

        try await pause(faults.latencyBefore)
        try await misbehave(faults, at: .before, context)
        let (payment, isRepeat) = try await apply(paymentRequest, origin)
        try await pause(faults.latency ?? latency)
        try await misbehave(faults, at: .after, context)

        var headers: HTTPFields = [.location: "/v1/payments/\(payment.id)"]
        if isRepeat { headers[.paymentsRepeat] = "true" }
        headers[.contentType] = faults.streamsEvents ? "text/event-stream" : "application/json"
        return Response(status: .created, headers: headers, body: try body(of: payment, faults, context))
    }

    private func pause(_ duration: Duration) async throws {
        if duration > .zero { try await Task.sleep(for: duration) }
    }

    private func misbehave(_ faults: Faults, at moment: Faults.Moment, _ context: PaymentsContext) async throws {
        if faults.drop == moment {
            try await context.channel.close()
            throw ConnectionDropped()
        }
        if faults.failure == moment {
            throw Problem(.internalServerError, code: "demo-failure", detail: "Asked to fail \(moment.rawValue) the effect.")
        }
    }

    private func body(of payment: Payment, _ faults: Faults, _ context: PaymentsContext) throws -> ResponseBody {
        if faults.streamsEvents {
            let event = ByteBuffer(bytes: Array("data: ".utf8) + (try encodeJSON(payment)) + Array("\n\n".utf8))
            return stream(Array(repeating: event, count: 5), faults, context)
        }
        guard let size = faults.bodySize else { return ResponseBody(byteBuffer: ByteBuffer(bytes: try encodeJSON(payment))) }
        // Still JSON, filled up to the size with spaces, which mean nothing there.
        var json = ByteBuffer(bytes: try encodeJSON(payment))
        json.writeRepeatingByte(UInt8(ascii: " "), count: max(0, size - json.readableBytes))
        var chunks: [ByteBuffer] = []
        while let chunk = json.readSlice(length: min(16 << 10, json.readableBytes)), chunk.readableBytes > 0 { chunks.append(chunk) }
        return stream(chunks, faults, context)
    }

    private func stream(_ chunks: [ByteBuffer], _ faults: Faults, _ context: PaymentsContext) -> ResponseBody {
        ResponseBody { writer in
            for (index, chunk) in chunks.enumerated() {
                if faults.drop == .during, index == chunks.count / 2 {
                    try await context.channel.close()
                    throw ConnectionDropped()
                }
                try await pause(faults.chunkLatency)
                try await writer.write(chunk)
            }
            try await writer.finish(nil)
        }
    }

    private static func found(_ payment: Payment?) throws -> Response {
        guard let payment else { throw Problem(.notFound, code: "payment-absent", detail: "There is no such payment.") }
        return try .json(payment)
    }

    private static func epoch(_ request: Request) throws -> Int64? {
        guard let text = request.headers[.semelEpoch] else { return nil }
        guard let epoch = Int64(text), epoch >= 0 else {
            throw Problem(.badRequest, code: "epoch-malformed", detail: "Semel-Epoch: \"\(text)\" is no number.")
        }
        return epoch
    }

    /// A key is the same with the quotes of a structured field (RFC 8941 §3.3.3) as without.
    private static func unquoted(_ text: String) -> String {
        guard text.count >= 2, text.first == "\"", text.last == "\"" else { return text }
        var key = ""
        var isEscaped = false
        for character in text.dropFirst().dropLast() {
            if character == "\\", !isEscaped {
                isEscaped = true
            } else {
                key.append(character)
                isEscaped = false
            }
        }
        return key
    }
}

/// Ends a handler whose connection was closed on purpose; nobody is there to read an answer.
private struct ConnectionDropped: Error {}

/// A request's context, with its connection: dropping that is one of the faults.
struct PaymentsContext: RequestContext {
    var coreContext: CoreRequestContextStorage
    let channel: any Channel

    init(source: ApplicationRequestContextSource) {
        coreContext = .init(source: source)
        channel = source.channel
    }
}

extension HTTPField.Name {
    static let idempotencyKey = Self("Idempotency-Key")!
    static let semelEpoch = Self("Semel-Epoch")!
    /// Set on the answer to a repeat by the route that deduplicates.
    static let paymentsRepeat = Self("Payments-Repeat")!
}
