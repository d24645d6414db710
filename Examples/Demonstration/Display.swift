import Foundation
import Synchronization

/// Where the demonstration tells what happens: one live line at a terminal, plain lines elsewhere.
final class Display: Sendable {
    let isTerminal = isatty(STDOUT_FILENO) == 1
    private let clock = ContinuousClock()
    private let start = ContinuousClock().now
    private let lastProgress = Mutex<ContinuousClock.Instant?>(nil)

    /// A line that stays.
    func say(_ text: String) { write((isTerminal ? "\r\u{1B}[K" : "") + stamped(text) + "\n") }

    /// How far it is. At a terminal the line is written over; elsewhere one is written a second.
    func progress(_ text: String) {
        if isTerminal {
            write("\r\u{1B}[K" + stamped(text))
            return
        }
        let isDue = lastProgress.withLock { last in
            if let last, last.duration(to: clock.now) < .seconds(1) { return false }
            last = clock.now
            return true
        }
        if isDue { write(stamped(text) + "\n") }
    }

    private func stamped(_ text: String) -> String {
        if text.isEmpty || text.contains("\n") { return text }
        let elapsed = start.duration(to: clock.now)
        let seconds = Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) * 1e-18
        return String(format: "%6.1fs  ", seconds) + text
    }

    /// In one piece: several tasks speak.
    private func write(_ text: String) { FileHandle.standardOutput.write(Data(text.utf8)) }
}
