internal import HTTPTypes
internal import Hummingbird
internal import HummingbirdCore
internal import HummingbirdTLS
package import Logging
internal import NIOCore
internal import NIOSSL
package import Semel
internal import ServiceLifecycle

/// The control plane: health, metrics, operations, audit, the page for people, and the claims API, on a listener of their
/// own.
///
/// On loopback everybody on the machine may do everything unless tokens are configured; requests for another host name
/// are refused there. Beyond loopback it does not exist without tokens and TLS.
package struct ControlPlane: Service {
    let admin: AdminConfiguration
    let table: RouteTable
    let logger: Logger
    private let environment: Semel.Environment
    private let access: Locked<AccessControl>
    private let bound = BoundPort()
    private let server: HTTPServerBuilder

    /// What the routes are made of.
    struct Parts: Sendable {
        var store: any OperationStore
        var pair: Fallback?
        var claims: ClaimsAPI
        var scenes: @Sendable () -> [SceneReport]
        var checks: [ReadinessCheck]
        var metrics: @Sendable () -> String
        var environment: Semel.Environment
        var logger: Logger
    }

    /// - Parameters:
    ///   - pair: `store` with a second one behind it, where there is one.
    ///   - canFallBack: whether there are scenes that go on without `store` now.
    ///   - scenes: the configured scenes as they are now; those of the claims API are added.
    ///   - checks: parts besides the store.
    ///   - metrics: the metrics in the Prometheus text format.
    /// - Throws: ``ControlPlaneError`` when it would be open to the network without tokens or TLS, or the certificate cannot
    ///   be used.
    package init(
        admin: AdminConfiguration, claims: ClaimsConfiguration = ClaimsConfiguration(), store: any OperationStore,
        claimsAPI: ClaimsAPI? = nil, pair: Fallback? = nil, canFallBack: @escaping @Sendable () -> Bool = { false },
        scenes: @escaping @Sendable () -> [SceneReport] = { [] }, checks: [ReadinessCheck] = [],
        metrics: @escaping @Sendable () -> String = { "" }, environment: Semel.Environment = .live,
        logger: Logger = Logger(label: "semel.control-plane")
    ) throws(ControlPlaneError) {
        access = Locked(try Self.accessControl(admin, claims))
        self.admin = admin
        self.logger = logger
        self.environment = environment
        let claimsAPI = claimsAPI ?? ClaimsAPI(store: store, environment: environment)
        table = RouteTable(
            routes: Self.routes(
                Parts(
                    store: store, pair: pair, claims: claimsAPI, scenes: { scenes() + claimsAPI.reports },
                    checks: [.store(store) { pair == nil || !canFallBack() }] + (pair.map { [.fallback($0, environment)] } ?? []) + checks,
                    metrics: metrics, environment: environment, logger: logger)))
        server = try Self.server(admin.tls)
    }

    /// Takes new tokens without closing a connection.
    /// - Throws: ``ControlPlaneError``; then the old ones stay. Address and certificate are not changed while running.
    package func reload(admin new: AdminConfiguration, claims: ClaimsConfiguration) throws(ControlPlaneError) {
        guard new.listen == admin.listen, new.tls == admin.tls else {
            throw ControlPlaneError(.needsRestart, "The control plane's address or certificate was changed.", remedy: "Restart to use it; everything else was taken.")
        }
        let control = try Self.accessControl(new, claims)
        access.withLock { $0 = control }
    }

    /// The port it listens on, once it does.
    /// - Throws: ``ControlPlaneError`` when it stopped without.
    package func port() async throws -> Int { try await bound.wait() }

    /// Serves until a graceful shutdown: requests under way are answered, waits end early.
    /// - Throws: ``ControlPlaneError`` when it cannot listen.
    package func run() async throws {
        let application = Application(
            responder: CallbackResponder<ControlPlaneContext> { request, context in await respond(request, context) },
            server: server,
            configuration: ApplicationConfiguration(address: .hostname(admin.listen.host, port: admin.listen.port)),
            onServerRunning: { [bound] channel in bound.set(.success(channel.localAddress?.port ?? 0)) },
            logger: logger)
        do {
            try await application.run()
            bound.set(.failure(ControlPlaneError(.stopped, "The control plane stopped.", remedy: "Start it again.")))
        } catch let error as IOError {
            let failure = ControlPlaneError(
                .cannotListen, "The control plane cannot listen on \(admin.listen): \(error.plainText).",
                remedy: "Free the address, or set admin: to another one.")
            bound.set(.failure(failure))
            throw failure
        } catch {
            bound.set(.failure(error))
            throw error
        }
    }

    // MARK: Protection

    private static func accessControl(_ admin: AdminConfiguration, _ claims: ClaimsConfiguration) throws(ControlPlaneError) -> AccessControl {
        let isLoopback = admin.listen.isLoopback
        guard isLoopback || (!admin.tokens.isEmpty && admin.tls != nil) else {
            let missing = admin.tokens.isEmpty ? (admin.tls == nil ? "tokens and TLS" : "tokens") : "TLS"
            throw ControlPlaneError(
                .unprotected, "The control plane would listen on \(admin.listen), beyond loopback, without \(missing).",
                remedy: "Configure admin: with tokens and tls, or listen on 127.0.0.1.")
        }
        return AccessControl(isLoopback: isLoopback, tokens: admin.tokens, claimsTokens: claims.tokens)
    }

    private static func server(_ files: TLSFiles?) throws(ControlPlaneError) -> HTTPServerBuilder {
        let decoder = HTTP1Channel.Configuration.DecoderConfiguration(maxHeaderFieldSize: 16 << 10, maxHeaderListSize: 16 << 10, maxHeaderFieldCount: 100)
        let http = HTTPServerBuilder.http1(
            configuration: .init(
                additionalChannelHandlers: [ConnectionEndHandler()], idleTimeout: .seconds(60), httpDecoderConfiguration: decoder))
        guard let files else { return http }
        do {
            let chain = try NIOSSLCertificate.fromPEMFile(files.certificate).map { NIOSSLCertificateSource.certificate($0) }
            let key = try NIOSSLPrivateKey(file: files.key, format: .pem)
            return try .tls(http, tlsConfiguration: .makeServerConfiguration(certificateChain: chain, privateKey: .privateKey(key)))
        } catch {
            throw ControlPlaneError(
                .certificate, "The certificate \(files.certificate) with the key \(files.key) cannot be used: \(error).",
                remedy: "Give the paths of a PEM certificate chain and its PEM key, readable to this user.")
        }
    }

    // MARK: Requests

    private func respond(_ request: Request, _ context: ControlPlaneContext) async -> Response {
        let trace = TraceContext.continuing(request.headers[.traceparent], random: environment.random)
        return await TraceContext.$current.withValue(trace) { await answerOrProblem(request, context) }
    }

    private func answerOrProblem(_ request: Request, _ context: ControlPlaneContext) async -> Response {
        let answer: APIResponse
        do {
            answer = try await self.answer(request, context)
        } catch let problem as APIProblem {
            answer = problem.response
        } catch let error as StoreError {
            logger.error("The store did not answer the control plane.", metadata: ["reason": .string(error.message), "kind": .string(error.code.description)])
            answer = APIProblem(error).response
        } catch {
            logger.error("A request to the control plane failed.", metadata: ["reason": .string("\(error)")])
            answer = APIProblem(.internalError, "The server failed to do this; its log says why.").response
        }
        let body = request.method == .head ? ResponseBody() : ResponseBody(byteBuffer: ByteBuffer(bytes: answer.body))
        return Response(status: .init(code: answer.status), headers: answer.fields, body: body)
    }

    private func answer(_ request: Request, _ context: ControlPlaneContext) async throws -> APIResponse {
        let access = access.withLock { $0 }
        if access.isLoopback { try HostGuard.check(request.head.authority) }
        let target = request.head.path ?? ""
        let mark = target.firstIndex(of: "?")
        let (route, parameters) = try table.find(request.method, target[..<(mark ?? target.endIndex)])
        let caller = try access.authenticate(route.access, request.headers)
        let query = try QueryParameters(mark.map { target[target.index(after: $0)...] } ?? "")
        let body = route.method == .post ? try await body(of: request, upTo: route.bodyLimit) : []
        return try await route.handler(
            APIRequest(caller: caller, parameters: parameters, query: query, body: body, connection: try await context.connectionEnd()))
    }

    private func body(of request: Request, upTo limit: Int) async throws -> [UInt8] {
        let type = request.headers[.contentType]?.prefix { $0 != ";" } ?? ""
        guard type.lowercased().trimmingSpaces == "application/json" else {
            throw APIProblem(.contentTypeUnsupported, "Send JSON, and say so: Content-Type: application/json.")
        }
        let tooLarge = APIProblem(.requestTooLarge, "The body has more than \(limit) bytes. Send less at a time.")
        if let length = request.headers[.contentLength].flatMap({ Int($0) }), length > limit { throw tooLarge }
        do {
            return Array(buffer: try await request.body.collect(upTo: limit))
        } catch is NIOTooManyBytesError {
            throw tooLarge
        }
    }
}

/// What a request's connection is known by.
struct ControlPlaneContext: InitializableFromSource {
    private let channel: any Channel

    init(source: ApplicationRequestContextSource) {
        channel = source.channel
    }

    func connectionEnd() async throws -> ConnectionEnd {
        try await channel.eventLoop.submit { [channel] in
            try channel.pipeline.syncOperations.handler(type: ConnectionEndHandler.self).end
        }.get()
    }
}

extension HTTPField.Name {
    fileprivate static let traceparent = Self("traceparent")!
}

/// The port, once it is known.
private final class BoundPort: Sendable {
    private struct State {
        var result: Result<Int, any Error>?
        var waiting: [CheckedContinuation<Int, any Error>] = []
    }

    private let state = Locked(State())

    func wait() async throws -> Int {
        try await withCheckedThrowingContinuation { continuation in
            let result = state.withLock { state in
                if state.result == nil { state.waiting.append(continuation) }
                return state.result
            }
            if let result { continuation.resume(with: result) }
        }
    }

    /// The first result stays.
    func set(_ result: Result<Int, any Error>) {
        let waiting = state.withLock { state in
            guard state.result == nil else { return [CheckedContinuation<Int, any Error>]() }
            state.result = result
            defer { state.waiting = [] }
            return state.waiting
        }
        for continuation in waiting { continuation.resume(with: result) }
    }
}

extension String {
    fileprivate var trimmingSpaces: Substring {
        var rest = self[...]
        while rest.first == " " || rest.first == "\t" { rest.removeFirst() }
        while rest.last == " " || rest.last == "\t" { rest.removeLast() }
        return rest
    }
}
