import AsyncHTTPClient
import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import Semel
import SemelHTTP
import SemelHummingbird
import SemelTesting
import Testing

/// A real Hummingbird server on a port of its own, with the middleware in front of one handler for every path.
struct TestService: Sendable {
    typealias Handler = @Sendable (Request, BasicRequestContext) async throws -> Response

    let port: Int
    /// How often the handler ran.
    let runs: Tally
    let events: EventLog

    static func run(
        _ policy: HTTPPolicy = .test(), store: any OperationStore = StoreDouble.durable(), environment: Semel.Environment = .live,
        verify: IdempotencyMiddleware<BasicRequestContext>.Verify? = nil,
        identity: IdempotencyMiddleware<BasicRequestContext>.Identity? = nil, spool: Spool = .shared,
        calendar: @escaping @Sendable () -> Timestamp = HTTPScene.systemCalendar,
        handler: @escaping Handler = { _, _ in Response(status: .created, body: ResponseBody(byteBuffer: ByteBuffer(string: "made"))) },
        _ body: (TestService) async throws -> Void
    ) async throws {
        let runs = Tally()
        let events = EventLog()
        let scene = try HTTPScene(
            policy, operations: Operations(store: store, environment: environment), spool: spool, observer: events, calendar: calendar)
        let router = Router()
        router.add(middleware: IdempotencyMiddleware(scene, verify: verify, identity: identity))
        router.addIdempotencyProblemPages()
        for method in [HTTPRequest.Method.get, .post, .patch, .put, .delete] {
            router.on("**", method: method) { request, context in
                runs.add()
                return try await handler(request, context)
            }
        }
        try await serve(router) { port in try await body(TestService(port: port, runs: runs, events: events)) }
    }

    static func serve(_ router: Router<BasicRequestContext>, _ body: (Int) async throws -> Void) async throws {
        let (ports, port) = AsyncStream<Int>.makeStream()
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let application = Application(
            router: router, configuration: .init(address: .hostname("127.0.0.1", port: 0)),
            onServerRunning: { channel in port.yield(channel.localAddress?.port ?? 0) }, logger: logger)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await application.run() }
            var iterator = ports.makeAsyncIterator()
            let number = try #require(await iterator.next())
            do {
                try await body(number)
            } catch {
                group.cancelAll()
                throw error
            }
            group.cancelAll()
            do { try await group.waitForAll() } catch is CancellationError {}
        }
    }

    /// Sends one request with a real client. `key` is the field's value as it goes over the wire.
    func send(
        _ method: HTTPRequest.Method = .post, _ path: String = "/payments", key: String? = #""key-1""#, body: String = #"{"amount":1}"#,
        _ fields: [(String, String)] = []
    ) async throws -> Reply {
        try await send(method, path, key: key, bytes: ByteBuffer(string: body), fields)
    }

    func send(
        _ method: HTTPRequest.Method = .post, _ path: String = "/payments", key: String? = #""key-1""#, bytes: ByteBuffer,
        _ fields: [(String, String)] = []
    ) async throws -> Reply {
        var request = HTTPClientRequest(url: "http://127.0.0.1:\(port)\(path)")
        request.method = .init(rawValue: method.rawValue)
        if let key { request.headers.add(name: "Idempotency-Key", value: key) }
        for (name, value) in fields { request.headers.add(name: name, value: value) }
        if bytes.readableBytes > 0 { request.body = .bytes(bytes) }
        let response = try await HTTPClient.shared.execute(request, timeout: .seconds(180))
        var body = ByteBuffer()
        for try await piece in response.body { body.writeImmutableBuffer(piece) }
        return Reply(status: Int(response.status.code), fields: response.headers.map { ($0.name, $0.value) }, body: Array(buffer: body))
    }
}

extension TestService {
    /// Sends, and counts the reply when its first byte is there.
    func send(countingIn replies: Tally) async throws -> Reply {
        var request = HTTPClientRequest(url: "http://127.0.0.1:\(port)/payments")
        request.method = .POST
        request.headers.add(name: "Idempotency-Key", value: #""key-1""#)
        let response = try await HTTPClient.shared.execute(request, timeout: .seconds(180))
        replies.add()
        return Reply(status: Int(response.status.code), fields: [], body: Array(buffer: try await response.body.collect(upTo: 1 << 20)))
    }
}

/// A response as the client saw it.
struct Reply: Sendable {
    let status: Int
    let fields: [(name: String, value: String)]
    let body: [UInt8]

    var text: String { String(decoding: body, as: UTF8.self) }
    var json: JSONValue? { try? JSONValue(parsing: body) }
    var isReplay: Bool { self["Idempotent-Replayed"] == "true" }
    /// The problem's code; `nil` for an answer that is none.
    var code: String? { self["Content-Type"] == "application/problem+json" ? json?["code"]?.string : nil }

    subscript(name: String) -> String? { values(name).first }
    func values(_ name: String) -> [String] { fields.filter { $0.name.lowercased() == name.lowercased() }.map(\.value) }
}

final class Tally: Sendable {
    private let number = Locked(0)
    var count: Int { number.withLock { $0 } }
    @discardableResult func add() -> Int {
        number.withLock { number in
            number += 1
            return number
        }
    }
}

/// What the observer was told, and a way to wait for it.
final class EventLog: HTTPObserver {
    private let names = Locked([String]())
    private let changes = AsyncStream<Void>.makeStream()

    func observe(_ event: HTTPEvent, scene: Semel.Scene, operation: OperationID?) {
        let name =
            switch event {
            case .started: "started"
            case .recorded(let status, _): "recorded \(status)"
            case .released(let status, _): "released \(status)"
            case .suspended(let reason, _): "suspended \(reason)"
            case .unrecorded(let reason, _): "unrecorded \(reason)"
            case .replayed(let status): "replayed \(status)"
            case .rejected(let code, _): "rejected \(code.rawValue)"
            case .wouldReject(let code): "wouldReject \(code.rawValue)"
            case .wouldReplay: "wouldReplay"
            case .degraded: "degraded"
            case .storeFailed(let error): "storeFailed \(error.code)"
            }
        names.withLock { $0.append(name) }
        changes.continuation.yield()
    }

    var all: [String] { names.withLock { $0 } }

    /// Returns when the event has happened; events are awaited one test at a time.
    func wait(for name: String) async {
        if all.contains(name) { return }
        for await _ in changes.stream where all.contains(name) { return }
    }
}

/// Closed until it is opened.
final class Gate: Sendable {
    private let state = Locked((isOpen: false, waiters: [CheckedContinuation<Void, Never>]()))

    func open() {
        let waiters = state.withLock { state in
            state.isOpen = true
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.resume() }
    }

    /// Waits whether or not the task is cancelled.
    func pass() async {
        await withCheckedContinuation { continuation in
            let isOpen = state.withLock { state in
                if !state.isOpen { state.waiters.append(continuation) }
                return state.isOpen
            }
            if isOpen { continuation.resume() }
        }
    }
}

extension HTTPPolicy {
    static func test(
        effect: Effect = .unknown, minimum: Guarantee? = nil, mode: Mode = .enforce, onError: ErrorRule? = nil,
        onConcurrent: ConcurrencyRule = .conflict, onStoreFailure: StoreFailureRule = .closed, lease: Duration = .seconds(30),
        progress: Duration? = nil, retention: Retention = .standard, liveKeys: Int? = 1_000_000, _ change: (inout HTTPPolicy) -> Void = { _ in }
    ) -> HTTPPolicy {
        var policy = HTTPPolicy(
            policy: Policy(
                scene: "payment.capture", effect: effect, minimum: minimum, mode: mode, onError: onError, onConcurrent: onConcurrent,
                onStoreFailure: onStoreFailure, lease: lease, progress: progress, retention: retention, liveKeys: liveKeys),
            keyRequired: true, scopeSource: .none)
        change(&policy)
        return policy
    }
}
