public import HTTPTypes
public import Semel

/// The rules for one kind of request: the ``Policy`` of its operation, and how key, scope, fingerprint and answer are
/// read from and written to HTTP. A choice about safety has no default: whose keys they are must be said.
public struct HTTPPolicy: Hashable, Sendable {
    /// Where the client's name for the operation comes from.
    public enum KeySource: Hashable, Sendable {
        /// A header field, `Idempotency-Key` by default.
        case header(HTTPField.Name)
        /// Fields of a JSON body, in this order.
        case body([JSONSelector])
    }

    /// How the key's header field must be written.
    public enum KeySyntax: Hashable, Sendable {
        /// One RFC 8941 String.
        case strict
        /// A bare value is accepted too, and is the same key as the quoted one.
        case lenient
    }

    public enum ScopeSource: Hashable, Sendable {
        /// Every client shares one space of keys, and whoever sends a key that somebody else used is answered with what came of
        /// that one's request. For callers that are all the same party.
        case none
        case header(HTTPField.Name)
        /// A claim of the verified JSON Web Token of the request; whoever verifies it says what it is (``HTTPExchange/identity``).
        case tokenClaim(String)
        /// What the embedding application says about the request (``HTTPExchange/identity``).
        case application
    }

    /// Keys for clients that cannot make one, such as forms.
    public struct Tokens: Hashable, Sendable {
        /// `POST` here is answered with a new token. A token is a key like any other.
        public var path: String
        /// The field of a form that carries the token, where there is no header field.
        public var formField: String

        public init(path: String, formField: String = "idempotency_key") {
            self.path = path
            self.formField = formField
        }
    }

    public enum BodyFingerprint: Hashable, Sendable {
        /// The decoded body's bytes.
        case raw
        /// RFC 8785 canonical JSON; bodies that are not JSON, or repeat a name, are refused.
        case canonicalJSON
        /// Only these fields of the JSON body.
        case selected([JSONSelector])
    }

    public var policy: Policy
    public var keySource: KeySource
    public var keySyntax: KeySyntax
    public var keyRequired: Bool
    public var scopeSource: ScopeSource
    /// The status for a request whose scope is missing: 401 or 403.
    public var scopeMissingStatus: Int
    public var fingerprint: BodyFingerprint
    /// Methods under the policy; safe ones never are.
    public var methods: Set<HTTPRequest.Method>
    /// Whether method and path are part of the scope, so that one key may be used on several routes.
    public var scopesByRoute: Bool
    /// Statuses that mean the request was not started: released, never recorded.
    public var notStarted: Set<Int>
    /// Response fields replayed in addition to the standard ones.
    public var replayedFields: Set<HTTPField.Name>
    /// The largest request body that is fingerprinted, in bytes.
    public var requestLimit: Int
    /// The largest response body that is kept, in bytes.
    public var responseLimit: Int
    /// Where clients get keys, if they do.
    public var tokens: Tokens?
    /// Where the page that describes a problem code is found: this prefix and the code. The default is served by Semel itself.
    public var problemPages: String

    public init(
        policy: Policy, keySource: KeySource = .header(.idempotencyKey), keySyntax: KeySyntax = .strict,
        keyRequired: Bool = false, scopeSource: ScopeSource, scopeMissingStatus: Int = 403,
        fingerprint: BodyFingerprint = .raw, methods: Set<HTTPRequest.Method> = [.post, .patch], scopesByRoute: Bool = false,
        notStarted: Set<Int> = [408, 425, 429], replayedFields: Set<HTTPField.Name> = [], requestLimit: Int = 1 << 20,
        responseLimit: Int = 256 << 10, tokens: Tokens? = nil,
        problemPages: String = ProblemPage.defaultPrefix
    ) {
        self.policy = policy
        self.keySource = keySource
        self.keySyntax = keySyntax
        self.keyRequired = keyRequired
        self.scopeSource = scopeSource
        self.scopeMissingStatus = scopeMissingStatus
        self.fingerprint = fingerprint
        self.methods = methods
        self.scopesByRoute = scopesByRoute
        self.notStarted = notStarted
        self.replayedFields = replayedFields
        self.requestLimit = requestLimit
        self.responseLimit = responseLimit
        self.tokens = tokens
        self.problemPages = problemPages
    }
}

extension HTTPField.Name {
    public static let idempotencyKey = Self("Idempotency-Key")!
    public static let idempotencyKeyExpires = Self("Idempotency-Key-Expires")!
    public static let idempotentReplayed = Self("Idempotent-Replayed")!
    public static let repeatabilityFirstSent = Self("Repeatability-First-Sent")!
    public static let semelGuarantee = Self("Semel-Guarantee")!
    public static let semelEpoch = Self("Semel-Epoch")!
}
