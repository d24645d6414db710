internal import Crypto
package import HTTPTypes
package import SemelCore
package import SemelHTTP

/// One kind of operation behind the gateway: which requests it covers, where they go, and its rules.
package struct SceneConfiguration: Hashable, Sendable {
    package var match: RouteMatch
    package var upstream: Upstream
    /// The rules, with the operation's ``Policy`` inside.
    package var http: HTTPPolicy
    /// How the target is asked; there when, and only when, the effect is `queryable`.
    package var effectQuery: EffectQuery?
    /// How the key reaches the target: always where the effect is `deduplicates`; where the target is asked, only if it is
    /// asked by another key than the one it gets from the client.
    package var downstreamKey: DownstreamKey?
    /// Who is asked before an outcome is replayed.
    package var replayAuthorization: ReplayAuthorization
    /// Verifies the bearer token of every request that the rules cover, before its key is looked up and before anybody is
    /// asked (``replayAuthorization``). What they do not cover passes through as it is.
    package var jwt: JWTSettings?
    /// The path that issues keys to forms; `POST` there answers with one.
    package var tokensPath: String?
    /// `onStoreFailure: fallback`: its records go to the pair of stores. What neither can decide is refused, as with
    /// `closed`.
    package var usesFallback: Bool
    /// What the scene's parts can keep on the store it uses.
    package var assessment: Assessment
    /// The scene's rules as they are pinned in its records.
    package var pinned: PinnedPolicy

    package var name: String { http.policy.scene }

    package init(
        match: RouteMatch, upstream: Upstream, http: HTTPPolicy, effectQuery: EffectQuery? = nil,
        downstreamKey: DownstreamKey? = nil, replayAuthorization: ReplayAuthorization = .none, jwt: JWTSettings? = nil,
        tokensPath: String? = nil, usesFallback: Bool = false, store: StoreCapabilities
    ) throws(PolicyError) {
        self.match = match
        self.upstream = upstream
        self.http = http
        self.effectQuery = effectQuery
        self.downstreamKey = downstreamKey
        self.replayAuthorization = replayAuthorization
        self.jwt = jwt
        self.tokensPath = tokensPath
        self.usesFallback = usesFallback
        let assessment = try http.policy.assess(on: store)
        self.assessment = assessment
        pinned = PinnedScene(
            policy: http.policy, assessment: assessment, upstream: upstream, query: effectQuery, scopeField: http.scopeField,
            downstreamKey: downstreamKey
        ).pinnedPolicy
    }
}

extension HTTPPolicy {
    /// The field that says whose keys are meant, where that is what the scope is made of and the target sees it with every
    /// request.
    var scopeField: HTTPField.Name? {
        guard case .header(let name) = scopeSource, !ForwardedFields.mayBeWithheld(name) else { return nil }
        return name
    }
}

/// How the target is asked whether a key was applied: a GET on the scene's upstream.
package struct EffectQuery: Hashable, Sendable {
    /// What becomes the recorded outcome of an operation found applied.
    package enum RecordedOutcome: String, Hashable, Sendable, Codable, CaseIterable {
        /// Its being applied is known, its response is not: repeats are answered `outcome-unavailable`.
        case discard
        /// The query's answer stands for the lost response.
        case response
    }

    /// The path, with ``Placeholder``s where what they stand for goes.
    package var path: String
    package var applied: Set<Int>
    package var absent: Set<Int>
    /// No request of ours arrives later than this after it was sent.
    package var inFlight: Duration
    /// The field that carries the epoch, for targets that refuse a lower one than they have seen.
    package var fence: HTTPField.Name?
    package var outcome: RecordedOutcome

    package init(
        path: String, applied: Set<Int> = [200], absent: Set<Int> = [404], inFlight: Duration, fence: HTTPField.Name? = nil,
        outcome: RecordedOutcome = .discard
    ) {
        self.path = path
        self.applied = applied
        self.absent = absent
        self.inFlight = inFlight
        self.fence = fence
        self.outcome = outcome
    }

    /// What stands for a part of an operation's identity in a query's path.
    package enum Placeholder: String, Hashable, Sendable, CaseIterable {
        /// The client's key.
        case key = "{key}"
        /// Whose key it is: the scope's parts, each percent-encoded, with commas between.
        case scope = "{scope}"
        /// The key that is derived from scope and key (``DownstreamKey/Value/derived(_:)``).
        case derived = "{derived}"
    }

    /// The path for one operation.
    package func path(for id: OperationID, derivedKey: String? = nil) -> String { Self.expand(path, for: id, derivedKey: derivedKey) }

    /// Puts an operation's identity into a template in place of its ``Placeholder``s: every byte outside RFC 3986's
    /// *unreserved* set is percent-encoded, so a key never becomes a path segment, a query or a scope of its own.
    package static func expand(_ template: String, for id: OperationID, derivedKey: String? = nil) -> String {
        var target = template.replacing(Placeholder.key.rawValue, with: encoded(id.key.bytes))
        if target.contains(Placeholder.scope.rawValue) {
            target = target.replacing(Placeholder.scope.rawValue, with: scopeParts(of: id).map { encoded(Array($0.utf8)) }.joined(separator: ","))
        }
        if let derivedKey { target = target.replacing(Placeholder.derived.rawValue, with: derivedKey) }
        return target
    }

    /// What tells a scope from others behind the gateway: an identity, a route, or both; empty where all share one.
    package static func scopeParts(of id: OperationID) -> [String] { Array(id.scope.parts.dropFirst()) }

    /// Whether a question tells operations apart whose keys are equal and whose scopes are not. A target that is asked
    /// less would tell one tenant what came of another's request.
    ///
    /// - Parameter scopeField: sent with the question, so it tells identities apart, but not routes.
    package static func distinguishesScopes(_ template: String, scopeField: HTTPField.Name?, parts: Int) -> Bool {
        if template.contains(Placeholder.scope.rawValue) || template.contains(Placeholder.derived.rawValue) { return true }
        return parts <= (scopeField == nil ? 0 : 1)
    }

    private static func encoded(_ bytes: [UInt8]) -> String {
        var encoded = ""
        for byte in bytes {
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F, 0x7E: encoded.unicodeScalars.append(Unicode.Scalar(byte))
            default: encoded += (byte < 0x10 ? "%0" : "%") + String(byte, radix: 16, uppercase: true)
            }
        }
        return encoded
    }
}

/// How the key reaches the target.
package struct DownstreamKey: Hashable, Sendable {
    package enum Value: Hashable, Sendable {
        /// The client's key, unchanged.
        case key
        /// A key derived from scope and key with the configuration's secret: the target never sees the client's.
        case derived(Secret)
    }

    package var header: HTTPField.Name
    package var value: Value

    package init(header: HTTPField.Name, value: Value = .key) {
        self.header = header
        self.value = value
    }

    /// The key for one operation, the same for every attempt at it.
    package func text(for id: OperationID) -> String {
        switch value {
        case .key: id.key.text
        case .derived(let secret): secret.code(for: OperationReference(id).description)
        }
    }

    /// The same where it is derived; `nil` where it is the client's.
    package func derivedText(for id: OperationID) -> String? { value == .key ? nil : text(for: id) }

    /// Tells whether two derived keys come from one secret, and nothing about the secret.
    package var secretMark: String? {
        if case .derived(let secret) = value { String(secret.code(for: "semel.derivation.1").prefix(16)) } else { nil }
    }
}

extension Secret {
    /// HMAC-SHA256, in hexadecimal digits.
    fileprivate func code(for text: String) -> String {
        HMAC<SHA256>.authenticationCode(for: Array(text.utf8), using: SymmetricKey(data: bytes))
            .map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}

/// Who decides whether the one who repeats a request may see its recorded outcome.
package enum ReplayAuthorization: Hashable, Sendable {
    /// Nobody: whoever knows scope and key is answered. Listed as *unauthorised replay* by `semel config check`.
    case none
    /// A sub-request with the client's header fields to this URL: 2xx allows.
    case subrequest(url: String)
    /// The verified bearer token.
    case token
}

/// How bearer tokens are verified (RFC 7519).
package struct JWTSettings: Hashable, Sendable {
    package enum Key: Hashable, Sendable {
        /// HS256 with a shared secret.
        case secret(Secret)
        /// The public keys of a JSON Web Key Set (RFC 7517), as the file's text.
        case keySet(String)
    }

    package var issuer: String?
    package var audience: String?
    package var key: Key

    package init(issuer: String? = nil, audience: String? = nil, key: Key) {
        self.issuer = issuer
        self.audience = audience
        self.key = key
    }
}
