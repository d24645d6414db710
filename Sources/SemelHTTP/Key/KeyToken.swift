internal import Semel

/// A key that Semel made for a client that cannot make one: the time it was made, and 128 random bits.
///
/// Nothing is stored when one is made, and using one does not consume it: it is a key like any other, so submitting it
/// twice gives the first result twice (R8). Since it tells its age, it is refused once its record may have been forgotten
/// (H24).
struct KeyToken {
    private static let prefix = "smt_"

    let made: Timestamp
    let text: String

    init(at now: Timestamp, random: () -> UInt64) {
        made = Timestamp(microseconds: now.microseconds / 1000 * 1000)
        text = Self.prefix + Self.digits(UInt64(now.microseconds / 1000), 12) + Self.digits(random(), 16) + Self.digits(random(), 16)
    }

    /// Recognises a token among keys.
    init?(_ key: OperationKey) {
        let text = key.text
        guard text.utf8.count == 48, text.hasPrefix(Self.prefix),
            text.utf8.dropFirst(4).allSatisfy({ ($0 >= 0x30 && $0 <= 0x39) || ($0 >= 0x61 && $0 <= 0x66) }),
            let milliseconds = Int64(text.dropFirst(4).prefix(12), radix: 16)
        else { return nil }
        made = Timestamp(microseconds: milliseconds * 1000)
        self.text = text
    }

    private static func digits(_ value: UInt64, _ count: Int) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: max(0, count - digits.utf8.count)) + digits
    }
}
