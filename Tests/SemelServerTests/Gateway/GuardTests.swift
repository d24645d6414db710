import FoundationEssentials
import HummingbirdCore
import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import ServiceLifecycle
import Testing

@testable import SemelServer

/// What a client may send, by raw sockets (issue: malformed HTTP).
@Suite("The guard before the HTTP parser")
struct GuardTests {
    /// A violation: bytes that must be refused, the status, and a word of the reason.
    struct Violation: Sendable, CustomTestStringConvertible {
        let name: String
        let bytes: String
        let status: Int
        let reason: String

        var testDescription: String { name }
    }

    static let violations: [Violation] = [
        .init(name: "Content-Length and Transfer-Encoding", bytes: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", status: 400, reason: "ambiguous"),
        .init(name: "Transfer-Encoding and Content-Length", bytes: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", status: 400, reason: "ambiguous"),
        .init(name: "two different Content-Lengths", bytes: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", status: 400, reason: "more than once"),
        .init(name: "a list of Content-Lengths", bytes: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 5\r\n\r\nabcde", status: 400, reason: "not a number"),
        .init(name: "a signed Content-Length", bytes: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nabcd", status: 400, reason: "not a number"),
        .init(name: "an enormous Content-Length", bytes: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999999\r\n\r\n", status: 400, reason: "not a number"),
        .init(name: "obs-fold", bytes: "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", status: 400, reason: "folded"),
        .init(name: "obs-fold before the first field", bytes: "GET / HTTP/1.1\r\n Host: a\r\n\r\n", status: 400, reason: "folded"),
        .init(name: "bare CR in a value", bytes: "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", status: 400, reason: "bare carriage return"),
        .init(name: "bare LF ending a line", bytes: "GET / HTTP/1.1\nHost: a\n\n", status: 400, reason: "bare line feed"),
        .init(name: "bare LF ending the section", bytes: "GET / HTTP/1.1\r\nHost: a\r\n\n", status: 400, reason: "bare line feed"),
        .init(name: "NUL in a value", bytes: "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", status: 400, reason: "control"),
        .init(name: "a control byte in a value", bytes: "GET / HTTP/1.1\r\nHost: a\r\nX: a\u{1}b\r\n\r\n", status: 400, reason: "control"),
        .init(name: "DEL in a value", bytes: "GET / HTTP/1.1\r\nHost: a\r\nX: a\u{7F}b\r\n\r\n", status: 400, reason: "control"),
        .init(name: "a space before the colon", bytes: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", status: 400, reason: "before its colon"),
        .init(name: "a field without a colon", bytes: "GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", status: 400, reason: "no colon"),
        .init(name: "a field without a name", bytes: "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", status: 400, reason: "no name"),
        .init(name: "gzip, chunked", bytes: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", status: 400, reason: "only transfer coding"),
        .init(name: "xchunked", bytes: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", status: 400, reason: "only transfer coding"),
        .init(name: "chunked twice", bytes: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", status: 400, reason: "only transfer coding"),
        .init(name: "Transfer-Encoding in HTTP/1.0", bytes: "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", status: 400, reason: "HTTP/1.0"),
        .init(name: "a chunk size that is no number", bytes: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", status: 400, reason: "chunk's size"),
        .init(name: "a chunk size with 0x", bytes: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x4\r\nabcd\r\n0\r\n\r\n", status: 400, reason: "chunk's size"),
        .init(name: "a chunk size with a space behind", bytes: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4 \r\nabcd\r\n0\r\n\r\n", status: 400, reason: "chunk's size"),
        .init(name: "a chunk size that overflows", bytes: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n", status: 400, reason: "too large"),
        .init(name: "a chunk longer than its size", bytes: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n", status: 400, reason: "where its size says"),
        .init(name: "a chunk size line ended by a bare LF", bytes: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\nabcd\r\n0\r\n\r\n", status: 400, reason: "chunk's size"),
        .init(name: "a bare LF in a chunk extension", bytes: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4;a\nb\r\nabcd\r\n0\r\n\r\n", status: 400, reason: "extension"),
        .init(name: "a bad trailer", bytes: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX : y\r\n\r\n", status: 400, reason: "before its colon"),
        .init(name: "an absolute target", bytes: "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", status: 400, reason: "begin with a slash"),
        .init(name: "an asterisk without OPTIONS", bytes: "GET * HTTP/1.1\r\nHost: a\r\n\r\n", status: 400, reason: "begin with a slash"),
        .init(name: "a fragment", bytes: "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", status: 400, reason: "percent-encoded"),
        .init(name: "a space in the target", bytes: "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", status: 400, reason: "percent-encoded"),
        .init(name: "a byte above ASCII in the target", bytes: "GET /ä HTTP/1.1\r\nHost: a\r\n\r\n", status: 400, reason: "percent-encoded"),
        .init(name: "no version", bytes: "GET /\r\nHost: a\r\n\r\n", status: 400, reason: "request line"),
        .init(name: "two spaces", bytes: "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", status: 400, reason: "percent-encoded"),
        .init(name: "HTTP/2.0", bytes: "GET / HTTP/2.0\r\nHost: a\r\n\r\n", status: 505, reason: "HTTP/1.1"),
        .init(name: "no Host", bytes: "GET / HTTP/1.1\r\nX: a\r\n\r\n", status: 400, reason: "Host"),
        .init(name: "two Hosts", bytes: "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", status: 400, reason: "Host"),
        .init(name: "CONNECT", bytes: "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", status: 501, reason: "CONNECT"),
        .init(name: "an upgrade", bytes: "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", status: 501, reason: "upgrades"),
        .init(name: "a method in lower case", bytes: "post / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", status: 400, reason: "parsed"),
        .init(name: "a request line that is too long", bytes: "GET /\(String(repeating: "a", count: 9000)) HTTP/1.1\r\nHost: a\r\n\r\n", status: 414, reason: "8192"),
        .init(name: "a header section that is too large", bytes: "GET / HTTP/1.1\r\nHost: a\r\n\(String(repeating: "X-Field: aaaaaaaaaaaaaaaaaaaaaaaa\r\n", count: 600))\r\n", status: 431, reason: "16384"),
        .init(name: "a field that is too large", bytes: "GET / HTTP/1.1\r\nHost: a\r\nX: \(String(repeating: "a", count: 20000))", status: 431, reason: "16384"),
    ]

    @Test("a malformed request is refused with a problem, and the connection closed", arguments: violations)
    func refuses(_ violation: Violation) async throws {
        try await withGuardedServer { port in
            let answer = try await withConnection(to: port) { peer in
                try await peer.send(violation.bytes)
                return await peer.rest()
            }
            try expectRefusal(answer, violation)
        }
    }

    @Test(
        "it makes no difference how a malformed request is sliced",
        arguments: violations.filter { $0.bytes.utf8.count < 1000 })
    func refusesSliced(_ violation: Violation) async throws {
        try await withGuardedServer { port in
            let answer = try await withConnection(to: port) { peer in
                // The connection may be closed while the rest is still being sent.
                try? await peer.sendSliced(violation.bytes)
                return await peer.rest()
            }
            try expectRefusal(answer, violation)
        }
    }

    private func expectRefusal(_ answer: String, _ violation: Violation) throws {
        let head = answer.components(separatedBy: "\r\n\r\n")
        #expect(answer.hasPrefix("HTTP/1.1 \(violation.status) "), "\(answer)")
        #expect(answer.contains("application/problem+json"))
        #expect(answer.lowercased().contains("connection: close"))
        #expect(answer.contains(violation.reason), "\(answer)")
        #expect(head.count == 2)
    }

    @Test("an error does not overtake the answer to the request before it")
    func keepsOrder() async throws {
        let gate = Gate()
        try await withGuardedServer { request, writer in
            await gate.wait()
            try await writer.send(.ok, [:], ByteBuffer(string: "first"))
        } _: { port in
            try await withConnection(to: port) { peer in
                try await peer.send("GET /one HTTP/1.1\r\nHost: a\r\n\r\nGET /two HTTP/1.1\r\nHost : a\r\n\r\n")
                gate.open()
                let first = try await peer.message()
                #expect(first.status == 200)
                #expect(first.body == "first")
                let second = try await peer.message()
                #expect(second.status == 400)
                #expect(await peer.rest() == "")
            }
        }
    }

    @Test("nothing behind a malformed request is ever handled")
    func dropsWhatFollows() async throws {
        let handled = Collected<String>()
        try await withGuardedServer { request, writer in
            handled.add(request.head.uri)
            try await writer.send(.ok, [:], ByteBuffer())
        } _: { port in
            let answer = try await withConnection(to: port) { peer in
                try await peer.send(
                    "POST /outer HTTP/1.1\r\nHost: a\r\nContent-Length: 44\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
                return await peer.rest()
            }
            #expect(answer.hasPrefix("HTTP/1.1 400"))
            #expect(handled.values.isEmpty)
        }
    }

    @Test("pipelined requests are answered in order, also sliced byte by byte")
    func pipelines() async throws {
        let three =
            "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n" + "POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
            + "POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nT: x\r\n\r\n"
        try await withGuardedServer { port in
            for sliced in [false, true] {
                try await withConnection(to: port) { peer in
                    if sliced { try await peer.sendSliced(three) } else { try await peer.send(three) }
                    let bodies = [try await peer.message().body, try await peer.message().body, try await peer.message().body]
                    #expect(bodies == ["GET /1 ", "POST /2 hello", "POST /3 abcde"])
                }
            }
        }
    }

    @Test("a client that waits for 100 (Continue) gets it when the body is read")
    func continues() async throws {
        try await withGuardedServer { port in
            try await withConnection(to: port) { peer in
                try await peer.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
                let interim = try await peer.message(hasBody: false)
                #expect(interim.status == 100)
                try await peer.send("hi")
                #expect(try await peer.message().body == "POST / hi")
            }
        }
    }

    @Test("who is answered without its body being read is not asked for it, and the connection ends")
    func refusesUnread() async throws {
        try await withGuardedServer { request, writer in
            try await writer.send(.payloadTooLarge, [:], ByteBuffer(string: "no"))
        } _: { port in
            try await withConnection(to: port) { peer in
                try await peer.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\nExpect: 100-continue\r\n\r\n")
                let answer = try await peer.message()
                #expect(answer.status == 413)
                #expect(answer.field("connection") == "close")
                #expect(await peer.rest() == "")
            }
        }
    }

    @Test("half a request is never taken for a whole one")
    func truncated() async throws {
        let bodies = Collected<String>()
        try await withGuardedServer { request, writer in
            var body = ByteBuffer()
            for try await piece in request.body { body.writeImmutableBuffer(piece) }
            bodies.add(String(buffer: body))
            try await writer.send(.ok, [:], ByteBuffer())
        } _: { port in
            for framing in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
                let answer = try await withConnection(to: port) { peer in
                    try await peer.send("POST / HTTP/1.1\r\nHost: a\r\n\(framing)")
                    try await peer.closeOutput()
                    return await peer.rest()
                }
                #expect(answer.hasPrefix("HTTP/1.1 400"))
            }
            #expect(bodies.values.isEmpty)
        }
    }

    @Test("who reads a body late, when it was dropped or has ended, never gets the next request's", arguments: [false, true])
    func staleReader(hasRead: Bool) async throws {
        let first = Promise<InboundBody>()
        let bodies = Collected<String>()
        try await withGuardedServer { request, writer in
            if request.head.uri == "/1" {
                if hasRead { for try await _ in request.body {} }
                first.keep(request.body)
            } else {
                var late = await first.value.makeAsyncIterator()
                if hasRead {
                    #expect(try await late.next() == nil)
                } else {
                    await #expect(throws: RequestRefusal.truncated) { try await late.next() }
                }
                for try await piece in request.body { bodies.add(String(buffer: piece)) }
            }
            try await writer.send(.ok, [:], ByteBuffer())
        } _: { port in
            try await withConnection(to: port) { peer in
                for (path, body) in [("/1", "hello"), ("/2", "world")] {
                    try await peer.send("POST \(path) HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n\(body)")
                    #expect(try await peer.message().status == 200)
                }
            }
        }
        #expect(bodies.values == ["world"])
    }

    @Test("HTTP/1.0 is answered without chunks, and closed unless it asked to be kept")
    func http10() async throws {
        try await withGuardedServer { request, writer in
            if request.head.uri == "/stream" {
                try await writer.begin(.ok, [:])
                try await writer.write(ByteBuffer(string: "abc"))
                try await writer.finish()
            } else {
                try await writer.send(.ok, [:], ByteBuffer(string: "abc"))
            }
        } _: { port in
            try await withConnection(to: port) { peer in
                try await peer.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                let kept = try await peer.message()
                #expect(kept.field("connection") == "keep-alive")
                #expect(kept.body == "abc")
                try await peer.send("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                let answer = await peer.rest()
                #expect(answer.hasSuffix("\r\n\r\nabc"))
                #expect(!answer.lowercased().contains("transfer-encoding"))
            }
        }
    }

    @Test("an answer to HEAD has no body and no last chunk")
    func head() async throws {
        try await withGuardedServer { request, writer in
            try await writer.begin(.ok, [:])
            try await writer.finish()
        } _: { port in
            try await withConnection(to: port) { peer in
                try await peer.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\nHEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                let answers = await peer.rest()
                #expect(answers.components(separatedBy: "\r\n\r\n").filter { $0.hasPrefix("HTTP/1.1 200") }.count == 2)
                #expect(answers.hasSuffix("\r\n\r\n") && !answers.contains("0\r\n\r\n"))
            }
        }
    }

    @Test("a client that says nothing is let go of after the idle time")
    func idles() async throws {
        try await withGuardedServer(idleTimeout: .milliseconds(50)) { port in
            try await withConnection(to: port) { peer in
                try await peer.send("GET / HTTP/1.1\r\nHo")
                #expect(await peer.rest() == "")
            }
        }
    }

    @Test("a client that takes nothing of its answer is let go of after the idle time", .timeLimit(.minutes(5)))
    func stuck() async throws {
        let ends = Collected<Void>()
        // Long enough that a busy machine has read the request before.
        try await withGuardedServer(idleTimeout: .seconds(5)) { request, writer in
            defer { ends.add(()) }
            try await writer.begin(.ok, [:])
            while true { try await writer.write(ByteBuffer(repeating: 0x61, count: 1 << 16)) }
        } _: { port in
            try await withConnection(to: port) { peer in
                try await peer.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                try await eventually({ !ends.values.isEmpty }, "the answer is given up")
            }
        }
    }

    // MARK: Support

    private func withGuardedServer(idleTimeout: TimeAmount = .seconds(30), _ body: (Int) async throws -> Void) async throws {
        try await withGuardedServer(idleTimeout: idleTimeout, { request, writer in
            var text = "\(request.head.method.rawValue) \(request.head.uri) "
            for try await piece in request.body { text += String(buffer: piece) }
            try await writer.send(.ok, ["content-type": "text/plain"], ByteBuffer(string: text))
        }, body)
    }

    private func withGuardedServer(
        idleTimeout: TimeAmount = .seconds(30), _ responder: @escaping StrictHTTP1Channel.Responder, _ body: (Int) async throws -> Void
    ) async throws {
        let ready = Promise<Int>()
        let server = StrictHTTP1Channel(idleTimeout: idleTimeout, responder: responder).server(
            configuration: .init(address: .hostname("127.0.0.1", port: 0)),
            onServerRunning: { ready.keep($0.localAddress!.port!) }, eventLoopGroup: MultiThreadedEventLoopGroup.singleton,
            logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }))
        let task = Task { try await server.run() }
        let result: Result<Void, any Error>
        do {
            try await body(await ready.value)
            result = .success(())
        } catch {
            result = .failure(error)
        }
        task.cancel()
        _ = await task.result
        try result.get()
    }
}
