import HTTPTypes
import Hummingbird
import NIOCore
import Semel
@testable import SemelHTTP
import SemelTesting
import Testing
#if canImport(Glibc)
import Glibc
#endif

@Suite("Bodies")
struct BodyTests {
    private struct Pieces: AsyncSequence, Sendable {
        let pieces: [ByteBuffer]
        struct Iterator: AsyncIteratorProtocol {
            var pieces: ArraySlice<ByteBuffer>
            mutating func next() async throws -> ByteBuffer? { pieces.popFirst() }
        }
        func makeAsyncIterator() -> Iterator { Iterator(pieces: pieces[...]) }
    }

    private func pieces(_ count: Int, of size: Int) -> Pieces {
        Pieces(pieces: (0..<count).map { index in ByteBuffer(bytes: (0..<size).map { UInt8(truncatingIfNeeded: index &* 31 &+ $0) }) })
    }

    private func whole(_ pieces: Pieces) -> ByteBuffer {
        pieces.pieces.reduce(into: ByteBuffer()) { $0.writeImmutableBuffer($1) }
    }

    @Test("a body is the same in memory and in the file, however it came, and can be read twice at once", arguments: [(0, 1), (1, 1), (3, 100), (1, 65_536), (1, 65_537), (7, 30_001), (40, 16_384)])
    func spooling(_ count: Int, _ size: Int) async throws {
        let spool = Spool(memoryLimit: 1000, budget: 10_000)
        let source = pieces(count, of: size)
        let body = try await spool.take(source, limit: .max)
        #expect((body.bytes != nil) == (count * size <= 1000))
        #expect(body.length == count * size)
        async let first = body.collect()
        async let second = body.collect()
        #expect(try await first == whole(source))
        #expect(try await second == whole(source))
    }

    @Test("memory beyond the budget is not taken, and is given back")
    func budget() async throws {
        let spool = Spool(memoryLimit: 1000, budget: 1500)
        var first: SpooledBody? = try await spool.take(pieces(1, of: 1000), limit: .max)
        #expect(first?.bytes != nil)
        let second = try await spool.take(pieces(1, of: 1000), limit: .max)
        #expect(second.bytes == nil)
        first = nil
        let third = try await spool.take(pieces(1, of: 1000), limit: .max)
        #expect(third.bytes != nil)
        _ = second
    }

    @Test("places in the file are used again, and it is empty when nothing is in it")
    func places() async throws {
        let spool = Spool(memoryLimit: 0, budget: 0)
        for _ in 0..<3 {
            let bodies = try await [spool.take(pieces(3, of: 50_000), limit: .max), spool.take(pieces(2, of: 50_000), limit: .max)]
            // Three and two extents, of which the last is not full.
            #expect((4 * 65_536 + 1...5 * 65_536).contains(spool.file.fileLength))
            #expect(try await bodies[0].collect() == whole(pieces(3, of: 50_000)))
            #expect(try await bodies[1].collect() == whole(pieces(2, of: 50_000)))
        }
        #expect(spool.file.fileLength == 0)
    }

    @Test("10,000 bodies of 64 KiB at once are held in memory only up to the budget")
    func manyBodies() async throws {
        let spool = Spool()
        let piece = Pieces(pieces: [ByteBuffer(repeating: 1, count: 65_536)])
        var bodies: [SpooledBody] = []
        for _ in 0..<10_000 { bodies.append(try await spool.take(piece, limit: 1 << 20)) }
        #expect(bodies.count(where: { $0.bytes != nil }) == (16 << 20) / 65_536)
        #expect(try await bodies[9_999].collect() == piece.pieces[0])
    }

    @Test("a spool that cannot be written is 503, and nothing runs")
    func unwritableSpool() async throws {
        try await TestService.run(spool: Spool(memoryLimit: 10, budget: 10, directory: "/nonexistent")) { service async throws in
            let reply = try await service.send(body: String(repeating: "x", count: 11))
            #expect(reply.status == 503 && reply.code == "store-unavailable" && service.runs.count == 0)
            #expect(try await service.send(body: "small").status == 201)
        }
    }

    @Test("a handler gets a body of any size whole, and its retry is recognised")
    func largeBodies() async throws {
        try await TestService.run(handler: { request, _ in
            let body = try await request.body.collect(upTo: 1 << 20)
            return Response(status: .ok, body: ResponseBody(byteBuffer: ByteBuffer(string: "\(Digest256(hashing: Array(buffer: body)))")))
        }) { service async throws in
            let body = ByteBuffer(bytes: (0..<(1 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) })
            #expect(try await service.send(bytes: body).text == "\(Digest256(hashing: Array(buffer: body)))")
            #expect(try await service.send(bytes: body).isReplay)
            var other = body
            other.setInteger(UInt8(0xFF), at: (1 << 20) - 1)
            #expect(try await service.send(bytes: other).code == "key-reused")
        }
    }

    @Test("gzip is decoded: another compression of the same content is the same request, and the handler gets what was sent")
    func gzip() async throws {
        let content = Array(String(repeating: #"{"amount":1}"#, count: 1).utf8)
        try await TestService.run(.test { $0.fingerprint = .canonicalJSON }, handler: { request, _ in
            Response(status: .ok, body: ResponseBody(byteBuffer: try await request.body.collect(upTo: 1 << 20)))
        }) { service async throws in
            let coded = gzipped(content)
            let first = try await service.send(bytes: ByteBuffer(bytes: coded), [("Content-Encoding", "gzip")])
            #expect(first.status == 200 && first.body == coded)
            #expect(try await service.send(bytes: ByteBuffer(bytes: gzipped(Array(content[..<5])) + gzipped(Array(content[5...]))), [("Content-Encoding", "x-gzip")]).isReplay)
            #expect(try await service.send(bytes: ByteBuffer(bytes: content)).isReplay)
            #expect(try await service.send(bytes: ByteBuffer(bytes: coded.dropLast(9)), [("Content-Encoding", "gzip")]).code == "body-malformed")
            #expect(try await service.send(bytes: ByteBuffer(bytes: content), [("Content-Encoding", "gzip")]).code == "body-malformed")
            #expect(try await service.send(bytes: ByteBuffer(bytes: content), [("Content-Encoding", "br")]).code == "body-malformed")
        }
    }

    @Test("a body that is small as it is sent and huge when it is decoded is 413")
    func bomb() async throws {
        try await TestService.run { service async throws in
            let coded = gzipped([UInt8](repeating: 0, count: 1 << 20))
            #expect(try await service.send(bytes: ByteBuffer(bytes: coded), [("Content-Encoding", "gzip")]).status == 201)
            let bomb = gzipped([UInt8](repeating: 0, count: (1 << 20) + 1))
            let reply = try await service.send(key: #""bomb""#, bytes: ByteBuffer(bytes: bomb), [("Content-Encoding", "gzip")])
            #expect(reply.status == 413 && service.runs.count == 1)
        }
    }

    private func gzipped(_ content: [UInt8]) -> [UInt8] { GzipSample.compress(content) }
}
