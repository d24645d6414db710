internal import HTTPTypes
internal import NIOCore
internal import Semel

extension HTTPScene {
    /// Takes a request's body in, as far as it may be compared.
    /// - Throws: ``HTTPProblem``, and what reading the body throws.
    func take<RequestBody: AsyncSequence>(_ request: HTTPRequest, _ source: RequestBody) async throws -> SpooledBody
    where RequestBody.Element == ByteBuffer {
        if let length = request.declaredLength, length > policy.requestLimit { throw tooLarge }
        do {
            return try await spool.take(source, limit: policy.requestLimit)
        } catch is BodyTooLarge {
            throw tooLarge
        } catch let error as SpoolError {
            throw notHeld(error)
        }
    }

    func notHeld(_ error: any Error) -> HTTPProblem {
        HTTPProblem(.storeUnavailable, "The request's body cannot be held: \(error)", retryAfter: 30)
    }

    /// What the request asks for, and its key where that is part of the body.
    ///
    /// The fingerprint is over method, path, query, media type, and the body with `gzip` decoded. Of other content codings
    /// the coded bytes are taken, together with the coding's name.
    func fingerprint(_ request: HTTPRequest, _ body: SpooledBody, _ keySource: BodyKey?) async throws(HTTPProblem) -> (Fingerprint, OperationKey?) {
        do {
            guard policy.fingerprint == .raw, keySource == nil else { return try compare(request, try await body.collect(), keySource) }
            if let bytes = body.bytes { return (try raw(request, bytes), nil) }
            var content = RawContent(request, limit: policy.requestLimit)
            for try await piece in body { try content.take(piece) }
            return (try content.finish(), nil)
        } catch {
            throw problem(with: error)
        }
    }

    // None of these is inlined: what they need would be kept with the request while its body is read.

    @inline(never)
    private func raw(_ request: HTTPRequest, _ bytes: ByteBuffer) throws -> Fingerprint {
        var content = RawContent(request, limit: policy.requestLimit)
        if bytes.readableBytes > 0 { try content.take(bytes) }
        return try content.finish()
    }

    @inline(never)
    private func compare(_ request: HTTPRequest, _ body: ByteBuffer, _ keySource: BodyKey?) throws -> (Fingerprint, OperationKey?) {
        var builder = FingerprintBuilder(request, mode: policy.fingerprint.mode)
        let coding = request.contentCoding
        let content = try decoded(body, coding)
        builder.update(content)
        let key = try keySource?.key(in: content)
        return (try builder.finish().coded(coding), key)
    }

    @inline(never)
    private func problem(with error: any Error) -> HTTPProblem {
        switch error {
        case let problem as HTTPProblem: problem
        case GzipDecoder.Failure.tooLarge: tooLarge
        case GzipDecoder.Failure.malformed: malformed("The body is not the gzip that Content-Encoding says it is.")
        case let error as JSONError: malformed("The body is not the JSON this request must have: \(error).")
        default: HTTPProblem(.storeUnavailable, "The request's body cannot be read back: \(error)", retryAfter: 30)
        }
    }

    /// The whole body, decoded, in memory.
    private func decoded(_ body: ByteBuffer, _ coding: String?) throws -> [UInt8] {
        guard let coding else { return Array(buffer: body) }
        guard coding == "gzip" else { throw malformed("The body has the content coding \"\(coding)\"; only gzip can be decoded.") }
        let decoder = GzipDecoder(limit: policy.requestLimit)
        var content: [UInt8] = []
        try decoder.decode(body.readableBytesView) { content += $0 }
        try decoder.finish()
        return content
    }

    var tooLarge: HTTPProblem {
        HTTPProblem(
            .requestTooLarge, "The body has more than \(policy.requestLimit) bytes, and requests are only taken with a body that can be compared.",
            isSafeForNewKey: true)
    }

    private func malformed(_ detail: String) -> HTTPProblem {
        HTTPProblem(.bodyMalformed, detail, isSafeForNewKey: true)
    }
}

/// The fingerprint of a request whose body is compared byte by byte, and comes in pieces.
private struct RawContent {
    private let coding: String?
    private let decoder: GzipDecoder?
    private var builder: FingerprintBuilder

    init(_ request: HTTPRequest, limit: Int) {
        coding = request.contentCoding
        decoder = coding == "gzip" ? GzipDecoder(limit: limit) : nil
        builder = FingerprintBuilder(request, mode: .raw)
    }

    @inline(never)
    mutating func take(_ piece: ByteBuffer) throws {
        if let decoder {
            try decoder.decode(piece.readableBytesView) { builder.update($0) }
        } else {
            builder.update(piece.readableBytesView)
        }
    }

    @inline(never)
    func finish() throws -> Fingerprint {
        try decoder?.finish()
        return try builder.finish().coded(coding)
    }
}

/// A key that is part of the body.
enum BodyKey {
    /// Made of fields of a JSON body.
    case fields([JSONSelector])
    /// A field of a form.
    case form(String)

    /// - Throws: a problem, or ``JSONError`` when the body is not JSON.
    func key(in body: [UInt8]) throws -> OperationKey? {
        switch self {
        case .fields(let selectors):
            let payload = try JSONValue(parsing: body)
            do {
                return try OperationKey(BusinessKey(selecting: selectors, in: payload).description)
            } catch let error as BusinessKeyError {
                throw HTTPProblem(.keyMissing, "The key is made of fields of the body, and \(error).", isSafeForNewKey: true)
            }
        case .form(let name):
            let values = FormField.values(of: name, in: body)
            guard values.count <= 1 else {
                throw HTTPProblem(.keyMalformed, "The form has \(values.count) fields \"\(name)\"; send one.", isSafeForNewKey: true)
            }
            return try values.first.map { try IdempotencyKey.bare($0) }
        }
    }
}

extension FingerprintBuilder {
    fileprivate init(_ request: HTTPRequest, mode: FingerprintMode) {
        let target = request.path ?? ""
        let question = target.utf8.firstIndex(of: UInt8(ascii: "?"))
        self.init(
            method: request.method.rawValue, path: question.map { String(target[..<$0]) } ?? target,
            query: question.map { String(target[target.utf8.index(after: $0)...]) }, mediaType: request.headerFields.value(of: .contentType),
            mode: mode)
    }
}

extension Fingerprint {
    /// The fingerprint of a body that was not decoded: the same bytes in another coding are another request.
    fileprivate func coded(_ coding: String?) -> Fingerprint {
        guard let coding, coding != "gzip" else { return self }
        var parts = LengthPrefixed(purpose: "semel.fingerprint.coded.1")
        parts.append(coding)
        parts.append(bytes)
        return Fingerprint(Digest256(hashing: parts))
    }
}

extension HTTPPolicy.BodyFingerprint {
    fileprivate var mode: FingerprintMode {
        switch self {
        case .raw: .raw
        case .canonicalJSON: .json
        case .selected(let selectors): .selected(selectors)
        }
    }
}

extension HTTPRequest {
    var declaredLength: Int? { headerFields.value(of: .contentLength).flatMap { Int($0) } }

    /// The body's content coding in lower case; `nil` for none.
    fileprivate var contentCoding: String? {
        guard let coding = headerFields.value(of: .contentEncoding)?.trimmingBlanks.lowercased(), !coding.isEmpty, coding != "identity" else { return nil }
        return coding == "x-gzip" ? "gzip" : coding
    }
}
