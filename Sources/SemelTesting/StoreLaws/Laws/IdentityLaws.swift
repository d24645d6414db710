import Semel

extension StoreLaw {
    static let identities = [scopesAreSeparate, partsAreSeparate, keysAreBytes]

    public static let scopesAreSeparate = StoreLaw(
        "the same key in another scope is another operation", hazards: ["H33", "H42"]
    ) { trial in
        let ids = [Scope("north", "ada"), Scope("south", "ada"), Scope("north", "ben"), Scope("north")].map { OperationID.sample(in: $0) }
        try await distinct(ids, in: trial)
    }

    public static let partsAreSeparate = StoreLaw(
        "parts that would read the same when joined are different scopes and keys", hazards: ["H30"]
    ) { trial in
        let ids: [OperationID] = [
            .sample("key", in: Scope("ab", "c")), .sample("key", in: Scope("a", "bc")), .sample("key", in: Scope("abc")),
            .sample("key", in: Scope("", "abc")), .sample("key", in: Scope("abc", "")), .sample("ckey", in: Scope("ab")),
            .sample("y", in: Scope("ab", "cke")), .sample("b:c", in: Scope("a")), .sample("c", in: Scope("a:b")),
            .sample("c", in: Scope("a", "b")),
        ]
        try await distinct(ids, in: trial)
    }

    public static let keysAreBytes = StoreLaw(
        "keys are 1 to 255 bytes, compared to the last of them, in their case, without folding", hazards: ["H27", "H28", "H29", "R15"]
    ) { trial in
        let long = [UInt8](repeating: 0x61, count: 254)
        let ids: [OperationID] = [
            .sample("Key"), .sample("key"), .sample("KEY"), .sample("key "), .sample(" key"), .sample("key\0"), .sample("key\0a"),
            .sample("é"), .sample("e\u{301}"), .sample("0"), .sample("00"), .sample("%"), .sample("_"), .sample("'"), .sample("\\"),
            .sample(bytes: [0]), .sample(bytes: [0, 0]), .sample(bytes: [0xff]), .sample(bytes: [0xff, 0xfe]), .sample(bytes: [0xc3, 0x28]),
            .sample(bytes: long), .sample(bytes: long + [0x62]), .sample(bytes: long + [0x63]), .sample(bytes: [0x62] + long),
        ]
        try await distinct(ids, in: trial)
    }

    /// Each id has a life of its own, with an outcome of its own.
    private static func distinct(_ ids: [OperationID], in trial: StoreTrial) async throws {
        for (number, id) in ids.enumerated() {
            let grant = try await trial.grant(id, by: .ada) { $0.fingerprint = .sample("\(number)") }
            try trial.expect(grant.kind, is: .first, "the kind of the grant of \(id.scope), \(id.name)")
            try await trial.perform(.complete(.sample("\(number)")), on: id, with: grant.token)
        }
        for (number, id) in ids.enumerated() {
            let replay = try await trial.claim(id, by: .ben) { $0.fingerprint = .sample("\(number)") }
            try trial.expect(replay.replayed == .sample("\(number)"), "\(id.scope), \(id.name) has its own outcome", actual: replay.summary)
            let found = try await trial.store.operation(OperationReference(id))
            try trial.expect(found?.id == id, "the reference of \(id.scope), \(id.name) finds it, whole", actual: "\(String(describing: found?.id))")
        }
    }
}
