internal import Semel

/// The names of the store's keys.
///
/// A record's name is the prefix, its bucket in braces, and its reference in 16 bytes. The braces make Redis Cluster keep
/// a bucket together, so that one script can change a record and what belongs to the bucket: the index of live records,
/// and the audit entries that are not chained yet. There are 256 buckets, each in a 64th part of its own of the slots.
struct KeySpace: Sendable {
    static let bucketCount = 256

    let prefix: String
    private let heads: [[UInt8]]
    private let slots: [HashSlot]

    init(prefix: String) {
        self.prefix = prefix
        heads = Self.tags.map { Array("\(prefix){\($0)}".utf8) }
        slots = Self.tags.map { HashSlot(of: $0) }
    }

    /// For each bucket the smallest number whose slot lies in its part of the slots. Never to be changed: keys are found by it.
    static let tags: [String] = {
        var tags = [String?](repeating: nil, count: bucketCount)
        var missing = bucketCount
        var number = 0
        while missing > 0 {
            let bucket = Int(HashSlot(of: String(number)).number) / (HashSlot.count / bucketCount)
            if tags[bucket] == nil {
                tags[bucket] = String(number)
                missing -= 1
            }
            number += 1
        }
        return tags.compactMap(\.self)
    }()

    func bucket(of reference: OperationReference) -> Int { Int(reference.high >> 56) }

    func slot(_ bucket: Int) -> HashSlot { slots[bucket] }

    func record(_ reference: OperationReference) -> [UInt8] {
        var name = heads[bucket(of: reference)]
        name.appendNumber(reference.high, bytes: 8)
        name.appendNumber(reference.low, bytes: 8)
        return name
    }

    /// The references of the bucket's live records, by a number of their scope.
    func index(_ bucket: Int) -> [UInt8] { heads[bucket] + [UInt8(ascii: "i")] }

    /// The bucket's audit entries that are not in the chain yet.
    func audit(_ bucket: Int) -> [UInt8] { heads[bucket] + [UInt8(ascii: "a")] }

    /// The reference in a record's name; `nil` for another key.
    func reference(ofName name: [UInt8]) -> OperationReference? {
        guard name.count > 16, let close = name.dropLast(16).last, close == UInt8(ascii: "}") else { return nil }
        func number(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }
        let reference = OperationReference(high: number(name.suffix(16).prefix(8)), low: number(name.suffix(8)))
        return record(reference) == name ? reference : nil
    }

    // What there is once.

    var meta: String { prefix + "meta" }
    var policies: String { prefix + "policies" }
    var auditChain: String { prefix + "audit" }
    var housekeeper: String { prefix + "housekeeper" }
    var channel: String { prefix + "changed" }
    /// The pattern of all names in buckets.
    var pattern: String { prefix + "{*" }

    /// A number of 53 bits by which a scope's live records are counted; collisions count too much, never too little.
    static func number(of scope: Scope) -> UInt64 {
        Digest256(hashing: scope.bytes).bytes.prefix(7).reduce(0) { $0 << 8 | UInt64($1) } >> 3
    }
}

extension OperationReference {
    var bytes: [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendNumber(high, bytes: 8)
        bytes.appendNumber(low, bytes: 8)
        return bytes
    }

    init?(bytes: [UInt8]) {
        guard bytes.count == 16 else { return nil }
        func number(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }
        self.init(high: number(bytes[..<8]), low: number(bytes[8...]))
    }
}
