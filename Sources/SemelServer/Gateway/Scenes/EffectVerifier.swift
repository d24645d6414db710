internal import HTTPTypes
internal import NIOCore
internal import NIOHTTP1
internal import Semel
internal import SemelHTTP

/// Asks an upstream whether an operation whose holder was lost was applied. The same for a retry that meets one and for the
/// resolver.
///
/// An operation is asked about by the rules it was claimed under, which its record pins (H57).
struct EffectVerifier: Sendable {
    /// How to ask.
    struct Query: Sendable {
        /// With placeholders (``EffectQuery/Placeholder``).
        var target: String
        var applied: Set<Int>
        var absent: Set<Int>
        var inFlight: Duration
        var fence: String?
        var outcome: EffectQuery.RecordedOutcome
        /// The field that says whose key is meant, sent with the question.
        var scopeField: HTTPField.Name?

        init(_ query: EffectQuery, basePath: String, scopeField: HTTPField.Name?) {
            target = basePath + query.path
            applied = query.applied
            absent = query.absent
            inFlight = query.inFlight
            fence = query.fence?.rawName
            outcome = query.outcome
            self.scopeField = scopeField
        }

        init(_ query: PinnedScene.Query, target: String) {
            self.target = target
            applied = Set(query.applied)
            absent = Set(query.absent)
            inFlight = .milliseconds(query.inFlightMilliseconds)
            fence = query.fence
            outcome = query.outcome
            scopeField = query.scopeField.flatMap { HTTPField.Name($0) }
        }
    }

    private let query: Query
    private let pinned: PolicyHash
    /// What keys are derived with, if they are.
    private let downstreamKey: DownstreamKey?
    private let client: UpstreamClient
    private let store: any OperationStore
    private let responseLimit: Int

    init(
        _ query: Query, pinned: PolicyHash, downstreamKey: DownstreamKey?, client: UpstreamClient, store: any OperationStore, responseLimit: Int
    ) {
        self.query = query
        self.pinned = pinned
        self.downstreamKey = downstreamKey
        self.client = client
        self.store = store
        self.responseLimit = responseLimit
    }

    /// Asks. The attempt's epoch is above that of every request that was ever sent for the operation, so a target that fences
    /// refuses, from the moment it was asked, whatever of these still arrives.
    /// - Throws: ``UpstreamFailure``, or what reading the pinned policy throws: the answer is unknown then.
    func verify(_ attempt: Attempt) async throws -> Verification<Outcome?> {
        let (query, client) = try await rules(of: attempt)
        guard let query, let client else { return .unknown }
        var headers: HTTPHeaders = ["Host": client.upstream.authority, "Accept": "*/*"]
        if let trace = TraceContext.current { headers.add(name: "traceparent", value: trace.traceparent) }
        let scope = EffectQuery.scopeParts(of: attempt.id)
        // One that was claimed under rules that asked for less: better unknown than somebody else's answer.
        guard EffectQuery.distinguishesScopes(query.target, scopeField: query.scopeField, parts: scope.count) else { return .unknown }
        if let field = query.scopeField, let identity = scope.first { headers.add(name: field.rawName, value: identity) }
        if let fence = query.fence { headers.replaceOrAdd(name: fence, value: attempt.epoch.description) }
        let target = EffectQuery.expand(query.target, for: attempt.id, derivedKey: downstreamKey?.derivedText(for: attempt.id))
        guard !target.contains(EffectQuery.Placeholder.derived.rawValue) else { return .unknown }
        let response = try await client.send(UpstreamRequest(.GET, target, headers: headers))
        let status = Int(response.status.code)
        let body = try await response.collect(upTo: responseLimit)
        if query.absent.contains(status) { return .notApplied }
        guard query.applied.contains(status) else { return .unknown }
        guard query.outcome == .response else { return .applied(nil) }
        return .applied(outcome(response, body))
    }

    /// Waits until nothing that the last holder sent can still arrive; a target that fences refuses it by itself.
    func waitOutFlight(of attempt: Attempt) async throws {
        guard let query = try await rules(of: attempt).0, query.fence == nil else { return }
        try await attempt.waitOut(query.inFlight)
    }

    private func rules(of attempt: Attempt) async throws -> (Query?, UpstreamClient?) {
        guard attempt.grant.policy != pinned, let policy = try await store.policy(attempt.grant.policy) else { return (query, client) }
        guard let scene = PinnedScene(policy), let old = scene.query, let (upstream, target) = Upstream.reading(url: old.url) else { return (nil, nil) }
        // A key derived with another secret is another key, and no target knows that one.
        if target.contains(EffectQuery.Placeholder.derived.rawValue), scene.downstreamKeySecretMark != downstreamKey?.secretMark { return (nil, nil) }
        let isSame = upstream.transport == client.upstream.transport && upstream.host == client.upstream.host && upstream.port == client.upstream.port
        return (Query(old, target: target), isSame ? client : try UpstreamClient(upstream))
    }

    /// The query's answer, in place of the one that was lost.
    private func outcome(_ response: UpstreamResponse, _ body: ByteBuffer?) -> Outcome {
        let names: Set<String> = ["content-type", "content-encoding", "content-language", "etag", "last-modified", "link", "location"]
        let fields = response.headers.filter { names.contains($0.name.lowercased()) }.map { Outcome.Field($0.name, $0.value) }
        return Outcome(
            status: UInt16(response.status.code), fields: fields,
            body: body.map { .kept(Array($0.readableBytesView)) } ?? .omitted(length: nil, digest: nil))
    }
}
