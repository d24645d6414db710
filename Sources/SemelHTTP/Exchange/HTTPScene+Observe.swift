internal import HTTPTypes
internal import NIOCore
internal import Semel

extension HTTPScene {
    /// `mode: observe`: what enforcing would have done is recorded and counted, and nobody is turned away, whatever is wrong
    /// with key, scope or body. A body that is too large to compare, or cannot be held, passes through unobserved.
    func observe<RequestBody: AsyncSequence & Sendable>(
        _ exchange: HTTPExchange, _ source: RequestBody, _ run: @escaping Handler
    ) async throws -> HTTPAnswer where RequestBody.Element == ByteBuffer {
        let request = exchange.request
        if let length = request.declaredLength, length > policy.requestLimit {
            observer.observe(.wouldReject(.requestTooLarge), scene: scene, operation: nil)
            return await unprotected(SpooledBody(passing: source), nil, run)
        }
        let (body, reason) = try await spool.takeOrPass(source, limit: policy.requestLimit)
        do throws(HTTPProblem) {
            let scope = try scope(of: exchange)
            let (key, bodyKey) = try key(of: request)
            try checkAge(of: request, key: key)
            if let reason { throw reason is BodyTooLarge ? tooLarge : notHeld(reason) }
            guard let claim = try await claim(exchange, scope, key, bodyKey, body) else { return await unprotected(body, nil, run) }
            return await begin(claim, body, exchange, run)
        } catch {
            observer.observe(.wouldReject(error.code), scene: scene, operation: nil)
            return await unprotected(body, nil, run)
        }
    }
}
