import SemelCore
import Testing

@Suite("Durations and sizes as text")
struct UnitTextTests {
    @Test("durations are read and written in their units", arguments: [
        ("0ms", .zero), ("1ms", .milliseconds(1)), ("250ms", .milliseconds(250)), ("30s", .seconds(30)), ("10m", .seconds(600)),
        ("23h", .seconds(23 * 3600)), ("30d", .seconds(30 * 86_400)), ("36500d", DurationText.maximum),
    ] as [(String, Duration)])
    func durations(text: String, duration: Duration) throws {
        #expect(try DurationText.parse(text) == duration)
        #expect(DurationText.format(duration) == text)
    }

    @Test("an hour is an hour, in whatever unit it is written (R3)")
    func hour() throws {
        // The naive reader hands the number to a typed duration in that type's own unit: 3600 becomes 3.6 µs.
        for text in ["3600s", "60m", "1h", "3600000ms", "03600s"] {
            #expect(try DurationText.parse(text) == .seconds(3600), "\(text)")
        }
        #expect(try DurationText.parse("24h") == DurationText.parse("1d"))
        #expect(DurationText.format(.seconds(3600)) == "1h")
        #expect(DurationText.format(.microseconds(3600)) == "4ms")
    }

    @Test("a bare number is refused, and the error says which units there are (R3)", arguments: ["0", "30", "3600"])
    func bareNumbers(text: String) {
        let duration = #expect(throws: UnitTextError.self) { _ = try DurationText.parse(text) }
        #expect(duration?.problem == "the unit is missing")
        #expect(duration?.remedy == "write \(text)ms, \(text)s, \(text)m, \(text)h or \(text)d")
        let size = #expect(throws: UnitTextError.self) { _ = try ByteSizeText.parse(text) }
        #expect(size?.remedy == "write \(text)B, \(text)KiB, \(text)MiB or \(text)GiB")
    }

    @Test("what is no duration is refused with what to write instead", arguments: [
        ("", "30s"), ("s", "30s"), ("-1s", "30s"), ("+1s", "30s"), ("1.5h", "smaller unit"), ("1 s", "30s"), ("1S", "write one of"), ("1sec", "write 1s"),
        ("2 minutes", "30s"), ("2minutes", "write 2m"), ("2Days", "write 2d"), ("1h30m", "write one of"), ("1us", "write one of"), ("1w", "write one of"),
        ("36501d", "at most 36500d"), ("9223372036854775807d", "at most 36500d"), ("99999999999999999999999ms", "at most 36500d"),
        ("٣s", "30s"), ("1ｓ", "write one of"), (" 1s", "30s"), ("1s ", "write one of"), ("infinity", "30s"), ("1e3s", "write one of"),
    ])
    func refusedDurations(text: String, remedy: String) {
        let error = #expect(throws: UnitTextError.self) { _ = try DurationText.parse(text) }
        #expect(error?.remedy.contains(remedy) == true, "\(text): \(String(describing: error))")
        #expect(error?.description.hasPrefix("'\(text)': ") == true)
    }

    @Test("formatting rounds up to a millisecond and never traps")
    func formatting() {
        #expect(DurationText.format(.nanoseconds(1)) == "1ms")
        #expect(DurationText.format(.seconds(90)) == "90s")
        #expect(DurationText.format(.milliseconds(1_001)) == "1001ms")
        #expect(DurationText.format(.seconds(-5)) == "-5s")
        #expect(DurationText.format(.seconds(Int64.max)) == "\(Int64.max)s")
    }

    @Test("sizes are read and written in their units", arguments: [
        ("0B", 0), ("1B", 1), ("1023B", 1023), ("256KiB", 262_144), ("1MiB", 1_048_576), ("3GiB", 3_221_225_472), ("1048576GiB", 1 << 50),
    ])
    func sizes(text: String, bytes: Int) throws {
        #expect(try ByteSizeText.parse(text) == bytes)
        #expect(ByteSizeText.format(bytes) == text)
    }

    @Test("units that some read as 1000 and some as 1024 are refused with the one to write", arguments: [
        ("1KB", "write 1KiB"), ("5kb", "write 5KiB"), ("1M", "write 1MiB"), ("1gb", "write 1GiB"), ("1bytes", "write 1B"), ("1TiB", "write one of"),
        ("1.5MiB", "smaller unit"), ("-1B", "1MiB"), ("1048577GiB", "at most 1048576GiB"), ("", "1MiB"),
    ])
    func refusedSizes(text: String, remedy: String) {
        let error = #expect(throws: UnitTextError.self) { _ = try ByteSizeText.parse(text) }
        #expect(error?.remedy.contains(remedy) == true, "\(text): \(String(describing: error))")
    }

    @Test("what was written is read back")
    func roundTrip() throws {
        var random = SeededRandom.fresh()
        for _ in 0..<1_000 {
            let duration = Duration.milliseconds(Int64.random(in: 0...10_000_000_000, using: &random))
            #expect(try DurationText.parse(DurationText.format(duration)) == duration, "seed \(random.seed)")
            let bytes = Int.random(in: 0...1 << 40, using: &random)
            #expect(try ByteSizeText.parse(ByteSizeText.format(bytes)) == bytes, "seed \(random.seed)")
        }
    }
}
