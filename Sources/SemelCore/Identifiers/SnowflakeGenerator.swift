/// Issues identifiers of 63 bits in the manner of Twitter's Snowflake, each greater than the one before it: 41 bits of
/// milliseconds since an epoch of your own, the number of the node, and a sequence within the millisecond in what is left
/// of the 22 bits.
///
/// Identifiers are unique as long as **no two generators with one node number run at once**; that is for the caller to
/// arrange. A generator refuses when the clock goes back (H34). It remembers only its own identifiers: after a restart, pass
/// the time up to which the previous one may have issued, or a clock that was set back in between goes unnoticed.
///
/// It is a value and takes the time from outside. Share one through ``Locked``; a copy would issue the same identifiers.
public struct SnowflakeGenerator: Sendable {
    /// How an identifier's bits are divided.
    public struct Layout: Hashable, Sendable {
        /// The first millisecond, counted from 1970. It must never change: identifiers would be issued again.
        public let epoch: Int64
        /// How many bits the node's number takes; the sequence takes the rest of 22.
        public let nodeBits: Int

        /// - Parameter epoch: milliseconds since 1970; identifiers last for 69 years from then on.
        /// - Throws: when a layout has not 0–21 bits for nodes.
        public init(epoch: Int64 = 1_704_067_200_000, nodeBits: Int = 10) throws(SnowflakeConfigurationError) {
            guard (0...21).contains(nodeBits) else { throw .nodeBits(nodeBits) }
            self.epoch = epoch
            self.nodeBits = nodeBits
        }

        /// How many identifiers a node can issue in a millisecond.
        public var identifiersPerMillisecond: Int64 { 1 << Int64(22 - nodeBits) }

        /// The greatest number of a node.
        public var greatestNode: Int64 { 1 << Int64(nodeBits) - 1 }
    }

    public let layout: Layout
    public let node: Int64
    private var last: (milliseconds: Int64, sequence: Int64)?

    /// - Parameters:
    ///   - node: this generator's number, which no other running generator has.
    ///   - issuedUntil: milliseconds since 1970 up to which (inclusive) a previous generator of this node may have issued.
    ///     Nothing is issued until the clock has passed it.
    public init(node: Int64, layout: Layout, issuedUntil: Int64? = nil) throws(SnowflakeConfigurationError) {
        guard (0...layout.greatestNode).contains(node) else { throw .node(node, greatest: layout.greatestNode) }
        self.node = node
        self.layout = layout
        last = issuedUntil.map { ($0, layout.identifiersPerMillisecond - 1) }
    }

    /// Issues an identifier.
    ///
    /// - Parameter milliseconds: the time since 1970.
    /// - Throws: when the clock went back, the millisecond is exhausted, or the time is outside the 69 years of the epoch.
    ///   Nothing is issued then and the generator goes on from where it was.
    public mutating func next(milliseconds: Int64) throws(IdentifierError) -> Int64 {
        let (elapsed, overflow) = milliseconds.subtractingReportingOverflow(layout.epoch)
        guard !overflow, (0..<1 << 41).contains(elapsed) else { throw .timeOutOfRange }
        var sequence: Int64 = 0
        if let last, milliseconds <= last.milliseconds {
            guard milliseconds == last.milliseconds else {
                throw .clockWentBack(by: .milliseconds(last.milliseconds) - .milliseconds(milliseconds))
            }
            guard last.sequence + 1 < layout.identifiersPerMillisecond else { throw .exhausted }
            sequence = last.sequence + 1
        }
        last = (milliseconds, sequence)
        return elapsed << 22 | node << Int64(22 - layout.nodeBits) | sequence
    }
}

/// Why a generator cannot be set up.
public enum SnowflakeConfigurationError: Error, Hashable, Sendable, CustomStringConvertible {
    case nodeBits(Int)
    case node(Int64, greatest: Int64)

    public var description: String {
        switch self {
        case .nodeBits(let bits): "\(bits) bits for the node are not possible; choose 0 to 21"
        case .node(let node, let greatest): "the node number \(node) does not fit; choose 0 to \(greatest)"
        }
    }
}
