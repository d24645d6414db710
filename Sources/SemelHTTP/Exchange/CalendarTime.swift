internal import Semel

/// A moment in the calendar's terms (UTC), to the second, as HTTP and JSON write it.
struct CalendarTime: Hashable {
    private static let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    private static let weekdays = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]

    /// Whole seconds since 1970, rounded down.
    let seconds: Int64

    init(_ time: Timestamp) {
        // Years beyond 9999 cannot be written.
        seconds = min((time.microseconds - (time.microseconds < 0 ? 999_999 : 0)) / 1_000_000, 253_402_300_799)
    }

    /// Reads an IMF-fixdate (RFC 9110 §5.6.7), such as `Sun, 06 Nov 1994 08:49:37 GMT`.
    init?(httpDate text: String) {
        let bytes = Array(text.utf8)
        guard bytes.count == 29, text.hasSuffix(" GMT"), bytes[3] == UInt8(ascii: ","), bytes[4] == 0x20, bytes[7] == 0x20,
            bytes[11] == 0x20, bytes[16] == 0x20, bytes[19] == UInt8(ascii: ":"), bytes[22] == UInt8(ascii: ":")
        else { return nil }
        func number(_ range: Range<Int>) -> Int64? {
            bytes[range].allSatisfy { $0 >= 0x30 && $0 <= 0x39 } ? bytes[range].reduce(0) { $0 * 10 + Int64($1 - 0x30) } : nil
        }
        guard let day = number(5..<7), let month = Self.months.firstIndex(of: String(decoding: bytes[8..<11], as: UTF8.self)),
            let year = number(12..<16), let hour = number(17..<19), let minute = number(20..<22), let second = number(23..<25),
            year >= 1, (1...31).contains(day), hour < 24, minute < 60, second <= 60
        else { return nil }
        // Days from the civil calendar, with years that begin in March (Howard Hinnant, chrono-compatible algorithms).
        let shifted = month < 2 ? year - 1 : year
        let era = shifted / 400
        let yearOfEra = shifted - era * 400
        let dayOfYear = (153 * ((Int64(month) + 10) % 12) + 2) / 5 + day - 1
        let days = era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
        seconds = days * 86_400 + hour * 3600 + minute * 60 + second
    }

    var timestamp: Timestamp { Timestamp(microseconds: seconds * 1_000_000) }

    /// `Sun, 06 Nov 1994 08:49:37 GMT`
    var httpDate: String {
        let (days, year, month, day) = date
        let second = (seconds % 86_400 + 86_400) % 86_400
        // Every answer carries one: digit by digit, because interpolation takes twenty times as long.
        return String(unsafeUninitializedCapacity: 29) { text in
            var end = 0
            func append(_ part: String) {
                for byte in part.utf8 {
                    text.initializeElement(at: end, to: byte)
                    end += 1
                }
            }
            func append(_ number: Int64, digits: Int) {
                var rest = number
                for place in (end..<end + digits).reversed() {
                    text.initializeElement(at: place, to: UInt8(ascii: "0") + UInt8((rest % 10).magnitude))
                    rest /= 10
                }
                end += digits
            }
            append(Self.weekdays[Int((days % 7 + 7) % 7)])
            append(", ")
            append(day, digits: 2)
            append(" ")
            append(Self.months[Int(month) - 1])
            append(" ")
            append(year, digits: 4)
            append(" ")
            append(second / 3600, digits: 2)
            append(":")
            append(second / 60 % 60, digits: 2)
            append(":")
            append(second % 60, digits: 2)
            append(" GMT")
            return end
        }
    }

    /// `1994-11-06T08:49:37Z` (RFC 3339)
    var internetDate: String {
        let (_, year, month, day) = date
        return "\(Self.four(year))-\(Self.two(month))-\(Self.two(day))T\(time)Z"
    }

    private var date: (days: Int64, year: Int64, month: Int64, day: Int64) {
        let days = (seconds - (seconds < 0 ? 86_399 : 0)) / 86_400
        let shifted = days + 719_468
        let era = (shifted - (shifted < 0 ? 146_096 : 0)) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let month = (5 * dayOfYear + 2) / 153
        let civilMonth = month < 10 ? month + 3 : month - 9
        return (days, yearOfEra + era * 400 + (civilMonth <= 2 ? 1 : 0), civilMonth, dayOfYear - (153 * month + 2) / 5 + 1)
    }

    private var time: String {
        let second = (seconds % 86_400 + 86_400) % 86_400
        return "\(Self.two(second / 3600)):\(Self.two(second / 60 % 60)):\(Self.two(second % 60))"
    }

    private static func two(_ number: Int64) -> String { number < 10 ? "0\(number)" : "\(number)" }
    private static func four(_ number: Int64) -> String {
        let digits = "\(number)"
        return String(repeating: "0", count: max(0, 4 - digits.utf8.count)) + digits
    }
}
