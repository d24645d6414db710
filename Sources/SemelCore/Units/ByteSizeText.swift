/// Sizes as they are written in configurations: `512B`, `256KiB`, `1MiB`, `2GiB`.
public enum ByteSizeText {
    /// Reads a size in bytes: a whole number and one unit, without a space.
    ///
    /// - Throws: for anything else, with what to write instead. A bare number is refused, and so are `KB` and `MB`, which
    ///   some read as 1000 and some as 1024 (R3).
    public static func parse(_ text: String) throws(UnitTextError) -> Int {
        Int(try units.parse(text))
    }

    /// Writes a size in the largest unit that gives a whole number.
    public static func format(_ bytes: Int) -> String {
        units.format(Int64(bytes))
    }

    private static let units = UnitText(
        units: [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)],
        foreign: [
            "b": "B", "byte": "B", "bytes": "B", "k": "KiB", "kb": "KiB", "kib": "KiB", "m": "MiB", "mb": "MiB", "mib": "MiB", "g": "GiB",
            "gb": "GiB", "gib": "GiB",
        ],
        kind: "size", example: "256KiB or 1MiB", maximum: 1 << 50)
}
