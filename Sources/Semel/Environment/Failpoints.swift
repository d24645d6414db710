internal import Foundation
internal import SemelCore
#if canImport(Glibc)
internal import Glibc
#endif

/// A named place between two steps of I/O where a test may kill or pause the process.
public struct Failpoint: Hashable, Sendable, CustomStringConvertible {
    public let description: String

    public init(_ name: String) { description = name }

    public static let beforeClaim = Failpoint("beforeClaim")
    public static let afterClaim = Failpoint("afterClaim")
    /// The request was written to the upstream; nothing came back yet.
    public static let afterSend = Failpoint("afterSend")
    /// The upstream's whole answer is here; nothing is recorded yet.
    public static let afterAnswer = Failpoint("afterAnswer")
    public static let afterRecord = Failpoint("afterRecord")
    public static let beforeReply = Failpoint("beforeReply")
    /// A response too large to keep is being sent.
    public static let whileStreaming = Failpoint("whileStreaming")
    public static let whileRenewing = Failpoint("whileRenewing")
    /// A store's transaction holds its writes and is not committed.
    public static let beforeCommit = Failpoint("beforeCommit")
    public static let afterCommit = Failpoint("afterCommit")
    /// The effect's target was asked; the answer is not recorded yet.
    public static let whileVerifying = Failpoint("whileVerifying")

    public static let all: [Failpoint] = [
        .beforeClaim, .afterClaim, .afterSend, .afterAnswer, .afterRecord, .beforeReply, .whileStreaming, .whileRenewing,
        .beforeCommit, .afterCommit, .whileVerifying,
    ]
}

/// Which failpoints do what. Off, passing one costs a test of one constant flag.
///
/// `SEMEL_FAILPOINTS` arms them in a process: `afterClaim=kill`, `afterSend=kill@3` (the third passing),
/// `whileRenewing=pause:2s`, several separated by commas. `SEMEL_FAILPOINT_LOG` names a file that gets a synced line for
/// each that fires, so a test can assert that it did.
public struct Failpoints: Sendable {
    public enum Action: Sendable {
        /// `kill -9` of this process.
        case kill
        /// The thread stands still.
        case pause(Duration)
        /// Whatever a simulation wants.
        case call(@Sendable (Failpoint) -> Void)
    }

    private final class Armed: Sendable {
        let actions: [Failpoint: (passing: Int, action: Action)]
        let passings = Locked([Failpoint: Int]())
        let log: String?

        init(_ actions: [Failpoint: (passing: Int, action: Action)], log: String?) {
            self.actions = actions
            self.log = log
        }
    }

    private let armed: Armed?

    public static let none = Failpoints(armed: nil)

    private init(armed: Armed?) { self.armed = armed }

    /// Arms failpoints: each acts once, at its `passing`-th passing (from 1).
    public init(_ actions: [Failpoint: (passing: Int, action: Action)]) {
        self.init(armed: Armed(actions, log: nil))
    }

    /// Those of `SEMEL_FAILPOINTS`. A text that cannot be understood ends the process: a fault test must not run faultless.
    public static let fromProcessEnvironment: Failpoints = {
        let variables = ProcessInfo.processInfo.environment
        guard let text = variables["SEMEL_FAILPOINTS"], !text.isEmpty else { return .none }
        guard let actions = parse(text) else {
            fatalError("SEMEL_FAILPOINTS: cannot understand \"\(text)\"; write for example afterClaim=kill@2,whileRenewing=pause:2s")
        }
        return Failpoints(armed: Armed(actions, log: variables["SEMEL_FAILPOINT_LOG"]))
    }()

    static func parse(_ text: String) -> [Failpoint: (passing: Int, action: Action)]? {
        var actions: [Failpoint: (passing: Int, action: Action)] = [:]
        for item in text.split(separator: ",") {
            let sides = item.split(separator: "=", maxSplits: 1)
            guard sides.count == 2 else { return nil }
            let point = Failpoint(String(sides[0]))
            guard Failpoint.all.contains(point) else { return nil }
            let parts = sides[1].split(separator: "@", maxSplits: 1)
            guard let passing = parts.count == 2 ? Int(parts[1]) : 1, passing > 0 else { return nil }
            if parts[0] == "kill" {
                actions[point] = (passing, .kill)
            } else if parts[0].hasPrefix("pause:"), let duration = try? DurationText.parse(String(parts[0].dropFirst(6))) {
                actions[point] = (passing, .pause(duration))
            } else {
                return nil
            }
        }
        return actions
    }

    /// Marks that execution is at `point`.
    @inline(__always)
    public func pass(_ point: Failpoint) {
        if let armed { Self.act(armed, at: point) }
    }

    private static func act(_ armed: Armed, at point: Failpoint) {
        guard let (passing, action) = armed.actions[point] else { return }
        let count = armed.passings.withLock { passings in
            passings[point, default: 0] += 1
            return passings[point]!
        }
        guard count == passing else { return }
        if let log = armed.log { record(point, in: log) }
        switch action {
        case .kill:
            kill(getpid(), SIGKILL)
            while true { sleep(1) }
        case .pause(let duration):
            let (seconds, attoseconds) = duration.components
            usleep(UInt32(seconds * 1_000_000 + attoseconds / 1_000_000_000_000))
        case .call(let body):
            body(point)
        }
    }

    private static func record(_ point: Failpoint, in path: String) {
        let file = open(path, O_WRONLY | O_APPEND | O_CREAT, 0o644)
        guard file >= 0 else { fatalError("SEMEL_FAILPOINT_LOG: cannot write \(path)") }
        let line = Array("\(point)\n".utf8)
        _ = line.withUnsafeBytes { write(file, $0.baseAddress, $0.count) }
        fsync(file)
        close(file)
    }
}
