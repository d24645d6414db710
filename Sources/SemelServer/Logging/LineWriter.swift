internal import Dispatch
internal import Foundation
internal import SemelCore
#if canImport(Glibc)
internal import Glibc
#endif

/// Writes whole lines to a file descriptor from a thread of its own.
///
/// A caller never waits for the reader at the other end: lines gather in memory while a write is under way, and each
/// write takes all that gathered. Beyond ``limit`` bytes new lines are dropped, and how many is said once there is room.
/// A process that is killed loses the lines of its last moment.
package final class LineWriter: Sendable {
    static let limit = 8 << 20

    private struct State {
        var pending: [UInt8] = []
        var dropped = 0
        var isWriting = false
    }

    private let descriptor: CInt
    private let owner: (any AnyObject & Sendable)?
    private let state = Locked(State())
    private let queue = DispatchQueue(label: "semel.log")

    /// - Parameter owner: who closes the descriptor when it goes; kept as long as something may still be written. A number
    ///   that was closed too early is soon another file's, and the lines would land there.
    package init(descriptor: CInt, owner: (any AnyObject & Sendable)? = nil) {
        self.descriptor = descriptor
        self.owner = owner
    }

    package convenience init(_ destination: LogConfiguration.Destination) {
        self.init(descriptor: destination == .standardOutput ? STDOUT_FILENO : STDERR_FILENO)
    }

    package func write(_ line: [UInt8]) {
        let mustStart = state.withLock { state in
            guard state.pending.count + line.count <= Self.limit else {
                state.dropped += 1
                return false
            }
            state.pending += line
            defer { state.isWriting = true }
            return !state.isWriting
        }
        if mustStart { queue.async { self.drain() } }
    }

    /// Returns when everything written so far has been handed to the system. Before the process ends.
    package func flush() { queue.sync { drain() } }

    private func drain() {
        while true {
            let (bytes, dropped) = state.withLock { state in
                defer {
                    state.isWriting = !state.pending.isEmpty
                    state.pending = []
                    state.dropped = 0
                }
                return (state.pending, state.dropped)
            }
            guard !bytes.isEmpty else { return }
            send(bytes)
            if dropped > 0 { send(Array(#"{"level":"warning","message":"\#(dropped) log lines were dropped: whoever reads the log is too slow"}"#.utf8) + [0x0A]) }
        }
    }

    private func send(_ bytes: [UInt8]) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { systemWrite(descriptor, $0) }
            if count > 0 {
                rest = rest.dropFirst(count)
            } else if errno == EAGAIN {
                var descriptors = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                poll(&descriptors, 1, 1000)
            } else if errno != EINTR {
                // Nobody reads the log any more; the service goes on without.
                return
            }
        }
    }
}

// Outside the type, whose own `write` hides the system's.
private func systemWrite(_ descriptor: CInt, _ bytes: UnsafeRawBufferPointer) -> Int { write(descriptor, bytes.baseAddress, bytes.count) }
