internal import HTTPTypes
internal import Semel

/// Who asks, as far as is known.
enum Caller: Sendable {
    /// No token was needed or given.
    case unnamed(mayView: Bool)
    case holder(RoleToken)
    case claimant(ScopeToken)

    var mayView: Bool {
        switch self {
        case .unnamed(let mayView): mayView
        case .holder: true
        case .claimant: false
        }
    }

    var isOperator: Bool {
        switch self {
        case .unnamed(let mayView): mayView
        case .holder(let token): token.role == .operator
        case .claimant: false
        }
    }

    /// Whether the caller of the claims API may use this scope.
    func mayUse(scope: String) -> Bool {
        guard case .claimant(let token) = self else { return true }
        return token.allows(scope)
    }
}

/// The tokens of the control plane, and what is asked of whom.
struct AccessControl: Sendable {
    var isLoopback: Bool
    var tokens: [RoleToken]
    var claimsTokens: [ScopeToken]

    /// - Throws: 401 without a valid token where one is needed, 403 where the valid one does not suffice.
    func authenticate(_ access: Access, _ fields: HTTPFields) throws(APIProblem) -> Caller {
        switch access {
        case .open:
            if isLoopback && tokens.isEmpty { return .unnamed(mayView: true) }
            return Self.bearer(in: fields).flatMap { Self.find($0, in: tokens, \.digest) }.map(Caller.holder) ?? .unnamed(mayView: false)
        case .viewer, .operator:
            if isLoopback && tokens.isEmpty { return .unnamed(mayView: true) }
            let token = try valid(fields, in: tokens, \.digest)
            guard access == .viewer || token.role == .operator else {
                throw APIProblem(.forbidden, "The token \(token.name) may only read. This takes a token of the role operator.")
            }
            return .holder(token)
        case .claims:
            if claimsTokens.isEmpty {
                guard isLoopback else {
                    throw APIProblem(.forbidden, "The claims API has no tokens here, so nobody may use it beyond loopback. Configure claims: tokens.")
                }
                return .unnamed(mayView: false)
            }
            return .claimant(try valid(fields, in: claimsTokens, \.digest))
        }
    }

    private func valid<Token>(_ fields: HTTPFields, in tokens: [Token], _ digest: KeyPath<Token, TokenDigest>) throws(APIProblem) -> Token {
        guard let presented = Self.bearer(in: fields) else {
            throw APIProblem(.unauthenticated, "Send one of the configured tokens as Authorization: Bearer.")
        }
        guard let token = Self.find(presented, in: tokens, digest) else {
            throw APIProblem(.unauthenticated, "The token is not known here.")
        }
        return token
    }

    /// Looks at every token, whichever one matches, so that the time taken tells nothing (H42).
    private static func find<Token>(_ presented: String, in tokens: [Token], _ digest: KeyPath<Token, TokenDigest>) -> Token? {
        var found: Token?
        for token in tokens where token[keyPath: digest].matches(presented) { found = token }
        return found
    }

    private static func bearer(in fields: HTTPFields) -> String? {
        let values = fields[values: .authorization]
        guard values.count == 1, let value = values.first, value.prefix(7).lowercased() == "bearer " else { return nil }
        return String(value.dropFirst(7).drop { $0 == " " })
    }
}
