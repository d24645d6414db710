public import SemelCore

/// Which shard each key belongs to: the keys are spread over ``slotCount`` slots by the head of their SHA-256, and each
/// slot belongs to one shard.
///
/// A map never changes; moving slots makes the map of the next ``epoch``.
public struct ShardMap: Hashable, Sendable {
    public static let slotCount = 1024

    /// Rises by one with every change.
    public let epoch: UInt64
    /// The names of the shards, in the order in which they were added.
    public let shards: [String]
    /// The shard of each slot, by its place in ``shards``.
    private let owners: [UInt16]

    private static let formatVersion: UInt8 = 1

    private init(epoch: UInt64, shards: [String], owners: [UInt16]) {
        self.epoch = epoch
        self.shards = shards
        self.owners = owners
    }

    /// The first map: every shard has an equal range of slots.
    public init(evenlyOver shards: [String]) {
        precondition(!shards.isEmpty && shards.count <= Self.slotCount, "there are 1 to \(Self.slotCount) shards")
        self.init(epoch: 1, shards: shards, owners: (0..<Self.slotCount).map { UInt16($0 * shards.count / Self.slotCount) })
    }

    /// The slot of a key; the same in every process and every version.
    public static func slot(of reference: OperationReference) -> Int { Int(reference.high >> 54) }
    public static func slot(of id: OperationID) -> Int { slot(of: OperationReference(id)) }

    /// The shard of a slot.
    public func shard(of slot: Int) -> String { shards[Int(owners[slot])] }

    /// The slots of a shard.
    public func slots(of shard: String) -> Set<Int> {
        guard let place = shards.firstIndex(of: shard) else { return [] }
        return Set(owners.indices.filter { owners[$0] == UInt16(place) })
    }

    /// The map after these slots went to a shard, which may be a new one.
    public func moving(_ slots: some Sequence<Int>, to shard: String) -> ShardMap {
        var (shards, owners) = (shards, owners)
        let place = shards.firstIndex(of: shard) ?? shards.count
        if place == shards.count { shards.append(shard) }
        for slot in slots { owners[slot] = UInt16(place) }
        return ShardMap(epoch: epoch + 1, shards: shards, owners: owners)
    }

    // MARK: Storage

    func encoded() -> [UInt8] {
        var writer = ByteWriter()
        writer.write(epoch)
        writer.writeVarint(UInt64(shards.count))
        for shard in shards { writer.writeLengthPrefixed(shard) }
        for owner in owners { writer.write(owner) }
        return ChecksummedFrame.seal(version: Self.formatVersion, payload: writer.bytes)
    }

    init(decoding bytes: [UInt8]) throws(StoreError) {
        do {
            let frame = try ChecksummedFrame(opening: bytes)
            guard frame.version == Self.formatVersion else {
                throw StoreError(.newerSchema, "the shard map has the unknown format version \(frame.version): run the newer program")
            }
            var reader = ByteReader(frame.payload)
            let epoch = try reader.read(UInt64.self)
            var shards: [String] = []
            for _ in 0..<(try reader.readVarint()) { shards.append(try reader.readLengthPrefixedText()) }
            var owners: [UInt16] = []
            for _ in 0..<Self.slotCount { owners.append(try reader.read()) }
            try reader.finish()
            guard owners.allSatisfy({ Int($0) < shards.count }) else {
                throw StoreError(.damaged, "the shard map names a shard that it does not have")
            }
            self.init(epoch: epoch, shards: shards, owners: owners)
        } catch {
            throw error as? StoreError ?? StoreError(.damaged, "the shard map cannot be read: \(error)", underlying: error)
        }
    }
}
