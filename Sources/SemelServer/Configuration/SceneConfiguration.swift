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
    /// How the key reaches a target that deduplicates; there when, and only when, the effect is `deduplicates`.
    package var downstreamKey: DownstreamKey?
    /// Who is asked before an outcome is replayed.
    package var replayAuthorization: ReplayAuthorization
    /// Verifies the bearer token of every request, before anything else.
    package var jwt: JWTSettings?
    /// The path that issues keys to forms; `POST` there answers with one.
    package var tokensPath: String?
    /// What the scene's parts can keep on the configured store.
    package var assessment: Assessment
    /// The scene's rules as they are pinned in its records.
    package var pinned: PinnedPolicy

    package var name: String { http.policy.scene }

    package init(
        match: RouteMatch, upstream: Upstream, http: HTTPPolicy, effectQuery: EffectQuery? = nil,
        downstreamKey: DownstreamKey? = nil, replayAuthorization: ReplayAuthorization = .none, jwt: JWTSettings? = nil,
        tokensPath: String? = nil, store: StoreCapabilities
    ) throws(PolicyError) {
        self.match = match
        self.upstream = upstream
        self.http = http
        self.effectQuery = effectQuery
        self.downstreamKey = downstreamKey
        self.replayAuthorization = replayAuthorization
        self.jwt = jwt
        self.tokensPath = tokensPath
        let assessment = try http.policy.assess(on: store)
        self.assessment = assessment
        pinned = PinnedScene(
            policy: http.policy, assessment: assessment, upstream: upstream, query: effectQuery, downstreamKey: downstreamKey
        ).pinnedPolicy
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

    /// The path, with `{key}` where the percent-encoded key goes.
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

    /// The path for one key.
    package func path(for key: OperationKey) -> String { Self.expand(path, with: key) }

    /// Puts a key into a template in place of `{key}`: every byte outside RFC 3986's *unreserved* set is
    /// percent-encoded, so a key never becomes a path segment or a query of its own.
    package static func expand(_ template: String, with key: OperationKey) -> String {
        var encoded = ""
        for byte in key.bytes {
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F, 0x7E: encoded.unicodeScalars.append(Unicode.Scalar(byte))
            default: encoded += (byte < 0x10 ? "%0" : "%") + String(byte, radix: 16, uppercase: true)
            }
        }
        return template.split(separator: "{key}", omittingEmptySubsequences: false).joined(separator: encoded)
    }
}

/// How the key reaches a target that deduplicates.
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
