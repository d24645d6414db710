internal import HTTPTypes
internal import NIOCore
internal import Semel

extension HTTPScene {
    /// `mode: observe`: what enforcing would have done is recorded and counted, and nobody is turned away, whatever is wrong
    /// with key, scope or body.
    func observe<RequestBody: AsyncSequence & Sendable>(
        _ exchange: HTTPExchange, _ source: RequestBody, _ run: @escaping Handler
    ) async throws -> HTTPAnswer where RequestBody.Element == ByteBuffer {
        let request = exchange.request
        if let length = request.declaredLength, length > policy.requestLimit {
            observer.observe(.wouldReject(.requestTooLarge), scene: scene, operation: nil)
            return await unprotected(SpooledBody(passing: source), nil, run)
        }
        let body = try await spool.take(source, limit: .max)
        do throws(HTTPProblem) {
            let scope = try scope(of: exchange)
            let (key, bodyKey) = try key(of: request)
            try checkAge(of: request, key: key)
            guard let length = body.length, length <= policy.requestLimit else { throw tooLarge }
            guard let call = try await call(exchange, scope, key, bodyKey, body) else { return await unprotected(body, nil, run) }
            return await begin(call, body, exchange, run)
        } catch {
            observer.observe(.wouldReject(error.code), scene: scene, operation: nil)
            return await unprotected(body, nil, run)
        }
    }
}
