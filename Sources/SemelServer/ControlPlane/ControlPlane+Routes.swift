internal import HTTPTypes
internal import Semel

private typealias Documentation = RouteDocumentation
private typealias Schemas = OpenAPISchemas

extension ControlPlane {
    /// Everything that is served here.
    static func routes(_ parts: Parts) -> [Route] {
        let described = health(parts) + operators(parts) + audit(parts) + claims(parts.claims)
        // The description describes itself.
        let description = Route(
            .get, "/openapi.json", .open,
            Documentation(
                name: "openapi", summary: "This description",
                answers: [.init(status: 200, text: "OpenAPI 3.1.", schema: ["type": "object"])]),
            handler: { _ in preconditionFailure("replaced below") })
        var served = described + [description]
        let document = APIResponse(OpenAPIDocument.document(of: served))
        served[served.count - 1].handler = { request in
            try request.query.require(only: [])
            return document
        }
        return served
    }

    private static func health(_ parts: Parts) -> [Route] {
        let readiness: @Sendable () async -> Readiness = {
            await Readiness.of(parts.checks, within: .seconds(2), parts.environment)
        }
        return [
            Route(
                .get, "/", .viewer,
                Documentation(
                    name: "overview", summary: "A page for people",
                    answers: [.init(status: 200, text: "HTML.", contentType: "text/html; charset=utf-8", schema: nil)],
                    problems: [.storeUnavailable, .storeIndeterminate])
            ) { request in
                try request.query.require(only: [])
                let waiting = try await parts.operatorStore.operations(OperationQuery(states: [.uncertain], limit: 50))
                return OverviewPage(readiness: await readiness(), waiting: waiting, scenes: parts.scenes()).response
            },
            Route(
                .get, "/healthz", .open,
                Documentation(
                    name: "health", summary: "Whether the process is alive",
                    answers: [.init(status: 200, text: "It is.", schema: Schemas.reference("Health"))])
            ) { request in
                try request.query.require(only: [])
                return APIResponse(["alive": true])
            },
            Route(
                .get, "/readyz", .open,
                Documentation(
                    name: "readiness", summary: "Whether it can do its work",
                    text: "Details are given to those who may view.",
                    answers: [
                        .init(status: 200, text: "Everything that is needed is there.", schema: Schemas.reference("Readiness")),
                        .init(status: 503, text: "Something that is needed is down.", schema: Schemas.reference("Readiness")),
                    ])
            ) { request in
                try request.query.require(only: [])
                let readiness = await readiness()
                return APIResponse(status: readiness.isReady ? 200 : 503, readiness.document(withDetail: request.caller.mayView))
            },
            Route(
                .get, "/metrics", .viewer,
                Documentation(
                    name: "metrics", summary: "Metrics in the Prometheus text format",
                    answers: [.init(status: 200, text: "Metrics.", contentType: "text/plain; version=0.0.4; charset=utf-8", schema: nil)])
            ) { request in
                try request.query.require(only: [])
                return APIResponse("text/plain; version=0.0.4; charset=utf-8", Array(parts.metrics().utf8))
            },
        ]
    }

    private static func operators(_ parts: Parts) -> [Route] {
        let operators = OperatorRoutes(store: parts.operatorStore, pair: parts.pair, scenes: parts.scenes, logger: parts.logger)
        let reference = Documentation.Parameter(
            name: "operation", isInPath: true, schema: Schemas.reference("OperationReference"), text: "The operation's reference.")
        let text: JSONValue = ["type": "string"]
        let decided: [APIProblem.Code] = [.operationUnknown, .operationChanged, .storeUnavailable, .storeIndeterminate, .storeFull]
        return [
            Route(
                .get, "/v1/operations", .viewer,
                Documentation(
                    name: "listOperations", summary: "Operations, oldest change first",
                    parameters: [
                        .init(name: "state", schema: text, text: "One or more of claimed, verifying, streaming, uncertain, completed, with commas between."),
                        .init(name: "scene", schema: text, text: "The scene's name; claims for those of the claims API."),
                        .init(name: "scope", mayRepeat: true, schema: text, text: "The scope's parts in their order, one parameter each; claims API: claims, then the scope."),
                        .init(name: "key", schema: text, text: "The key."),
                        .init(name: "older_than", schema: Schemas.reference("Duration"), text: "Only those that have been in their state at least this long."),
                        .init(name: "limit", schema: ["type": "integer", "minimum": 1, "maximum": 1000, "default": 100], text: "The most to answer."),
                        .init(name: "cursor", schema: text, text: "From the answer before."),
                    ],
                    answers: [.init(status: 200, text: "A page.", schema: Schemas.reference("OperationList"))],
                    problems: [.storeUnavailable, .storeIndeterminate]),
                handler: operators.list),
            Route(
                .get, "/v1/operations/{operation}", .viewer,
                Documentation(
                    name: "showOperation", summary: "One operation",
                    parameters: [
                        reference,
                        .init(name: "include", schema: ["enum": ["outcome"]], text: "The outcome's headers and body too; role operator."),
                    ],
                    answers: [.init(status: 200, text: "The operation.", schema: Schemas.reference("Operation"))],
                    problems: [.operationUnknown, .forbidden, .storeUnavailable, .storeIndeterminate]),
                handler: operators.show),
            Route(
                .post, "/v1/operations/{operation}/resolve", .operator,
                Documentation(
                    name: "resolveOperation", summary: "Decide about an operation of which nobody knows whether it was applied",
                    text:
                        "Applied: it will never run, and a repeat is answered with the outcome given here, exactly, or told that it is not known. Not applied: the key may run once more. Only while it is uncertain or its holder's lease has lapsed; with epoch, only if it is still what was looked at. Written to the audit log in the same transaction.",
                    parameters: [reference], request: Schemas.reference("Resolve"),
                    answers: [.init(status: 200, text: "Decided.", schema: Schemas.reference("Decision"))],
                    problems: decided + [.operationNotResolvable]),
                handler: operators.resolve),
            Route(
                .post, "/v1/operations/{operation}/forget", .operator,
                Documentation(
                    name: "forgetOperation", summary: "Let a finished key run again",
                    text: "A repeat will run anew. Written to the audit log in the same transaction.",
                    parameters: [reference], request: Schemas.reference("Forget"),
                    answers: [.init(status: 200, text: "Forgotten.", schema: Schemas.reference("Decision"))],
                    problems: decided + [.operationNotForgettable]),
                handler: operators.forget),
            Route(
                .get, "/v1/scenes", .viewer,
                Documentation(
                    name: "listScenes", summary: "What each scene promises, and what that rests on",
                    answers: [.init(status: 200, text: "The scenes.", schema: Schemas.reference("SceneList"))]),
                handler: operators.listScenes),
        ]
    }

    private static func audit(_ parts: Parts) -> [Route] {
        let audit = AuditRoutes(store: parts.store)
        let sequence: JSONValue = ["type": "integer", "minimum": 0]
        return [
            Route(
                .get, "/v1/audit", .viewer,
                Documentation(
                    name: "listAudit", summary: "What was decided by hand, oldest first",
                    parameters: [
                        .init(name: "after", schema: sequence, text: "The sequence of the last entry that is known."),
                        .init(name: "limit", schema: ["type": "integer", "minimum": 1, "maximum": 1000, "default": 100], text: "The most to answer."),
                    ],
                    answers: [.init(status: 200, text: "Entries, and whether they follow from each other.", schema: Schemas.reference("AuditPage"))],
                    problems: [.storeUnavailable, .storeIndeterminate]),
                handler: audit.list),
            Route(
                .get, "/v1/audit/verify", .viewer,
                Documentation(
                    name: "verifyAudit", summary: "Whether the whole log is intact",
                    text: "With the sequence and hash of an entry exported before, also whether that entry is still there.",
                    parameters: [
                        .init(name: "sequence", schema: sequence, text: "Of the exported entry."),
                        .init(name: "hash", schema: ["type": "string"], text: "Of the exported entry."),
                    ],
                    answers: [.init(status: 200, text: "What was found.", schema: Schemas.reference("AuditVerification"))],
                    problems: [.storeUnavailable, .storeIndeterminate]),
                handler: audit.verify),
        ]
    }

    private static func claims(_ claims: ClaimsAPI) -> [Route] {
        func route(
            _ verb: String, _ request: String, _ answer: String, _ summary: String, _ text: String? = nil,
            problems: [APIProblem.Code] = [], handler: @escaping @Sendable (APIRequest) async throws -> APIResponse
        ) -> Route {
            Route(
                .post, "/v1/\(verb)", .claims, bodyLimit: claims.limits.body,
                Documentation(
                    name: verb, summary: summary, text: text, request: Schemas.oneOrMany(request),
                    answers: [.init(status: 200, text: "The result, or each item's.", schema: Schemas.oneOrManyAnswers(answer))],
                    problems: problems + [.storeUnavailable, .storeIndeterminate]),
                handler: { request in
                    try request.query.require(only: [])
                    return try await handler(request)
                })
        }
        return [
            route(
                "claim", "Claim", "ClaimAnswer", "Claim operations",
                "Only claimed and reclaimed let the caller run. The token is shown to the owner alone.",
                problems: [.recordUnreadable, .storeFull], handler: claims.claim),
            route(
                "complete", "Complete", "Applied", "Record what came of operations",
                "Applied false: somebody else holds the operation now. Repeated by its owner with the same outcome it is applied.",
                handler: claims.complete),
            route(
                "suspend", "Suspend", "Applied", "Say that nobody knows whether operations were applied",
                "Nothing runs until the operation is resolved.", handler: claims.suspend),
            route("renew", "Renew", "Applied", "Keep leases alive", handler: claims.renew),
            route(
                "release", "Release", "Applied", "Give up operations that are proven not applied",
                "The key may run again at once.", handler: claims.release),
            route(
                "wait", "Wait", "WaitAnswer", "Wait for operations to settle",
                "A long poll: answered when every item has settled or its time is over. In progress with lease_remaining_ms 0: its holder is gone, claim it.",
                problems: [.tooManyWaiters], handler: claims.wait),
        ]
    }
}

extension ControlPlane.Parts {
    /// What people look at and decide about: both stores' operations, while there are two.
    fileprivate var operatorStore: any OperationStore { pair ?? store }
}
