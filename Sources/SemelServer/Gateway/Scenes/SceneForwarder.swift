internal import HTTPTypes
internal import NIOCore
internal import NIOHTTP1
internal import Semel
internal import SemelHTTP

/// Runs an operation: sends its request to the scene's upstream, with what the upstream needs in order to deduplicate or
/// to fence.
final class SceneForwarder: Sendable {
    private let route: SceneRoute
    private let head: HTTPRequestHead
    private let fields: HTTPHeaders
    private let environment: Environment
    /// Its place among those that the upstream has at a time, from when it was entered until the request is sent.
    private let place = Locked(Result<Turnstile.Place, UpstreamFailure>?.none)

    /// - Parameter fields: the client's, ready to go on.
    init(route: SceneRoute, head: HTTPRequestHead, fields: HTTPHeaders, environment: Environment) {
        self.route = route
        self.head = head
        self.fields = fields
        self.environment = environment
    }

    /// Waits until the upstream may have one more request. What comes of it is told by ``run(_:)``.
    func enter() async {
        let result: Result<Turnstile.Place, UpstreamFailure>
        do { result = .success(try await route.upstream.enter()) } catch { result = .failure(error) }
        place.withLock { $0 = result }
    }

    private func takePlace() async throws(UpstreamFailure) -> Turnstile.Place {
        let entered = place.withLock { place in
            defer { place = nil }
            return place
        }
        if let entered { return try entered.get() }
        return try await route.upstream.enter()
    }

    func run(_ run: HTTPRun) async throws -> HTTPAnswer {
        let place = try await takePlace()
        return try await answer(route.upstream.send(request(for: run), in: place))
    }

    // Not inlined: what it needs would be kept with every request that waits.
    @inline(never)
    private func request(for run: HTTPRun) -> UpstreamRequest {
        var fields = fields
        if let trace = TraceContext.current { fields.replaceOrAdd(name: "traceparent", value: trace.traceparent) }
        if let id = run.id, let key = route.configuration.downstreamKey { add(key, for: id, to: &fields) }
        if let fence = route.configuration.effectQuery?.fence?.rawName, let attempt = run.attempt {
            fields.replaceOrAdd(name: fence, value: attempt.epoch.description)
        }
        let failpoints = environment.failpoints
        return UpstreamRequest(
            head.method, route.configuration.upstream.basePath + head.uri, headers: fields, body: body(run.body),
            onWritten: { failpoints.pass(.afterSend) })
    }

    private func body(_ body: SpooledBody) -> UpstreamRequest.Body {
        if let bytes = body.bytes {
            let isNone = bytes.readableBytes == 0 && !head.headers.contains(name: "content-length") && !head.headers.contains(name: "transfer-encoding")
            return isNone ? .none : .bytes(bytes)
        }
        return .stream(length: body.length) { body.makeAsyncIterator() }
    }

    /// The key by which the target knows the operation: the same for every attempt at it, in one way of writing. It takes the
    /// place of what the client sent in the field, which need not be the operation's key, nor the same at each attempt.
    private func add(_ key: DownstreamKey, for id: OperationID, to fields: inout HTTPHeaders) {
        let text = key.text(for: id)
        fields.replaceOrAdd(name: key.header.rawName, value: isQuoted(key.header) ? Self.quoted(text) : text)
    }

    /// Idempotency-Key is a structured field (RFC 8941), and so is the field in which clients must quote; of others nothing is
    /// known.
    private func isQuoted(_ name: HTTPField.Name) -> Bool {
        name == .idempotencyKey || (route.http.policy.keySource == .header(name) && route.http.policy.keySyntax == .strict)
    }

    private static func quoted(_ text: String) -> String {
        "\"" + text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"") + "\""
    }

    private func answer(_ response: UpstreamResponse) async throws -> HTTPAnswer {
        let headers = ForwardedFields.response(response.headers)
        let answerHead = HTTPResponse(
            status: .init(code: Int(response.status.code), reasonPhrase: response.status.reasonPhrase), headerFields: HTTPFields(headers))
        let length = response.headers.first(name: "content-length").flatMap { Int($0) }
        let isEmpty = !response.status.mayHaveResponseBody
        // What will be kept is small: no need to hand it on piece by piece.
        if isEmpty || (length.map { $0 <= route.http.policy.responseLimit } ?? false) {
            var whole = ByteBuffer()
            let trailers = try await response.forEachPiece { whole.writeImmutableBuffer($0) }
            return HTTPAnswer(answerHead, .bytes(whole, trailers: trailers.map { HTTPFields($0) }))
        }
        return HTTPAnswer(
            answerHead, .stream(length: length) { send in try await response.forEachPiece { try await send($0) }.map { HTTPFields($0) } })
    }
}
