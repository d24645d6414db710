/// Carries a value that is not Sendable to the one task that takes it, and no further.
final class HandOver<Value>: @unchecked Sendable {
    // Sendable is unchecked: who made it awaits the taker before touching it again.
    private var value: Value?

    init(_ value: Value) {
        self.value = value
    }

    func take() -> Value? {
        defer { value = nil }
        return value
    }
}
