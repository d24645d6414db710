/// A cache bounded by the number and the cost of what it holds.
///
/// It evicts by the CLOCK rule (Corbató 1968): whatever was asked for since the hand last came by is spared once. So
/// a question costs one look into a dictionary and no reordering.
package struct ClockCache<Key: Hashable, Value> {
    fileprivate struct Slot {
        var key: Key
        var value: Value
        var cost: Int
        var wasAskedFor: Bool
    }

    package let countLimit: Int
    package let costLimit: Int
    package private(set) var cost = 0
    private var slots: [Slot?] = []
    private var places: [Key: Int] = [:]
    private var free: [Int] = []
    private var hand = 0

    package init(countLimit: Int, costLimit: Int) {
        self.countLimit = max(0, countLimit)
        self.costLimit = max(0, costLimit)
    }

    package var count: Int { places.count }

    package mutating func value(for key: Key) -> Value? {
        guard let place = places[key] else { return nil }
        slots[place]?.wasAskedFor = true
        return slots[place]?.value
    }

    /// Keeps a value, in place of an older one, and evicts others for it. What costs more than an eighth of everything is
    /// not kept: it would evict too much for one key.
    package mutating func insert(_ value: Value, for key: Key, cost: Int = 1) {
        remove(key)
        guard countLimit > 0, cost <= max(1, costLimit / 8) else { return }
        while places.count >= countLimit || self.cost + cost > costLimit {
            guard evictOne() else { return }
        }
        let slot = Slot(key: key, value: value, cost: cost, wasAskedFor: false)
        if let place = free.popLast() {
            slots[place] = slot
            places[key] = place
        } else {
            places[key] = slots.count
            slots.append(slot)
        }
        self.cost += cost
    }

    package mutating func remove(_ key: Key) {
        guard let place = places.removeValue(forKey: key), let slot = slots[place] else { return }
        cost -= slot.cost
        slots[place] = nil
        free.append(place)
    }

    package mutating func removeAll() {
        self = ClockCache(countLimit: countLimit, costLimit: costLimit)
    }

    private mutating func evictOne() -> Bool {
        guard !places.isEmpty else { return false }
        // Every slot is passed at most twice: the first time takes its mark away.
        while true {
            hand = hand + 1 < slots.count ? hand + 1 : 0
            guard let slot = slots[hand] else { continue }
            if slot.wasAskedFor {
                slots[hand]?.wasAskedFor = false
            } else {
                remove(slot.key)
                return true
            }
        }
    }
}

extension ClockCache: Sendable where Key: Sendable, Value: Sendable {}
extension ClockCache.Slot: Sendable where Key: Sendable, Value: Sendable {}
