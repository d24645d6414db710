internal import HummingbirdCore
package import Logging
package import NIOCore
package import NIOHTTP1
internal import SemelHTTP

/// One client connection over HTTP/1.1, guarded before its bytes are parsed (``RequestGuard``), whose requests are answered
/// one after the other, in the order they came.
///
/// Parts keep NIO's own types all the way, so that what passes through untouched really does.
package struct StrictHTTP1Channel: ServerChildChannel {
    package typealias Value = NIOAsyncChannel<HTTPServerRequestPart, HTTPServerResponsePart>
    package typealias Responder = @Sendable (InboundRequest, ResponseWriter) async throws -> Void

    private let idleTimeout: TimeAmount
    private let responder: Responder

    package init(idleTimeout: TimeAmount = .seconds(75), responder: @escaping Responder) {
        self.idleTimeout = idleTimeout
        self.responder = responder
    }

    package func setup(channel: any Channel, logger: Logger) -> EventLoopFuture<Value> {
        channel.eventLoop.makeCompletedFuture {
            try ReadBuffers.use(in: channel)
            let pipeline = channel.pipeline.syncOperations
            try pipeline.addHandler(RequestGuard())
            // ConnectionPersistence frames answers: unlike the encoder it knows what was asked.
            var encoding = HTTPResponseEncoder.Configuration()
            encoding.automaticallySetFramingHeaders = false
            var limits = NIOHTTPDecoderLimitConfiguration()
            limits.maxHeaderFieldSize = RequestFraming.headerSectionLimit + RequestFraming.requestLineLimit
            limits.maxHeaderFieldCount = RequestFraming.headerSectionLimit / 4
            try pipeline.configureHTTPServerPipeline(
                withPipeliningAssistance: false, withErrorHandling: false, withOutboundHeaderValidation: true,
                withEncoderConfiguration: encoding, withDecoderLimitConfiguration: limits)
            try pipeline.addHandler(ConnectionPersistence(idleTimeout: idleTimeout))
            return try NIOAsyncChannel(wrappingChannelSynchronously: channel, configuration: .init(isOutboundHalfClosureEnabled: true))
        }
    }

    package func handle(value connection: Value, logger: Logger) async {
        do {
            try await withTaskCancellationHandler {
                try await connection.executeThenClose { inbound, outbound in
                    try await serve(InboundBody.Reader(inbound.makeAsyncIterator(), outbound), outbound, connection.channel, logger)
                }
            } onCancel: {
                connection.channel.close(promise: nil)
            }
        } catch {
            ended(by: error, logger)
        }
    }

    /// Answers one request after the other.
    private func serve(
        _ reader: InboundBody.Reader, _ outbound: NIOAsyncChannelOutboundWriter<HTTPServerResponsePart>, _ channel: any Channel, _ logger: Logger
    ) async throws {
        let peer = channel.remoteAddress?.ipAddress ?? ""
        do {
            while let head = try await reader.nextHead() {
                let writer = ResponseWriter(outbound, reader, to: head)
                try await respond(InboundRequest(head: head, body: InboundBody(reader), peer: peer), writer, logger)
                guard await reader.skipRest(upTo: 0) else { break }
            }
        } catch where error is RequestRefusal || error is HTTPParserError {
            // Found before the request's head was through: whatever came before it has been answered.
            try await outbound.write(contentsOf: parts(refusing: error))
        }
        outbound.finish()
        try await linger(channel)
    }

    /// Reads a little longer, or a client that is still sending loses the answer to a reset.
    private func linger(_ channel: any Channel) async throws {
        let end = channel.eventLoop.scheduleTask(in: ConnectionPersistence.lingering) { channel.close(promise: nil) }
        try await channel.closeFuture.get()
        end.cancel()
    }

    // Not inlined: what these need would be kept with every request that waits.

    @inline(never)
    private func ended(by error: any Error, _ logger: Logger) {
        logger.trace("A client's connection ended.", metadata: ["reason": "\(error)"])
    }

    @inline(never)
    private func parts(refusing error: any Error) -> [HTTPServerResponsePart] {
        (error as? RequestRefusal ?? .malformed("The request cannot be parsed.")).parts
    }

    /// Answers one request. Throws when the connection can bear no further one.
    private func respond(_ request: InboundRequest, _ writer: ResponseWriter, _ logger: Logger) async throws {
        do {
            try await responder(request, writer)
            if !writer.isFinished { throw UnfinishedAnswer() }
        } catch where writer.hasBegun {
            // The client must see that the answer is not whole: no end, no last chunk.
            throw ChannelError.ioOnClosedChannel
        } catch let error as RequestRefusal {
            throw error
        } catch let error as HTTPParserError {
            throw error
        } catch {
            try await writer.send(failed(error, logger))
        }
    }

    @inline(never)
    private func failed(_ error: any Error, _ logger: Logger) -> HTTPAnswer {
        logger.error("A request could not be answered.", metadata: ["reason": "\(error)"])
        return ProblemDocument(
            status: 500, code: "internal-error", title: "The request could not be answered",
            detail: "Semel itself failed; its log says why.", isSafeForNewKey: false
        ).answer
    }

    private struct UnfinishedAnswer: Error {}
}

extension RequestRefusal {
    /// The whole answer.
    fileprivate var parts: [HTTPServerResponsePart] {
        let problem = ProblemDocument(status: status, code: code, title: "The request is not one that can be forwarded", detail: detail)
        var headers = problem.headers
        headers.add(name: "content-length", value: String(problem.body.readableBytes))
        headers.add(name: "connection", value: "close")
        return [
            .head(HTTPResponseHead(version: .http1_1, status: HTTPResponseStatus(statusCode: status), headers: headers)),
            .body(.byteBuffer(problem.body)), .end(nil),
        ]
    }
}
