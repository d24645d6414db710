/// A store broke a law. It reads as what was promised, what happened instead, and everything that was done before.
public struct LawViolation: Error, Hashable, Sendable, CustomStringConvertible {
    /// The law, as a sentence.
    public var law: String
    /// What was to be.
    public var expected: String
    /// What was.
    public var actual: String
    /// What was done, in order, and what the store answered.
    public var history: [String]

    public var description: String {
        let steps = history.enumerated().map { "  \($0 + 1). \($1)" }.joined(separator: "\n")
        return """
            The store breaks the law: \(law).
            Expected: \(expected).
            Actual:   \(actual).
            History:
            \(steps.isEmpty ? "  (nothing was done)" : steps)
            """
    }
}
