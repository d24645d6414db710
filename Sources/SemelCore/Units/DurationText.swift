/// Durations as they are written in configurations and in the claims API: `250ms`, `30s`, `10m`, `24h`, `30d`.
public enum DurationText {
    /// A hundred years of 365 days: enough for any retention, and far from overflowing a store's microseconds.
    public static let maximum = Duration.seconds(36_500 * 86_400)

    /// Reads a duration: a whole number and one unit, without a space. A day has 24 hours.
    ///
    /// - Throws: for anything else, with what to write instead. A bare number is refused: its unit would be a guess (R3).
    public static func parse(_ text: String) throws(UnitTextError) -> Duration {
        .milliseconds(try units.parse(text))
    }

    /// Writes a duration in the largest unit that gives a whole number, rounded up to a millisecond, so that only zero is
    /// `0ms`. Negative durations have a minus sign, which `parse` refuses.
    public static func format(_ duration: Duration) -> String {
        if duration < .zero { return "-" + format(.zero - duration) }
        let (seconds, attoseconds) = duration.components
        let milliseconds = (attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000
        let (whole, overflow) = seconds.multipliedReportingOverflow(by: 1_000)
        // Beyond 292 million years the milliseconds do not matter.
        guard !overflow, whole <= .max - milliseconds else { return "\(seconds)s" }
        return units.format(whole + milliseconds)
    }

    private static let units = UnitText(
        units: [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)],
        foreign: [
            "sec": "s", "secs": "s", "second": "s", "seconds": "s", "min": "m", "mins": "m", "minute": "m", "minutes": "m", "hour": "h",
            "hours": "h", "hr": "h", "hrs": "h", "day": "d", "days": "d", "msec": "ms", "millis": "ms", "milliseconds": "ms",
        ],
        kind: "duration", example: "250ms, 30s, 10m, 24h or 30d", maximum: 36_500 * 86_400_000)
}
