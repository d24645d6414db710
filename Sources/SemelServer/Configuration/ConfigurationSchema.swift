/// Which names a configuration may have, and where. Unknown names and environment variables are judged by it.
indirect enum ConfigurationSchema: Sendable {
    /// One value, or a form that its reader takes apart.
    case value
    /// A mapping with these names. A bare value stands for the mapping with only `short`.
    case mapping([String: ConfigurationSchema], short: String? = nil)
    /// A mapping from names that the user gives.
    case byName(ConfigurationSchema)
    /// A list of mappings, each with a `name`.
    case listByName(ConfigurationSchema)

    static let server = mapping([
        "listen": .value,
        "admin": .mapping(["listen": .value, "tokens": .listByName(roleToken), "tls": .mapping(["certificate": .value, "key": .value])], short: "listen"),
        "store": .value,
        "fallback": .value,
        "upstreams": .byName(upstream),
        "unmatched": .value,
        "scenes": .listByName(scene),
        "claims": .mapping(["tokens": .listByName(scopeToken)]),
        "log": .mapping(["level": .value, "keys": .value, "to": .value], short: "level"),
        "trusted": .value,
        "drain": .value,
        "secret": .value,
        "secretFile": .value,
    ])

    static let roleToken = mapping(["name": .value, "token": .value, "tokenFile": .value, "role": .value])
    static let scopeToken = mapping(["name": .value, "token": .value, "tokenFile": .value, "scopes": .value])

    static let upstream = mapping(
        ["url": .value, "connect": .value, "timeout": .value, "idle": .value, "connections": .value, "tls": .mapping(["authorities": .value])], short: "url")

    static let scene = mapping([
        "name": .value,
        "match": .mapping(["methods": .value, "path": .value], short: "path"),
        "upstream": .value,
        "key": .mapping(["header": .value, "body": .value, "required": .value, "syntax": .value]),
        "scope": .mapping(["header": .value, "claim": .value, "missing": .value, "byRoute": .value]),
        "fingerprint": .mapping(["body": .value, "select": .value], short: "body"),
        "mode": .value,
        "effect": .mapping([
            "deduplicates": .mapping(["header": .value, "keeps": .value, "derive": .value]),
            "queryable": .mapping(["get": .value, "applied": .value, "absent": .value, "inFlight": .value, "fence": .value, "outcome": .value, "header": .value]),
        ]),
        "guarantee": .value,
        "authorize": .mapping(["url": .value], short: "url"),
        "jwt": .mapping(["issuer": .value, "audience": .value, "secret": .value, "secretFile": .value, "keySet": .value]),
        "tokens": .mapping(["path": .value], short: "path"),
        "onError": .value,
        "onConcurrent": .mapping(["wait": .value, "waiters": .value]),
        "onStoreFailure": .value,
        "lease": .value,
        "progress": .value,
        "retention": .mapping(["response": .value, "key": .value]),
        "redelivery": .value,
        "limits": .mapping(["request": .value, "response": .value, "liveKeys": .value]),
        "notStarted": .value,
        "replay": .mapping(["fields": .value], short: "fields"),
    ])

    /// Names that stand for others in people's minds; the remedy says which is meant.
    static let synonyms = [
        "port": "listen", "address": "listen", "upstream_timeout": "timeout", "path": "match", "methods": "match", "ttl": "retention",
        "retry": "onError", "level": "guarantee", "keepFor": "retention", "database": "store", "routes": "scenes", "backends": "upstreams",
    ]
}
