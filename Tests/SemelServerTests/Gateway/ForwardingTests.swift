import Foundation
import NIOCore
import NIOSSL
import Semel
import Testing

@testable import SemelServer

/// What goes through to an upstream and back, byte by byte, against raw sockets on both sides.
@Suite("Forwarding")
struct ForwardingTests {
    /// Sends bytes through a gateway whose scene covers /v1 only, and returns every answer until the connection ends.
    private func exchange(_ upstream: UpstreamUnderTest, _ bytes: String, top: [String] = []) async throws -> String {
        let result = Promise<String>()
        try await GatewayUnderTest.run(try ServerConfiguration.gateway(upstream.port, top: top)) { gateway in
            result.keep(
                try await withConnection(to: gateway.port) { peer in
                    try await peer.send(bytes)
                    return await peer.rest()
                })
        }
        return await result.value
    }

    private static func request(_ path: String, _ fields: [String] = [], _ body: String = "") -> String {
        let key = path.hasPrefix("/v1") ? "Idempotency-Key: \"k\"\r\n" : ""
        return "POST \(path) HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\(key)" + fields.map { $0 + "\r\n" }.joined()
            + (fields.contains { $0.hasPrefix("Transfer-Encoding") } ? "\r\n" : "Content-Length: \(body.utf8.count)\r\n\r\n") + body
    }

    // MARK: Fields

    @Test("what is about one connection, and what Connection names, is not forwarded", arguments: ["/v1/a", "/untouched"])
    func hopByHop(path: String) async throws {
        let upstream = try await UpstreamUnderTest { _ in
            .answer(201, [("Connection", "keep-alive, X-Mine"), ("X-Mine", "1"), ("Keep-Alive", "timeout=5"), ("Upgrade", "h2c"), ("X-Kept", "yes")], "made")
        }
        let answer = try await exchange(
            upstream,
            Self.request(path, [
                "Connection: X-Secret , x-OTHER", "X-Secret: 1", "X-Other: 2", "Keep-Alive: timeout=5", "Proxy-Connection: keep-alive",
                "Proxy-Authorization: Basic eA==", "TE: trailers, deflate", "Upgrade: h2c", "Trailer: X-Sum", "Expect: nothing", "X-Kept: a", "x-kept: b",
            ]))
        let seen = try #require(upstream.requests.values.first)
        for name in ["x-secret", "x-other", "keep-alive", "proxy-connection", "proxy-authorization", "upgrade", "trailer", "expect", "semel-dispatch"] {
            #expect(seen.field(name) == nil, "\(name)")
        }
        // Trailers of the answer are passed on, so this connection may say so too.
        #expect(seen.all("te") == ["trailers"] && seen.all("connection") == ["TE"])
        #expect(seen.all("x-kept") == ["a", "b"])
        #expect(seen.all("host") == ["127.0.0.1:\(upstream.port)"])
        #expect(seen.all("x-forwarded-host") == ["shop.example"])
        #expect(seen.all("via") == ["1.1 semel"])
        #expect(answer.hasPrefix("HTTP/1.1 201"))
        for name in ["x-mine", "keep-alive", "upgrade"] { #expect(!answer.lowercased().contains("\r\n\(name):"), "\(name)") }
        #expect(answer.contains("X-Kept: yes") && answer.hasSuffix("made"))
    }

    @Test("what only Semel or a proxy may say is believed from trusted peers alone", arguments: [false, true])
    func spoofed(isTrusted: Bool) async throws {
        let upstream = try await UpstreamUnderTest.making()
        _ = try await exchange(
            upstream,
            Self.request("/untouched", [
                "X-Forwarded-For: 10.1.1.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil.example", "Forwarded: for=10.1.1.1",
                "Semel-Epoch: 99", "semel-anything: 1", "X-Forwarded-User: root",
            ]), top: isTrusted ? ["trusted: [127.0.0.0/8]"] : [])
        let seen = try #require(upstream.requests.values.first)
        #expect(seen.all("x-forwarded-for") == [isTrusted ? "10.1.1.1, 127.0.0.1" : "127.0.0.1"])
        #expect(seen.all("x-forwarded-proto") == [isTrusted ? "https" : "http"])
        #expect(seen.all("x-forwarded-host") == [isTrusted ? "evil.example" : "shop.example"])
        for name in ["forwarded", "semel-epoch", "semel-anything", "x-forwarded-user"] { #expect((seen.field(name) != nil) == isTrusted, "\(name)") }
    }

    @Test("a trace is continued, or begun, for what is under a scene")
    func trace() async throws {
        let upstream = try await UpstreamUnderTest.making()
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        _ = try await exchange(upstream, Self.request("/v1/a", ["traceparent: 00-\(trace)-00f067aa0ba902b7-01"]))
        let parent = try #require(upstream.requests.values.first?.field("traceparent"))
        #expect(parent.hasPrefix("00-\(trace)-") && !parent.contains("00f067aa0ba902b7"))
        _ = try await exchange(upstream, Self.request("/v1/b", ["traceparent: nonsense"]))
        #expect(try #require(upstream.requests.values.last?.field("traceparent")).utf8.count == 55)
    }

    // MARK: Routes

    @Test("a scene cannot be evaded by writing the path differently, and the path goes on as it was written", arguments: [
        "/v1/pay", "/%76%31/pay", "//v1//pay", "/v1%2Fpay", "/v1\\pay", "/v1/pay?x=/../", "/v1/pay/",
    ])
    func matched(path: String) async throws {
        let upstream = try await UpstreamUnderTest.making()
        let answer = try await exchange(upstream, Self.request(path).replacing("Connection: close", with: "Connection: close\r\nIdempotency-Key: \"x\"").replacing("Idempotency-Key: \"k\"\r\n", with: ""))
        #expect(answer.contains("Semel-Guarantee"), "\(answer)")
        #expect(upstream.requests.values.map(\.target) == [path])
    }

    @Test("a path that can be read in two ways is refused, and nothing is forwarded", arguments: [
        "/a/../v1/pay", "/a/%2e%2E/v1/pay", "/./v1/pay", "/a/..;x/v1/pay", "/v1/%zz", "/v1/%00",
    ])
    func ambiguous(path: String) async throws {
        let upstream = try await UpstreamUnderTest.making()
        let answer = try await exchange(upstream, Self.request(path))
        #expect(answer.hasPrefix("HTTP/1.1 400") && answer.contains("path-ambiguous"), "\(answer)")
        #expect(upstream.requests.values.isEmpty)
    }

    @Test("an upgrade is refused, and an upstream that switches protocols has not answered", arguments: ["/v1/a", "/untouched"])
    func upgrade(path: String) async throws {
        let upstream = try await UpstreamUnderTest { _ in .raw("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nbinary") }
        let refused = try await exchange(upstream, Self.request(path, ["Upgrade: websocket"]))
        #expect(refused.hasPrefix("HTTP/1.1 501") && refused.contains("upgrade-unsupported"))
        #expect(upstream.requests.values.isEmpty)
        let lost = try await exchange(upstream, Self.request(path))
        #expect(lost.hasPrefix("HTTP/1.1 502") && lost.contains("upstream-lost"), "\(lost)")
    }

    // MARK: Interim answers and trailers

    static let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 7\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"

    @Test("an answer before the answer is passed on where nothing is recorded, and never taken for the answer")
    func interimUntouched() async throws {
        let upstream = try await UpstreamUnderTest { _ in .raw(Self.interim + "HTTP/1.1 201 Made\r\nContent-Length: 4\r\n\r\nmade") }
        let answer = try await exchange(upstream, Self.request("/untouched"))
        // 100 is between two neighbours: whoever waited for it has got it from the gateway.
        let heads = answer.components(separatedBy: "\r\n\r\n").filter { $0.hasPrefix("HTTP/1.1") }
        #expect(heads.map { $0.prefix(12) } == ["HTTP/1.1 103", "HTTP/1.1 102", "HTTP/1.1 201"], "\(answer)")
        #expect(heads[0].contains("Link: </a>") && !heads[0].lowercased().contains("content-length"))
        #expect(answer.hasSuffix("made"))
        // HTTP/1.0 knows none.
        let old = try await exchange(upstream, "GET /untouched HTTP/1.0\r\n\r\n")
        #expect(old.hasPrefix("HTTP/1.0 201") || old.hasPrefix("HTTP/1.1 201"))
    }

    @Test("under a scene nothing is told before the outcome is recorded, and what is recorded is the final answer")
    func interimRecorded() async throws {
        let upstream = try await UpstreamUnderTest { _ in .raw(Self.interim + "HTTP/1.1 201 Made\r\nContent-Length: 4\r\n\r\nmade") }
        try await GatewayUnderTest.run(try ServerConfiguration.gateway(upstream.port)) { gateway in
            for round in 1...2 {
                let answer = try await withConnection(to: gateway.port) { peer in
                    try await peer.send(Self.request("/v1/a"))
                    return await peer.rest()
                }
                #expect(answer.hasPrefix("HTTP/1.1 201") && answer.hasSuffix("made"), "\(answer)")
                #expect(answer.contains("Idempotent-Replayed: true") == (round == 2))
            }
            #expect(upstream.requests.values.count == 1)
        }
    }

    @Test("interim answers and then nothing: lost", arguments: ["/v1/a", "/untouched"])
    func interimAlone(path: String) async throws {
        let upstream = try await UpstreamUnderTest { _ in .raw(Self.interim) }
        let answer = try await exchange(upstream, Self.request(path))
        let last = try #require(answer.components(separatedBy: "HTTP/1.1 ").last)
        #expect(last.hasPrefix("502") && last.contains("upstream-lost"), "\(answer)")
    }

    static let trailing = "3\r\nabc\r\n0\r\nX-Sum: 1\r\nContent-Digest: d\r\nSemel-Epoch: 9\r\nX-Forwarded-For: 1.2.3.4\r\nAuthorization: root\r\nHost: evil\r\n\r\n"

    @Test("a request's trailers go on where nothing is recorded, but for those that only a header section may have")
    func requestTrailers() async throws {
        let upstream = try await UpstreamUnderTest.making()
        let answer = try await exchange(
            upstream, Self.request("/untouched", ["Transfer-Encoding: chunked", "Trailer: X-Sum, Content-Digest"], Self.trailing))
        #expect(answer.hasPrefix("HTTP/1.1 201"))
        let seen = try #require(upstream.requests.values.first)
        #expect((seen.body, seen.trailers) == ("abc", "X-Sum: 1\r\nContent-Digest: d\r\n"))
        #expect(seen.field("trailer") == "X-Sum, Content-Digest")
    }

    @Test("under a scene a request's trailers are dropped: they are not part of what is compared")
    func requestTrailersUnderScene() async throws {
        let upstream = try await UpstreamUnderTest.making()
        _ = try await exchange(upstream, Self.request("/v1/a", ["Transfer-Encoding: chunked", "Trailer: X-Sum"], Self.trailing))
        let seen = try #require(upstream.requests.values.first)
        #expect((seen.body, seen.trailers, seen.field("content-length")) == ("abc", "", "3"))
        #expect(seen.field("trailer") == nil && seen.field("x-sum") == nil)
    }

    @Test("an answer's trailers come through, and with the replay", arguments: ["/v1/a", "/untouched"])
    func responseTrailers(path: String) async throws {
        let upstream = try await UpstreamUnderTest { _ in
            .raw("HTTP/1.1 201 Made\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\nContent-Type: text/html\r\nSet-Cookie: a=b\r\n\r\n")
        }
        try await GatewayUnderTest.run(try ServerConfiguration.gateway(upstream.port)) { gateway in
            for _ in 1...2 {
                let message = try await withConnection(to: gateway.port) { peer in
                    try await peer.send(Self.request(path))
                    return try await peer.message()
                }
                #expect((message.status, message.body, message.trailers) == (201, "abc", "X-Sum: 1\r\n"))
            }
        }
    }

    // MARK: Bodies

    @Test("a body too large to compare is 413 at once, and its connection ends", arguments: ["Content-Length: 3000000", "Transfer-Encoding: chunked"])
    func tooLarge(framing: String) async throws {
        let upstream = try await UpstreamUnderTest.making()
        try await GatewayUnderTest.run(try ServerConfiguration.gateway(upstream.port, scene: "limits: { request: 10KiB }")) { gateway in
            try await withConnection(to: gateway.port) { peer in
                let piece = String(repeating: "x", count: 20_000)
                try await peer.send("POST /v1/a HTTP/1.1\r\nHost: a\r\nIdempotency-Key: \"k\"\r\n\(framing)\r\n\r\n")
                // The client means to send more, and waits.
                if framing.hasPrefix("T") { try await peer.send("\(String(piece.utf8.count, radix: 16))\r\n\(piece)\r\n") }
                let answer = try await peer.message()
                #expect((answer.status, answer.field("connection")) == (413, "close"))
                #expect(answer.body.contains("urn:semel:request-too-large"))
                #expect(await peer.rest() == "")
            }
            #expect(upstream.requests.values.isEmpty)
            #expect(try await gateway.record("k") == nil)
        }
    }

    @Test("an upstream that answers before it has read the body does not get the next request's")
    func earlyAnswer() async throws {
        let bodies = Collected<String>()
        let server = try await RawServer { peer in
            let head = try await peer.read(through: "\r\n\r\n")
            guard head.hasPrefix("PUT") else {
                try await peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext")
                return
            }
            try await peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly")
            while peer.buffer.readableBytes < 10, try await peer.more() {}
            bodies.add(peer.text)
        }
        try await GatewayUnderTest.run(try ServerConfiguration.gateway(server.port)) { gateway in
            try await withConnection(to: gateway.port) { peer in
                try await peer.send("PUT /untouched HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
                let answer = try await peer.message()
                #expect((answer.body, answer.field("connection")) == ("early", "close"))
                // The rest of the body, looking like a request, and a request.
                try? await peer.send("worldPOST /smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
                #expect(await peer.rest() == "")
            }
            await bodies.wait(for: 1)
            #expect(bodies.values == ["helloworld"])
            #expect(server.connections == 1)
        }
    }

    static let hundredMegabytes = 100 << 20
    /// What the sockets between two processes hold by themselves, on each of the two hops.
    static let heldBack = 64 << 20

    @Test("100 MB go up an untouched route as fast as the upstream takes them, and no faster: the gateway holds none of it")
    func streamsUp() async throws {
        let gate = Gate()
        let received = Locked(0)
        let server = try await RawServer { peer in
            _ = try await peer.read(through: "\r\n\r\n")
            await gate.wait()
            while received.withLock({ $0 += peer.buffer.readableBytes; return $0 }) < Self.hundredMegabytes {
                peer.buffer.clear()
                guard try await peer.more() else { return }
            }
            try await peer.send("HTTP/1.1 201 Made\r\nContent-Length: 0\r\n\r\n")
        }
        try await GatewayUnderTest.run(try ServerConfiguration.gateway(server.port)) { gateway in
            try await withConnection(to: gateway.port) { peer in
                let sent = Locked(0)
                try await peer.send("PUT /untouched HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: \(Self.hundredMegabytes)\r\n\r\n")
                async let sending: Void = {
                    let piece = ByteBuffer(repeating: 0x61, count: 1 << 20)
                    for _ in 0..<100 {
                        try await peer.sendThrough(piece)
                        sent.withLock { $0 += 1 << 20 }
                    }
                }()
                try await Self.untilStill { sent.withLock { $0 } }
                #expect(sent.withLock { $0 } < Self.heldBack)
                gate.open()
                try await sending
                #expect(try await peer.message().status == 201)
                #expect(received.withLock { $0 } == Self.hundredMegabytes)
            }
        }
    }

    @Test("100 MB come down an untouched route as fast as the client takes them, and no faster")
    func streamsDown() async throws {
        let sent = Locked(0)
        let server = try await RawServer { peer in
            _ = try await peer.read(through: "\r\n\r\n")
            try await peer.send("HTTP/1.1 200 OK\r\nContent-Length: \(Self.hundredMegabytes)\r\n\r\n")
            let piece = ByteBuffer(repeating: 0x61, count: 1 << 20)
            for _ in 0..<100 {
                try await peer.sendThrough(piece)
                sent.withLock { $0 += 1 << 20 }
            }
        }
        try await GatewayUnderTest.run(try ServerConfiguration.gateway(server.port)) { gateway in
            try await withConnection(to: gateway.port) { peer in
                try await peer.send("GET /untouched HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                _ = try await peer.read(through: "\r\n\r\n")
                try await Self.untilStill { sent.withLock { $0 } }
                #expect(sent.withLock { $0 } < Self.heldBack)
                var received = 0
                repeat {
                    received += peer.buffer.readableBytes
                    peer.buffer.clear()
                } while try await peer.more()
                #expect(received == Self.hundredMegabytes)
            }
        }
    }

    /// Waits until a figure that has begun to rise does not any more.
    private static func untilStill(_ figure: () -> Int) async throws {
        var (last, rounds) = (0, 0)
        while rounds < 6 {
            try await Task.sleep(for: .milliseconds(50))
            let now = figure()
            rounds = now == last && now > 0 ? rounds + 1 : 0
            last = now
        }
    }

    // MARK: TLS

    @Test("an upstream's certificate is verified: by the authorities that the configuration names, and for its name")
    func tls() async throws {
        try await withTemporaryFolder { folder in
            let files = try TestCertificate.write(to: folder)
            let context = try NIOSSLContext(
                configuration: .makeServerConfiguration(
                    certificateChain: try NIOSSLCertificate.fromPEMFile(files.certificate).map { .certificate($0) },
                    privateKey: .privateKey(try NIOSSLPrivateKey(file: files.key, format: .pem))))
            let upstream = try await UpstreamUnderTest(tls: context) { $0.target == "/authorize" ? .answer(204) : .answer(201, [], "made") }
            func post(_ url: String, trusts: Bool) async throws -> PlaneAnswer {
                let answer = Promise<PlaneAnswer>()
                let configuration = try ServerConfiguration.gateway(
                    "{ url: \"\(url)\"\(trusts ? ", tls: { authorities: \(files.certificate) }" : "") }", scene: "authorize: \"\(url)/authorize\"")
                try await GatewayUnderTest.run(configuration) { answer.keep(try await $0.post()) }
                return await answer.value
            }
            for host in ["localhost", "127.0.0.1"] {
                let trusted = try await post("https://\(host):\(upstream.port)", trusts: true)
                #expect((trusted.status, trusted.text) == (201, "made"), "\(host)")
            }
            #expect(upstream.requests.values.map(\.target) == ["/authorize", "/v1/payments", "/authorize", "/v1/payments"])
            #expect(upstream.requests.values.last?.field("host") == "127.0.0.1:\(upstream.port)")

            // Nobody the system trusts has signed it. Nothing is asked, and nothing is sent.
            #expect(try await post("https://localhost:\(upstream.port)", trusts: false).code == "authorization-unavailable")
            #expect(upstream.requests.values.count == 4)
        }
    }

    @Test("an upstream with another's certificate, or without TLS at all, is sent nothing")
    func tlsMismatch() async throws {
        try await withTemporaryFolder { folder in
            let files = try TestCertificate.write(to: folder)
            let context = try NIOSSLContext(
                configuration: .makeServerConfiguration(
                    certificateChain: try NIOSSLCertificate.fromPEMFile(files.certificate).map { .certificate($0) },
                    privateKey: .privateKey(try NIOSSLPrivateKey(file: files.key, format: .pem))))
            // The certificate is for localhost and 127.0.0.1.
            let other = try await UpstreamUnderTest(host: "127.0.0.2", tls: context) { _ in .answer(201) }
            let plain = try await RawServer { _ = await $0.rest() }
            for url in ["https://127.0.0.2:\(other.port)", "https://127.0.0.1:\(other.port)", "https://127.0.0.1:\(plain.port)"] {
                let configuration = try ServerConfiguration.gateway("{ url: \"\(url)\", connect: 300ms, tls: { authorities: \(files.certificate) } }")
                try await GatewayUnderTest.run(configuration) { gateway in
                    let answer = try await gateway.post()
                    #expect((answer.status, answer.code) == (502, "upstream-refused"), "\(url): \(answer.text)")
                    #expect(answer["safe_new_key"]?.bool == true)
                }
            }
            #expect(other.requests.values.isEmpty)
        }
    }
}
