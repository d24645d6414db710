internal import AsyncHTTPClient
package import NIOCore
package import NIOHTTP1
internal import SemelHTTP

/// An upstream's answer, whose body is still coming. Letting go of it before its end gives up the rest and closes the
/// connection it came over.
package final class UpstreamResponse: Sendable {
    package let status: HTTPResponseStatus
    package let headers: HTTPHeaders
    private let response: HTTPClientResponse
    private let dispatch: Dispatch
    private let place: Turnstile.Place
    /// Its connections live as long as answers come over them.
    private let client: UpstreamClient

    init(_ response: HTTPClientResponse, to dispatch: Dispatch, in place: Turnstile.Place, of client: UpstreamClient) {
        status = response.status
        headers = response.headers
        self.response = response
        self.dispatch = dispatch
        self.place = place
        self.client = client
    }

    /// Hands out the body piece by piece, once; asks for no more than is taken. Returns the trailers.
    /// - Throws: ``UpstreamFailure/lost(_:timedOut:)`` when the upstream did not finish, and what `body` throws.
    package func forEachPiece(_ body: (ByteBuffer) async throws -> Void) async throws -> HTTPHeaders? {
        var pieces = response.body.makeAsyncIterator()
        while true {
            let piece: ByteBuffer?
            do {
                piece = try await pieces.next()
            } catch {
                throw UpstreamFailure.lost("The upstream's answer broke off: \(error.plainText).", timedOut: error.isTimeout)
            }
            guard let piece else { break }
            try await body(piece)
        }
        place.leave()
        return ForwardedFields.trailers(dispatch.trailers)
    }

    /// The whole body, when it has at most `limit` bytes; `nil` when it has more.
    package func collect(upTo limit: Int) async throws -> ByteBuffer? {
        var whole = ByteBuffer()
        do {
            _ = try await forEachPiece { piece in
                guard whole.readableBytes + piece.readableBytes <= limit else { throw TooLarge() }
                whole.writeImmutableBuffer(piece)
            }
        } catch is TooLarge {
            return nil
        }
        return whole
    }

    private struct TooLarge: Error {}
}

extension Error {
    var isTimeout: Bool {
        switch self as? HTTPClientError {
        case .readTimeout, .writeTimeout, .connectTimeout, .deadlineExceeded, .getConnectionFromPoolTimeout, .tlsHandshakeTimeout: true
        default: false
        }
    }
}
