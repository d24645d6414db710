internal import HTTPTypes
internal import Logging
internal import NIOCore
internal import NIOHTTP1
internal import Semel
internal import SemelHTTP

/// Answers every request of the data plane: finds its route, and either streams it through or lets the scene's rules decide.
struct GatewayResponder: Sendable {
    let table: Locked<RoutingTable>
    let environment: Environment
    let logger: Logger

    func respond(to request: InboundRequest, _ writer: ResponseWriter) async throws {
        // One table for the whole request, whatever a reload does meanwhile.
        let table = table.withLock { $0 }
        switch try step(for: request, table) {
        case .answer(let answer): try await writer.send(answer)
        case .pass(let upstream, let scene): try await passThrough(request, to: upstream, of: scene, table, writer)
        case .rules(let scene, let converted):
            let claims = await scene.tokens?.claims(of: request.head.headers)
            let (exchange, forwarder) = exchange(request, converted, claims, scene, table)
            try await writer.send(scene.http.respond(to: exchange, body: request.body) { try await forwarder.run($0) })
        }
    }

    /// What is done with a request.
    private enum Step {
        indirect case answer(HTTPAnswer)
        case pass(UpstreamClient, of: SceneRoute?)
        indirect case rules(SceneRoute, HTTPRequest)
    }

    // Not inlined: what it needs only itself would be kept with every request that waits.
    @inline(never)
    private func step(for request: InboundRequest, _ table: RoutingTable) throws -> Step {
        guard let converted = HTTPRequest(request.head) else { throw RequestRefusal.malformed("The method cannot be forwarded.") }
        if let page = page(converted) { return .answer(page) }
        guard request.head.uri != "*" else {
            return .answer(HTTPAnswer(HTTPResponse(status: .noContent, headerFields: [.allow: "*"])))
        }
        let route: RoutingTable.Route
        do {
            route = try table.route(converted.method, target: request.head.uri)
        } catch {
            return .answer(ProblemDocument.ambiguousPath("\(error)").answer)
        }
        switch route {
        case .scene(let scene):
            if let answer = scene.http.ownAnswer(to: converted) { return .answer(answer) }
            return scene.http.covers(converted) ? .rules(scene, converted) : .pass(scene.upstream, of: scene)
        case .unmatched(let upstream): return .pass(upstream, of: nil)
        case .none: return .answer(ProblemDocument.noRoute.answer)
        case .ambiguous:
            return .answer(ProblemDocument.ambiguousPath("Encoded slashes or empty segments make the path match two scenes.").answer)
        }
    }

    private func page(_ request: HTTPRequest) -> HTTPAnswer? {
        guard let path = request.path, path.hasPrefix(ProblemPages.prefix) else { return nil }
        if let answer = ProblemPage.answer(to: request) { return answer }
        guard request.method == .get || request.method == .head, let page = ProblemPages.page(String(path.dropFirst(ProblemPages.prefix.count)))
        else { return nil }
        return HTTPAnswer(
            HTTPResponse(status: .ok, headerFields: [.contentType: "text/markdown; charset=utf-8", .cacheControl: "public, max-age=3600"]),
            .bytes(ByteBuffer(string: page)))
    }

    // MARK: Under a scene

    /// What the scene's rules are asked, and who sends the request on when they say so.
    @inline(never)
    private func exchange(
        _ request: InboundRequest, _ converted: HTTPRequest, _ claims: [String: String]?, _ scene: SceneRoute, _ table: RoutingTable
    ) -> (HTTPExchange, SceneForwarder) {
        var fields = forwarded(request, to: scene.upstream, of: scene, table)
        let trace = TraceContext.continuing(fields.first(name: "traceparent"), random: environment.random)
        fields.replaceOrAdd(name: "traceparent", value: trace.traceparent)
        // What belongs to a trace that is not continued says nothing about the new one.
        if trace.parentSpanID == nil { fields.remove(name: "tracestate") }
        let forwarder = SceneForwarder(route: scene, head: request.head, fields: fields, environment: environment)
        var authorize: (@Sendable (HTTPRequest) async -> HTTPAnswer?)?
        if let authorizer = scene.replayAuthorizer {
            let (head, fields, isValid) = (request.head, fields, scene.tokens.map { _ in claims != nil })
            authorize = { _ in await authorizer.refusal(of: head, fields, hasValidToken: isValid) }
        }
        let verifier = scene.verifier
        let exchange = HTTPExchange(
            converted, identity: identity(claims, scene), trace: trace, authorize: authorize,
            verify: verifier.map { verifier in { @Sendable attempt in try await verifier.verify(attempt) } },
            waitOutFlight: verifier.map { verifier in { @Sendable attempt in try await verifier.waitOutFlight(of: attempt) } },
            admission: { await forwarder.enter() })
        return (exchange, forwarder)
    }

    private func identity(_ claims: [String: String]?, _ scene: SceneRoute) -> String? {
        guard case .tokenClaim(let name) = scene.http.policy.scopeSource else { return nil }
        return claims?[name]
    }

    // MARK: Untouched

    /// Streams a request through, trailers and answers before the answer included: neither side is read faster than the other
    /// takes it.
    private func passThrough(
        _ request: InboundRequest, to client: UpstreamClient, of scene: SceneRoute?, _ table: RoutingTable, _ writer: ResponseWriter
    ) async throws {
        let head = request.head
        let length = head.headers.first(name: "content-length").flatMap { Int($0) }
        let isChunked = head.headers.contains(name: "transfer-encoding")
        let body: UpstreamRequest.Body
        switch (length, isChunked) {
        case (nil, false): body = .none
        case (0?, _): body = .bytes(ByteBuffer())
        default: body = .stream(length: length) { request.body.makeAsyncIterator() }
        }
        let interim = InterimAnswers(writer)
        var outgoing = UpstreamRequest(
            head.method, client.upstream.basePath + head.uri, headers: forwarded(request, to: client, of: scene, hasTrailers: isChunked, table),
            body: body, onInterim: { interim.add($0, $1) })
        if isChunked { outgoing.trailers = { ForwardedFields.trailers(request.body.trailers) } }
        do {
            let response = try await client.send(outgoing)
            await interim.finish()
            guard response.status.code >= 200 else { throw UpstreamFailure.lost("it switched protocols", timedOut: false) }
            try await writer.begin(response.status, ForwardedFields.response(response.headers))
            let mayHaveBody = writer.mayHaveBody(response.status)
            let trailers = try await response.forEachPiece { piece in
                if mayHaveBody { try await writer.write(piece) }
            }
            try await writer.finish(trailers)
        } catch let failure as UpstreamFailure where !writer.hasBegun {
            await interim.finish()
            try await writer.send(problem(failure).answer(pages: ProblemPages.prefix))
        }
    }

    private func problem(_ failure: UpstreamFailure) -> HTTPProblem {
        switch failure {
        case .notSent(let why): HTTPProblem(.upstreamRefused, "Nothing was sent to the service: \(why)", isSafeForNewKey: true)
        case .lost(let why, let timedOut):
            HTTPProblem(.upstreamLost, status: timedOut ? 504 : 502, "The request was sent and its response was lost: \(why)")
        }
    }

    private func forwarded(
        _ request: InboundRequest, to client: UpstreamClient, of scene: SceneRoute?, hasTrailers: Bool = false, _ table: RoutingTable
    ) -> HTTPHeaders {
        ForwardedFields.request(
            request.head, peer: request.peer, isTrusted: table.configuration.trusts(request.peer), authority: client.upstream.authority,
            fence: scene?.configuration.effectQuery?.fence?.rawName, hasTrailers: hasTrailers)
    }
}
