import SemelCore
import Testing

@Suite("The level of a policy")
struct PolicyTests {
    static let sqlite = StoreCapabilities(engine: "sqlite", durability: .durable, isTransactional: true)
    static let plain = StoreCapabilities(engine: "plain", durability: .durable, isTransactional: false)
    static let memory = StoreCapabilities(engine: "memory", durability: .forgetful("it lives in memory"), isTransactional: false)

    static let day = Duration.seconds(24 * 3600)
    static let deduplicates = Effect.deduplicates(keeps: .seconds(30 * 24 * 3600))
    static let fenced = Effect.queryable(inFlight: .seconds(30), isFenced: true)
    static let queryable = Effect.queryable(inFlight: .seconds(30), isFenced: false)

    private func policy(_ effect: Effect, _ adjust: (inout Policy) -> Void = { _ in }) -> Policy {
        var policy = Policy(scene: "capture", effect: effect)
        adjust(&policy)
        return policy
    }

    private func refusal(of policy: Policy, on store: StoreCapabilities) throws -> PolicyError {
        try #require(throws: PolicyError.self) { try policy.assess(on: store) }
    }

    @Test(
        "follows from what the effect's target can do",
        arguments: [
            (Effect.localTransaction, Guarantee.atomic, LapseRule.reclaim, ErrorRule.rerun),
            (deduplicates, .deduplicatedByTarget, .reclaim, .rerun),
            (fenced, .fencedAndVerified, .verify, .uncertain),
            (queryable, .verified, .verify, .uncertain),
            (.unknown, .atMostOnce, .uncertain, .uncertain),
        ])
    func levels(_ effect: Effect, _ level: Guarantee, _ lapse: LapseRule, _ error: ErrorRule) throws {
        let assessment = try policy(effect).assess(on: Self.sqlite)
        #expect(assessment.level == level)
        #expect(assessment.onLapse == lapse)
        #expect(assessment.onError == error)
        #expect(assessment.reasons.count == 1)
        for minimum in Guarantee.allCases where level.satisfies(minimum) && !(effect == .unknown && minimum < .atMostOnce) {
            #expect(try policy(effect) { $0.minimum = minimum }.assess(on: Self.sqlite).level == level)
        }
    }

    @Test("of an unknown effect is at least once where the policy says in so many words that doubling is accepted")
    func accepted() throws {
        for minimum in [Guarantee.atLeastOnce, .bestEffort] {
            let assessment = try policy(.unknown) { $0.minimum = minimum }.assess(on: Self.sqlite)
            #expect(assessment.level == .atLeastOnce)
            #expect(assessment.onLapse == .reclaim)
        }
        let asked = try policy(.unknown) {
            $0.minimum = .atLeastOnce
            $0.onError = .rerun
        }.assess(on: Self.sqlite)
        #expect(asked.onError == .rerun)
    }

    @Test("is refused when more is claimed than the parts keep, and the error says what they keep and what to do")
    func overclaims() throws {
        for effect in [Self.deduplicates, Self.fenced, Self.queryable, .unknown] {
            let level = try policy(effect).assess(on: Self.plain).level
            for minimum in Guarantee.allCases where minimum > level {
                let error = try refusal(of: policy(effect) { $0.minimum = minimum }, on: Self.plain)
                #expect(error.code == .overclaim)
                #expect(error.scene == "capture")
                #expect(error.problem.contains(minimum.name) && error.problem.contains(level.name))
                #expect(error.remedy.contains(level.name), "the remedy names what can be had: \(error.remedy)")
                #expect(error.description.contains("Remedy:"))
            }
        }
    }

    @Test("at most once is no kind of at least once: it may lose work")
    func atMostOnceLosesWork() {
        #expect(!Guarantee.atMostOnce.satisfies(.atLeastOnce))
        #expect(!Guarantee.atLeastOnce.satisfies(.atMostOnce))
        for level in Guarantee.allCases where level > .atMostOnce {
            #expect(level.satisfies(.atLeastOnce) && level.satisfies(.atMostOnce))
        }
        for level in Guarantee.allCases {
            #expect(level.satisfies(level) && level.satisfies(.bestEffort))
            #expect(Guarantee(name: level.name) == level)
        }
        #expect(Guarantee(name: "exactlyOnce") == nil)
        #expect(Guarantee.allCases.filter(\.isEffectivelyOnce) == [.fencedAndVerified, .deduplicatedByTarget, .atomic])
        #expect(Guarantee.allCases.filter { !$0.canRerun } == [.atMostOnce])
    }

    @Test("is best effort on a store that may forget (H10, H11), unless the target deduplicates by itself")
    func forgetfulStores() throws {
        for effect in [Self.fenced, Self.queryable, .unknown] {
            let assessment = try policy(effect).assess(on: Self.memory)
            #expect(assessment.level == .bestEffort)
            #expect(assessment.reasons.last?.contains("it lives in memory") == true)
            let error = try refusal(of: policy(effect) { $0.minimum = .atMostOnce }, on: Self.memory)
            #expect(error.code == .overclaim)
        }
        let survivor = try policy(Self.deduplicates) { $0.minimum = .deduplicatedByTarget }.assess(on: Self.memory)
        #expect(survivor.level == .deduplicatedByTarget)
    }

    @Test("is effectively once on a store that a failover may set back only where the target deduplicates (H10)")
    func noAuthority() throws {
        let store = StoreCapabilities(engine: "redis", durability: .durable, isTransactional: false, isAuthority: false)
        let fenced = try policy(Self.fenced).assess(on: store)
        #expect(fenced.level == .verified && fenced.onLapse == .verify)
        #expect(fenced.reasons.last?.contains("never the only authority") == true && fenced.reasons.count == 2)
        for (effect, level) in [(Self.deduplicates, Guarantee.deduplicatedByTarget), (Self.queryable, .verified), (.unknown, .atMostOnce)] {
            let assessment = try policy(effect).assess(on: store)
            #expect(assessment.level == level && assessment.reasons.count == 1)
        }
        let error = try refusal(of: policy(Self.fenced) { $0.minimum = .fencedAndVerified }, on: store)
        #expect(error.code == .overclaim && error.problem.contains("authority"))
        #expect(error.remedy.contains("sqlite, postgres or mysql") && error.remedy.contains("guarantee: verified"))
        #expect(try policy(Self.fenced) { $0.minimum = .verified }.assess(on: store).level == .verified)
        #expect(try policy(Self.fenced) { $0.onStoreFailure = .open }.assess(on: store).level == .atLeastOnce)
        var forgetful = store
        forgetful.durability = .forgetful("a lagging replica")
        #expect(try policy(Self.fenced).assess(on: forgetful).level == .bestEffort)
        // Whatever the effect: nothing but the target's own deduplication is effectively once there.
        for effect in [Self.deduplicates, Self.fenced, Self.queryable, .unknown] {
            let level = try policy(effect).assess(on: store).level
            #expect(level.isEffectivelyOnce == (level == .deduplicatedByTarget))
        }
    }

    @Test("is refused for an effect in the record's transaction on a store that has none to share, durable or not")
    func localTransactions() throws {
        for store in [Self.plain, Self.memory] {
            let error = try refusal(of: policy(.localTransaction), on: store)
            #expect(error.code == .contradiction)
            #expect(error.problem.contains(store.engine))
        }
    }

    @Test("is at least once for a target that forgets keys before requests stop being repeated")
    func shortMemories() throws {
        let keeps = Effect.deduplicates(keeps: Self.day - .seconds(1))
        let assessment = try policy(keeps).assess(on: Self.sqlite)
        #expect(assessment.level == .atLeastOnce)
        let exact = try policy(.deduplicates(keeps: Self.day)).assess(on: Self.sqlite)
        #expect(exact.level == .deduplicatedByTarget)
        let error = try refusal(of: policy(keeps) { $0.minimum = .deduplicatedByTarget }, on: Self.sqlite)
        #expect(error.code == .overclaim)
        #expect(error.remedy.contains("keeps"))
    }

    @Test("is shown with its horizon: as long as both the key and the target's own key are kept")
    func horizons() throws {
        let retention = Retention(response: Self.day, key: Self.day * 30)
        #expect(try policy(.unknown) { $0.retention = retention }.assess(on: Self.sqlite).horizon == Self.day * 30)
        #expect(try policy(.deduplicates(keeps: Self.day * 7)) { $0.retention = retention }.assess(on: Self.sqlite).horizon == Self.day * 7)
        #expect(try policy(.deduplicates(keeps: Self.day * 90)) { $0.retention = retention }.assess(on: Self.sqlite).horizon == Self.day * 30)
    }

    @Test("is refused when the key is forgotten before requests stop being repeated (H22)")
    func retentions() throws {
        for effect in [Effect.localTransaction, Self.deduplicates, Self.fenced, Self.queryable, .unknown] {
            let late = policy(effect) {
                $0.retention = Retention(response: Self.day, key: Self.day * 7)
                $0.horizon = Self.day * 7 + .seconds(1)
            }
            let error = try refusal(of: late, on: Self.sqlite)
            #expect(error.code == .retention)
            #expect(error.problem.contains("7d") || error.problem.contains("168h"))
        }
        let exact = policy(.unknown) {
            $0.retention = Retention(response: Self.day, key: Self.day * 7)
            $0.horizon = Self.day * 7
        }
        #expect(try exact.assess(on: Self.sqlite).level == .atMostOnce)
    }

    @Test("sinks when requests run unprotected while the store is down, or when nothing is enforced")
    func openDoors() throws {
        for effect in [Effect.localTransaction, Self.fenced, Self.queryable, .unknown] {
            let open = try policy(effect) { $0.onStoreFailure = .open }.assess(on: Self.sqlite)
            // What may lose work anyway, and now doubles it too, promises nothing.
            #expect(open.level == (effect == .unknown ? .bestEffort : .atLeastOnce))
            #expect(open.reasons.last?.contains("onStoreFailure") == true)
        }
        let deduplicated = try policy(Self.deduplicates) { $0.onStoreFailure = .open }.assess(on: Self.sqlite)
        #expect(deduplicated.level == .deduplicatedByTarget)
        for mode in [Mode.off, .observe] {
            #expect(try policy(Self.deduplicates) { $0.mode = mode }.assess(on: Self.sqlite).level == .bestEffort)
            let error = try refusal(of: policy(.unknown) { ($0.mode, $0.minimum) = (mode, .atMostOnce) }, on: Self.sqlite)
            #expect(error.code == .overclaim)
        }
    }

    @Test("is refused when an error is to rerun an effect that cannot bear it: it would run again without asking")
    func reruns() throws {
        for effect in [Self.fenced, Self.queryable, .unknown] {
            let error = try refusal(of: policy(effect) { $0.onError = .rerun }, on: Self.sqlite)
            #expect(error.code == .contradiction)
            #expect(error.problem.contains("onError") && error.remedy.contains("onError: uncertain"))
        }
        for effect in [Effect.localTransaction, Self.deduplicates] {
            #expect(try policy(effect) { $0.onError = .rerun }.assess(on: Self.sqlite).onError == .rerun)
        }
        for rule in [ErrorRule.replay, .uncertain] {
            for effect in [Effect.localTransaction, Self.deduplicates, Self.fenced, Self.queryable, .unknown] {
                #expect(try policy(effect) { $0.onError = rule }.assess(on: Self.sqlite).onError == rule)
            }
        }
    }

    @Test("is refused for a lease that no heartbeat could keep alive")
    func shortLeases() throws {
        #expect(try refusal(of: policy(.unknown) { $0.lease = .milliseconds(49) }, on: Self.sqlite).code == .contradiction)
        #expect(try policy(.unknown) { $0.lease = .milliseconds(50) }.assess(on: Self.sqlite).level == .atMostOnce)
    }

    @Test("what a pinned policy says about asking its target is read back from its text (H57)", arguments: [
        Effect.queryable(inFlight: .seconds(30), isFenced: true), .queryable(inFlight: .milliseconds(250), isFenced: false),
        .queryable(inFlight: .zero, isFenced: false), .queryable(inFlight: .seconds(86_400), isFenced: false),
    ])
    func pinnedEffect(_ effect: Effect) throws {
        let policy = try ActivePolicy(Policy(scene: "s", effect: effect), on: Self.sqlite)
        #expect(policy.pinned.queryableEffect == effect)
        #expect(PinnedPolicy(scene: "s", text: "effect=unknown minimum=none").queryableEffect == nil)
        #expect(PinnedPolicy(scene: "s", text: #"{"effect":"queryable"}"#).queryableEffect == nil)
    }
}
