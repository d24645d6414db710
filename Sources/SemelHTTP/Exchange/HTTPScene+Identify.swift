internal import HTTPTypes
internal import NIOCore
internal import Semel

extension HTTPScene {
    /// Whose keys these are. The parts are told apart by their number: none, an identity, a route, both.
    func scope(of exchange: HTTPExchange) throws(HTTPProblem) -> Scope {
        if policy.scopeSource == .none, !policy.scopesByRoute { return Self.sharedScope }
        var parts = ["http"]
        switch policy.scopeSource {
        case .none: break
        case .header(let name):
            let lines = exchange.request.headerFields[fields: name]
            guard lines.count == 1, !lines[0].value.isEmpty else {
                throw scopeMissing(lines.count > 1 ? "It says so \(lines.count) times, in \(name)." : "The field \(name) says so.")
            }
            parts.append(lines[0].value)
        case .tokenClaim, .application:
            guard let identity = exchange.identity, !identity.isEmpty else { throw scopeMissing("Authenticate, so that it is known.") }
            parts.append(identity)
        }
        if policy.scopesByRoute { parts += [exchange.request.method.rawValue, exchange.request.pathWithoutQuery] }
        return Scope(parts: parts)
    }

    private static let sharedScope = Scope("http")

    private func scopeMissing(_ hint: String) -> HTTPProblem {
        HTTPProblem(
            .scopeMissing, status: policy.scopeMissingStatus, "Keys belong to whoever sends them, and it is not known who sent this one. \(hint)",
            isSafeForNewKey: true)
    }

    /// The key of the header field, or where else in the request it is.
    func key(of request: HTTPRequest) throws(HTTPProblem) -> (OperationKey?, BodyKey?) {
        switch policy.keySource {
        case .body(let selectors): return (nil, .fields(selectors))
        case .header(let name):
            if let key = try IdempotencyKey.read(name, of: request, syntax: policy.keySyntax) { return (key, nil) }
            if let tokens = policy.tokens, request.isForm { return (nil, .form(tokens.formField)) }
            if policy.keyRequired { throw keyMissing }
            return (nil, nil)
        }
    }

    var keyMissing: HTTPProblem {
        let place = if case .header(let name) = policy.keySource { "the field \(name)" } else { "the body" }
        return HTTPProblem(.keyMissing, "Send a key in \(place): the same one when the request is repeated, a new one for a new request.", isSafeForNewKey: true)
    }

    /// Refuses a request that says itself that it is older than keys are remembered: its first sending may have been
    /// forgotten, and it would run again (H24, OASIS Repeatable Requests §3.2).
    func checkAge(of request: HTTPRequest, key: OperationKey?) throws(HTTPProblem) {
        if request.headerFields.contains(.repeatabilityFirstSent) {
            let lines = request.headerFields[fields: .repeatabilityFirstSent]
            guard lines.count == 1, let line = lines.first, let time = CalendarTime(httpDate: line.value.trimmingBlanks.description) else {
                throw HTTPProblem(.keyMalformed, "Repeatability-First-Sent is not one HTTP-date.", isSafeForNewKey: true)
            }
            try checkAge(time.timestamp)
        }
        if policy.tokens != nil, let key, let token = KeyToken(key) { try checkAge(token.made) }
    }

    private func checkAge(_ first: Timestamp) throws(HTTPProblem) {
        guard first + policy.policy.retention.key < calendar() else { return }
        throw HTTPProblem(
            .tooLate,
            "The request was first sent at \(CalendarTime(first).httpDate), and keys are remembered for \(DurationText.format(policy.policy.retention.key)). Find out whether it was applied before sending a new one.")
    }

    /// A new token, and until when it may be used.
    func mintToken() -> HTTPAnswer {
        let token = KeyToken(at: calendar(), random: environment.random)
        var document = JSONObject()
        document["token"] = .string(token.text)
        document["expires"] = .string(CalendarTime(token.made + policy.policy.retention.key).internetDate)
        return HTTPAnswer(
            HTTPResponse(status: .created, headerFields: [.contentType: "application/json", .cacheControl: "no-store"]),
            .bytes(ByteBuffer(bytes: JSONValue.object(document).serialized())))
    }
}

extension HTTPRequest {
    var pathWithoutQuery: String { path.map { String(decoding: $0.utf8.prefix { $0 != UInt8(ascii: "?") }, as: UTF8.self) } ?? "" }

    var isForm: Bool {
        headerFields.value(of: .contentType).map { MediaType.essence(of: $0) == "application/x-www-form-urlencoded" } ?? false
    }
}

enum MediaType {
    /// Type and subtype without parameters, in lower case.
    static func essence(of field: String) -> String {
        String(decoding: field.utf8.prefix { $0 != UInt8(ascii: ";") }, as: UTF8.self).trimmingBlanks.lowercased()
    }
}

extension StringProtocol where UTF8View: BidirectionalCollection {
    /// Without the blanks at both ends.
    var trimmingBlanks: SubSequence {
        func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }
        guard let first = utf8.firstIndex(where: { !isBlank($0) }) else { return self[endIndex...] }
        var end = utf8.endIndex
        while isBlank(utf8[utf8.index(before: end)]) { end = utf8.index(before: end) }
        return self[first..<end]
    }
}
