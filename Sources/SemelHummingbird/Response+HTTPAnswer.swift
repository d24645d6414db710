internal import HTTPTypes
internal import Hummingbird
internal import NIOCore
internal import Semel
internal import SemelHTTP

extension HTTPAnswer {
    /// A handler's response. A body that is small for sure is written into memory here; of others the engine takes as much as
    /// it may keep.
    init(_ response: Response, limit: Int) async throws {
        if let length = response.body.contentLength, length <= limit {
            let held = HeldBody()
            try await response.body.write(HeldBody.Writer(body: held))
            self.init(response.head, .bytes(held.bytes, trailers: held.trailers))
        } else {
            let body = response.body
            self.init(
                response.head,
                .stream(length: body.contentLength) { send in
                    let held = HeldBody()
                    try await body.write(SendingWriter(send: send, trailers: held))
                    return held.trailers
                })
        }
    }
}

extension Response {
    init(_ answer: HTTPAnswer) {
        switch answer.body {
        case .bytes(let bytes, nil):
            self.init(status: answer.head.status, headers: answer.head.headerFields, body: ResponseBody(byteBuffer: bytes))
            // RFC 9110 §8.6: these have no body, and no length of one.
            if status == .noContent || status == .notModified { headers[.contentLength] = nil }
        case .bytes(let bytes, let trailers?):
            self.init(
                answer.head,
                ResponseBody { writer in
                    try await writer.write(bytes)
                    try await writer.finish(trailers)
                })
        case .stream(let length, let produce):
            self.init(
                answer.head,
                ResponseBody(contentLength: length) { writer in
                    let lent = LentWriter(writer)
                    let trailers = try await produce { piece in try await lent.writer.write(piece) }
                    try await lent.writer.finish(trailers)
                })
        }
    }

    /// With the length of the body, or none where it is not known, or where trailers follow.
    private init(_ head: HTTPResponse, _ body: ResponseBody) {
        self.init(status: head.status, headers: head.headerFields, body: body)
        headers[.contentLength] = body.contentLength.map(String.init)
    }
}

extension RequestBody {
    init(_ body: SpooledBody) {
        if let bytes = body.bytes { self.init(buffer: bytes) } else { self.init(asyncSequence: body) }
    }
}

/// A body that was written into memory.
private final class HeldBody: @unchecked Sendable {
    // Sendable is unchecked: only the one task that writes, and then reads, has it.
    var bytes = ByteBuffer()
    var trailers: HTTPFields?

    struct Writer: ResponseBodyWriter {
        let body: HeldBody

        func write(_ buffer: ByteBuffer) {
            if body.bytes.readableBytes == 0 { body.bytes = buffer } else { body.bytes.writeImmutableBuffer(buffer) }
        }

        consuming func finish(_ trailingHeaders: HTTPFields?) { body.trailers = trailingHeaders }
    }
}

private struct SendingWriter: ResponseBodyWriter {
    let send: HTTPAnswer.Send
    let trailers: HeldBody

    func write(_ buffer: ByteBuffer) async throws { try await send(buffer) }

    consuming func finish(_ trailingHeaders: HTTPFields?) { trailers.trailers = trailingHeaders }
}

/// A writer that a closure may call from where it likes, one call at a time.
private final class LentWriter: @unchecked Sendable {
    // Sendable is unchecked: pieces are sent one after the other.
    var writer: any ResponseBodyWriter

    init(_ writer: any ResponseBodyWriter) {
        self.writer = writer
    }
}
