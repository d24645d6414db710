import ArgumentParser

/// A duration as written in options and request fields: `250ms`, `30s`, `2m`.
struct Pause: ExpressibleByArgument {
    static let zero = Pause(duration: .zero)

    let duration: Duration

    init(duration: Duration) {
        self.duration = duration
    }

    init?(argument text: String) {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        guard let count = Int64(digits), count <= 1_000_000_000 else { return nil }
        switch text.dropFirst(digits.count) {
        case "us": duration = .microseconds(count)
        case "ms": duration = .milliseconds(count)
        case "s": duration = .seconds(count)
        case "m": duration = .seconds(count * 60)
        default: return nil
        }
    }
}
