/// Which elements were entered within the last window of time; exact, and bounded in memory.
///
/// Time is cut into slices, and a slice leaves as a whole: an element is remembered for at least the window, and at most
/// for one slice longer. Forgetting costs nothing per element. Elements are compared whole, never by a hash alone, so
/// no element is ever taken for another.
///
/// It never forgets early: when it is full, an element is refused (``Answer/full``) until a slice leaves.
public struct SlidingWindowSet<Element: Hashable> {
    public enum Answer: Hashable, Sendable {
        /// It was not there, and is now.
        case entered
        /// It was entered within the window.
        case present
        /// There is no room until the oldest slice leaves, which is then.
        case full(until: Timestamp)
    }

    fileprivate struct Slice {
        var end: Timestamp
        var elements: Set<Element> = []
    }

    public let window: Duration
    /// The most elements it holds.
    public let limit: Int
    private let slice: Duration
    private var slices: [Slice] = []
    private var latest = Timestamp.distantPast
    public private(set) var count = 0

    /// - Parameter slices: into how many parts the window is cut; each question looks into all of them.
    public init(window: Duration, limit: Int, slices: Int = 8) {
        precondition(window > .zero && slices > 0, "a window has a length, and at least one slice")
        self.window = window
        self.limit = max(0, limit)
        slice = max(window / slices, .microseconds(1))
    }

    /// Enters an element, unless it is there.
    /// - Parameter now: a time that goes back counts as the latest one seen.
    public mutating func enter(_ element: Element, at now: Timestamp) -> Answer {
        advance(to: now)
        if slices.contains(where: { $0.elements.contains(element) }) { return .present }
        guard count < limit else { return .full(until: (slices.first?.end ?? latest) + window) }
        if slices.last.map({ latest >= $0.end }) ?? true { slices.append(Slice(end: latest + slice)) }
        slices[slices.count - 1].elements.insert(element)
        count += 1
        return .entered
    }

    public func contains(_ element: Element, at now: Timestamp) -> Bool {
        let now = max(latest, now)
        return slices.contains { now < $0.end + window && $0.elements.contains(element) }
    }

    /// Takes an element out again.
    public mutating func remove(_ element: Element) {
        for index in slices.indices where slices[index].elements.remove(element) != nil {
            count -= 1
            return
        }
    }

    private mutating func advance(to now: Timestamp) {
        latest = max(latest, now)
        while let first = slices.first, latest >= first.end + window {
            count -= first.elements.count
            slices.removeFirst()
        }
    }
}

extension SlidingWindowSet: Sendable where Element: Sendable {}
extension SlidingWindowSet.Slice: Sendable where Element: Sendable {}
