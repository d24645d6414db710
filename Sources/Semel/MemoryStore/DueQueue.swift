import SemelCore

/// Keys by the time at which something about them expires, earliest first: a binary heap.
struct DueQueue<Key> {
    private var items: [(time: Timestamp, key: Key)] = []

    mutating func insert(_ key: Key, at time: Timestamp) {
        items.append((time, key))
        var child = items.count - 1
        while child > 0, items[child].time < items[(child - 1) / 2].time {
            items.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    /// Takes the earliest key that is due; `nil` when none is.
    mutating func next(at now: Timestamp) -> Key? {
        guard let first = items.first, first.time <= now else { return nil }
        items.swapAt(0, items.count - 1)
        items.removeLast()
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < items.count && items[child].time < items[least].time { least = child }
            guard least != parent else { return first.key }
            items.swapAt(parent, least)
            parent = least
        }
    }
}
