internal import HTTPTypes
internal import SemelCore
internal import SemelHTTP

extension SceneReader {
    // MARK: The effect

    struct EffectReading {
        var effect: Effect
        var query: EffectQuery?
        var downstreamKey: DownstreamKey?
    }

    func effect() -> EffectReading? {
        guard let node = section["effect"] else {
            mistake("effect", "the scene does not say what its target can do, and guessing would be unsafe", "write `effect: unknown`, `effect: deduplicates` or `effect: { queryable: … }`")
            return nil
        }
        if let word = node.scalar {
            switch word {
            case "unknown": return EffectReading(effect: .unknown)
            case "deduplicates":
                // The short form of the header every such target understands, kept for a day.
                return EffectReading(effect: .deduplicates(keeps: .seconds(24 * 3600)), downstreamKey: DownstreamKey(header: .idempotencyKey))
            case "queryable": mistake("effect", "`queryable` needs to know how to ask", "write `effect: { queryable: { get: /v1/payments?key={key}, applied: 200, absent: 404, inFlight: 30s } }`")
            case "localTransaction", "atomic": mistake("effect", "a gateway cannot share a transaction with the service behind it", "use the library inside the service, or declare what the target can do")
            default:
                let meant = Spelling.suggestion(for: word, among: ["unknown", "deduplicates", "queryable"])
                mistake("effect", "`\(word)` is not an effect", meant.map { "did you mean `\($0)`?" } ?? "write unknown, deduplicates or queryable")
            }
            return nil
        }
        guard let effect = reader.section(section, "effect") else { return nil }
        switch (effect["deduplicates"], effect["queryable"]) {
        case (.some, nil): return deduplicates(effect)
        case (nil, .some): return queryable(effect)
        case (.some, .some(let queryable)): mistake("effect", at: queryable.place, "both `deduplicates` and `queryable` are given", "keep the stronger that is true: deduplicates, when keys are kept long enough")
        case (nil, nil): mistake("effect", "the effect is not named", "write unknown, deduplicates or queryable")
        }
        return nil
    }

    private func deduplicates(_ effect: Section) -> EffectReading? {
        guard let section = reader.section(effect, "deduplicates") else { return nil }
        let header = section["header"] == nil ? HTTPField.Name.idempotencyKey : reader.fieldName(section, "header", example: "Idempotency-Key")
        if section["keeps"] == nil { reader.mistake(section.place, section.path, "`keeps` is missing: how long the target remembers a key decides how long it deduplicates", "write what its documentation promises, such as `keeps: 24h`") }
        let keeps = reader.duration(section, "keeps", example: "24h")
        var downstreamKey = header.map { DownstreamKey(header: $0) }
        if reader.boolean(section, "derive") == true { downstreamKey?.value = derivedValue(section, "derive") ?? .key }
        guard let keeps, let downstreamKey else { return nil }
        return EffectReading(effect: .deduplicates(keeps: keeps), downstreamKey: downstreamKey)
    }

    private func derivedValue(_ section: Section, _ name: String) -> DownstreamKey.Value? {
        if let derivation { return .derived(derivation) }
        if root["secret"] == nil && root["secretFile"] == nil {
            reader.mistake(section[name]?.place ?? section.place, section.path(name), "a derived key needs a secret, the same for ever", "write `secretFile: PATH` at the top of the configuration")
        }
        return nil
    }

    private func queryable(_ effect: Section) -> EffectReading? {
        guard let section = reader.section(effect, "queryable") else { return nil }
        for (name, example) in [("get", "/v1/payments?key={key}"), ("inFlight", "30s")] where section[name] == nil {
            reader.mistake(section.place, section.path, "`\(name)` is missing", "write `\(name): \(example)`")
        }
        let get = section["get"] == nil ? nil : reader.text(section, "get", example: "/v1/payments?key={key}")
        if let get, let node = section["get"] {
            if !get.contains("{key}") && !get.contains("{derived}") { reader.mistake(node.place, section.path("get"), "the path does not contain {key}, so it asks about no key", "write a path such as /v1/payments?key={key}") }
            if EffectQuery.Placeholder.allCases.reduce(get, { $0.replacing($1.rawValue, with: "") }).contains(where: { $0 == "{" || $0 == "}" }) {
                reader.mistake(node.place, section.path("get"), "`\(get)` has braces around something else than key, scope or derived", "use {key}, {scope} and {derived}, and write other braces as %7B and %7D")
            }
            if !get.hasPrefix("/") || get.contains(where: { $0 == " " || $0 == "#" }) {
                reader.mistake(node.place, section.path("get"), "`\(get)` is not a path on the scene's upstream", "begin with /, and leave out spaces and #")
            }
        }
        let inFlight = reader.duration(section, "inFlight")
        let applied = reader.statuses(section, "applied") ?? [200]
        let absent = reader.statuses(section, "absent") ?? [404]
        if let both = applied.intersection(absent).min() {
            reader.mistake(section["absent"]?.place ?? section.place, section.path("absent"), "\(both) is listed as applied and as absent", "list each status once")
        }
        if let unsure = absent.filter({ $0 >= 500 || [401, 403, 408, 425, 429].contains($0) }).min() {
            reader.mistake(section["absent"]?.place ?? section.place, section.path("absent"), "\(unsure) tells that the question was not answered, and taking it for absent would run the operation twice", "list only statuses that prove the key is unknown, such as 404")
        }
        let fence = section["fence"] == nil ? nil : reader.fieldName(section, "fence", example: "Semel-Epoch")
        let outcome = reader.choice(section, "outcome", among: ["discard": EffectQuery.RecordedOutcome.discard, "response": .response]) ?? .discard
        let header = section["header"].flatMap { _ in reader.fieldName(section, "header", example: "Idempotency-Key") }
        guard let get, let inFlight else { return nil }
        var downstreamKey = header.map { DownstreamKey(header: $0) }
        if get.contains(EffectQuery.Placeholder.derived.rawValue), let derived = derivedValue(section, "get") {
            downstreamKey = DownstreamKey(header: header ?? .idempotencyKey, value: derived)
        }
        return EffectReading(
            effect: .queryable(inFlight: inFlight, isFenced: section["fence"] != nil),
            query: EffectQuery(path: get, applied: applied, absent: absent, inFlight: inFlight, fence: fence, outcome: outcome),
            downstreamKey: downstreamKey)
    }

    /// Equal keys of two tenants are two operations here; the target must be able to tell them apart too, or one is told
    /// what came of the other's.
    func checkScope(of http: HTTPPolicy, reaches effect: EffectReading) {
        let parts = (http.scopeSource == .none ? 0 : 1) + (http.scopesByRoute ? 2 : 0)
        guard parts > 0 else { return }
        let effectSection = Section(node: section["effect"] ?? section.node, path: section.path("effect"))
        if let query = effect.query {
            guard !EffectQuery.distinguishesScopes(query.path, scopeField: http.scopeField, parts: parts) else { return }
            let why =
                switch http.scopeSource {
                case .tokenClaim, .application: "the question cannot carry the client's token"
                case .header(let name) where http.scopeField == nil: "\(name.rawName) does not reach the target with every request"
                case .header, .none: "nothing in the question says which route is meant"
                }
            reader.mistake(
                effectSection["queryable"]?["get"]?.place ?? effectSection.place, section.path("effect.queryable.get"),
                "the scene has a scope and \(why): a tenant would be told what came of another one's request with an equal key",
                "put {scope} into the path, or {derived} in place of {key}")
        } else if effect.downstreamKey?.value == .key {
            reader.warning(
                effectSection.place, section.path("effect"),
                "the scene has a scope, and the target is given the client's key: unless it tells tenants apart itself, one is answered with the result of another one's request with an equal key",
                "write `deduplicates: { derive: true, … }`, with a `secretFile` at the top of the configuration, unless the target keeps keys by tenant")
        }
    }

    // MARK: The policy

    func policy(named name: String, effect: Effect) -> Policy {
        var retention = Retention.standard
        if let section = reader.section(section, "retention") {
            let response = reader.duration(section, "response", example: "24h")
            let key = reader.duration(section, "key", example: "30d")
            if let key, key < response ?? retention.response {
                reader.mistake(
                    section["key"]?.place ?? section.place, section.path("key"),
                    "the key is kept for \(DurationText.format(key)), the response for \(DurationText.format(response ?? retention.response)): a response cannot outlive its key", "keep the key at least as long as the response")
            }
            retention = Retention(response: response ?? retention.response, key: key ?? retention.key)
        }
        var policy = Policy(scene: name, effect: effect, retention: retention, horizon: reader.duration(section, "redelivery", example: "24h"))
        policy.minimum = reader.choice(section, "guarantee", among: [
            "bestEffort": Guarantee.bestEffort, "atLeastOnce": .atLeastOnce, "atMostOnce": .atMostOnce, "verified": .verified,
            "fencedAndVerified": .fencedAndVerified, "deduplicatedByTarget": .deduplicatedByTarget, "atomic": .atomic,
        ])
        policy.mode = reader.choice(section, "mode", among: ["enforce": .enforce, "observe": .observe, "off": .off]) ?? policy.mode
        policy.onError = reader.choice(section, "onError", among: ["replay": .replay, "rerun": .rerun, "uncertain": .uncertain])
        policy.onConcurrent = concurrency() ?? policy.onConcurrent
        policy.onStoreFailure = storeFailure() ?? policy.onStoreFailure
        policy.lease = reader.duration(section, "lease") ?? policy.lease
        policy.progress = reader.duration(section, "progress", example: "5m")
        if let limits = section["limits"], limits.members != nil {
            policy.liveKeys = reader.integer(Section(node: limits, path: section.path("limits")), "liveKeys", in: 1...Int(Int32.max)) ?? policy.liveKeys
        }
        return policy
    }

    private func concurrency() -> ConcurrencyRule? {
        guard let node = section["onConcurrent"] else { return nil }
        guard node.members != nil else {
            if node.scalar == "wait" {
                mistake("onConcurrent", "`wait` without a time would wait for ever", "write `onConcurrent: { wait: 10s, waiters: 100 }`")
                return nil
            }
            return reader.choice(node, path: section.path("onConcurrent"), among: ["conflict": .conflict])
        }
        let rule = Section(node: node, path: section.path("onConcurrent"))
        if rule["wait"] == nil { mistake("onConcurrent", "there is no `wait`", "write `onConcurrent: { wait: 10s, waiters: 100 }`") }
        let waiters = reader.integer(rule, "waiters", in: 1...1_000_000) ?? 100
        return reader.duration(rule, "wait", example: "10s").map { .wait($0, waiters: waiters) }
    }

    private func storeFailure() -> StoreFailureRule? {
        // One that is declared with mistakes has had them said already.
        if usesFallback, root["fallback"] == nil {
            mistake("onStoreFailure", "there is no second store to fall back to", "write `fallback: sqlite:./fallback.db` at the top of the configuration, or use closed or open")
        }
        // What the two stores of a fallback cannot decide is refused.
        return reader.choice(section, "onStoreFailure", among: ["closed": .closed, "open": .open, "fallback": .closed])
    }

    /// Says everything that the policy's own check finds. It stops at the first; so what was said is put right in the
    /// copy, and it is asked again.
    func check(_ policy: inout Policy) {
        var copy = policy
        for _ in 0..<4 {
            do throws(PolicyError) {
                _ = try copy.assess(on: store)
                return
            } catch {
                switch error.code {
                case .overclaim:
                    // Where the first store alone would keep it, that is the fix.
                    let isFallback = usesFallback && (try? copy.assess(on: plainStore)) != nil
                    mistake("guarantee", error.problem, isFallback ? "use `onStoreFailure: closed`, or accept what the two stores give" : error.remedy)
                    copy.minimum = nil
                case .retention:
                    let key = section["retention"]?["key"]
                    mistake(key == nil ? "redelivery" : "retention.key", at: key?.place ?? section["redelivery"]?.place, error.problem, error.remedy)
                    copy.horizon = copy.retention.key
                case .contradiction:
                    // Its text begins with the key it is about.
                    let subject = String(error.problem.prefix { $0 != ":" })
                    let onError = error.problem.contains("onError")
                    mistake(onError ? "onError" : section[subject] == nil ? "effect" : subject, error.problem, error.remedy)
                    if onError { copy.onError = nil } else { copy.lease = max(copy.lease, .seconds(1)) }
                }
            }
        }
    }

    // MARK: Warnings

    func warn(about scene: SceneConfiguration) {
        let policy = scene.http.policy
        if scene.replayAuthorization == .none, policy.mode == .enforce {
            warning("authorize", at: section["name"]?.place, "unauthorised replay: nobody is asked whether the one who repeats a request may see its result", "add `authorize: { url: … }` or `jwt`")
        }
        if policy.onStoreFailure == .open {
            warning("onStoreFailure", "requests run unprotected while the store is down, and may take effect twice", "use `onStoreFailure: closed`")
        }
        if policy.mode != .enforce {
            warning("mode", "nothing is promised: requests pass as they come", "use `mode: enforce` when you are sure of the scene")
        }
        // The first reason gives the level, each further one lowers it.
        let isFallback = usesFallback && (try? policy.assess(on: plainStore).level) != scene.assessment.level
        for reason in scene.assessment.reasons.dropFirst() where !reason.contains("onStoreFailure") && !reason.contains("mode:") {
            let lowered = "the level is lowered to \(scene.assessment.level.name). \(reason)".trimmingFullStop
            if isFallback {
                warning("onStoreFailure", lowered, "use `onStoreFailure: closed`, or accept the level")
            } else {
                warning("guarantee", at: section["guarantee"]?.place ?? section["name"]?.place, lowered, "use \(store.isAuthority ? "a durable store" : "sqlite, postgres or mysql"), or accept the level")
            }
        }
        if case .deduplicates(let keeps) = policy.effect, keeps < policy.horizon {
            warning(
                "effect", "the target keeps keys for \(DurationText.format(keeps)), and requests may be repeated for \(DurationText.format(policy.horizon)): the level is lowered to \(scene.assessment.level.name)",
                "shorten `redelivery`, or use a target that keeps keys longer")
        }
    }
}

extension String {
    fileprivate var trimmingFullStop: String { hasSuffix(".") ? String(dropLast()) : self }
}
