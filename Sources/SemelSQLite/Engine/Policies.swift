import Semel

/// The policies that records are pinned to. There are few, so all are in memory; rows name them by a small number.
struct Policies {
    private var numbers: [PolicyHash: Int64] = [:]
    private var kept: [Int64: PinnedPolicy] = [:]
    private let insert: Statement

    init(_ database: Database) throws(SQLiteError) {
        insert = try database.prepare("INSERT INTO semel_policy (id, hash, scene, text) VALUES (?1, ?2, ?3, ?4)")
        let read = try database.prepare("SELECT id, scene, text FROM semel_policy", isPersistent: false)
        while try read.step() {
            let policy = PinnedPolicy(scene: read.text(1), text: read.text(2))
            numbers[policy.hash] = read.integer(0)
            kept[read.integer(0)] = policy
        }
    }

    func hash(of number: Int64) -> PolicyHash? { kept[number]?.hash }
    func number(of hash: PolicyHash) -> Int64? { numbers[hash] }
    func policy(_ hash: PolicyHash) -> PinnedPolicy? { numbers[hash].flatMap { kept[$0] } }

    /// - Returns: whether the policy is new here.
    mutating func add(_ policy: PinnedPolicy) throws(SQLiteError) -> Bool {
        guard numbers[policy.hash] == nil else { return false }
        let number = (kept.keys.max() ?? 0) + 1
        try insert.bind(number, at: 1)
        var writer = ByteWriter()
        writer.write(policy.hash.high)
        writer.write(policy.hash.low)
        try insert.bind(writer.bytes, at: 2)
        try insert.bind(policy.scene, at: 3)
        try insert.bind(policy.text, at: 4)
        try insert.run()
        numbers[policy.hash] = number
        kept[number] = policy
        return true
    }

    mutating func remove(_ hash: PolicyHash) {
        if let number = numbers.removeValue(forKey: hash) { kept[number] = nil }
    }
}
