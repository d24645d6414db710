/// Why no identifier was issued. Each is a refusal: an identifier is never guessed and never issued twice.
public enum IdentifierError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The clock shows less than when the last identifier was issued. Wait until it has caught up, and look at what sets it.
    case clockWentBack(by: Duration)
    /// All identifiers of this millisecond are issued. The next millisecond has new ones.
    case exhausted
    /// The time is before the first or after the last one that the format can hold.
    case timeOutOfRange

    public var description: String {
        switch self {
        case .clockWentBack(let distance): "no identifier was issued: the clock went back by \(distance)"
        case .exhausted: "no identifier was issued: all of this millisecond are used"
        case .timeOutOfRange: "no identifier was issued: the time is outside what the format can hold"
        }
    }
}
