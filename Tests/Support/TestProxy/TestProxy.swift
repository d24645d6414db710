import Foundation
import Semel

/// A TCP proxy on loopback in front of a real server, that does to connections what networks do: stops them, cuts them,
/// loses only the answers, delays.
///
/// It counts what it did, so that a test can fail when its fault did not happen.
public final class TestProxy: Sendable {
    public enum Mode: Sendable {
        case forward
        /// Nothing passes in either direction; connections stay open, new ones are taken and hang.
        case stall
        /// What clients say arrives; what the server answers is lost.
        case dropAnswers
        /// New connections are closed at once.
        case refuse
    }

    private struct State {
        var mode = Mode.forward
        var delay = Duration.zero
        /// Once so many more bytes of answers have passed, every connection is cut.
        var answerBytesLeft: Int?
        /// What a client says that brings its connection to an end, and whether the server still hears it.
        var lastWords: (text: [UInt8], isHeard: Bool)?
        var sockets: Set<Int32> = []
        var cuts = 0
        var droppedBytes = 0
        var connections = 0
        var isClosed = false
    }

    public let port: Int
    private let target: UInt16
    private let listener: Int32
    private let state = Locked(State())

    /// Listens on a free port, in front of a port of this machine.
    public init(to port: Int) throws {
        target = UInt16(port)
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard listener >= 0 else { throw ProxyError(description: "no socket: \(errno)") }
        _ = fcntl(listener, F_SETFD, FD_CLOEXEC)
        var address = Self.loopback(0)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let code = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(listener, $0, length) == 0 && listen(listener, 64) == 0 && getsockname(listener, $0, &length) == 0 }
        }
        guard code else {
            close(listener)
            throw ProxyError(description: "cannot listen: \(errno)")
        }
        self.listener = listener
        self.port = Int(UInt16(bigEndian: address.sin_port))
        let (state, target) = (state, target)
        Thread.detachNewThread { Self.accept(listener, target, state) }
    }

    deinit { end() }

    public var mode: Mode {
        get { state.withLock { $0.mode } }
        set { state.withLock { $0.mode = newValue } }
    }

    /// How long every piece is held back, in each direction.
    public var delay: Duration {
        get { state.withLock { $0.delay } }
        set { state.withLock { $0.delay = newValue } }
    }

    /// Connections taken so far.
    public var connections: Int { state.withLock { $0.connections } }
    /// Connections cut so far.
    public var cuts: Int { state.withLock { $0.cuts } }
    /// Bytes of answers that were lost.
    public var droppedBytes: Int { state.withLock { $0.droppedBytes } }

    /// Cuts every connection there is.
    public func cut() { state.withLock { Self.cut(&$0) } }

    /// Cuts every connection after so many more bytes of answers.
    public func cut(afterAnswerBytes count: Int) { state.withLock { $0.answerBytesLeft = count } }

    /// Cuts the connection on which a client next says something that contains `text`.
    /// - Parameter isHeard: whether the server still hears it; the answer is lost in any case.
    public func cut(whenSaid text: String, isHeard: Bool) { state.withLock { $0.lastWords = (Array(text.utf8), isHeard) } }

    /// Cuts everything, and listens no more.
    public func end() {
        let isFirst = state.withLock { state in
            defer { state.isClosed = true }
            Self.cut(&state)
            return !state.isClosed
        }
        if isFirst { shutdown(listener, Int32(SHUT_RDWR)) }
    }

    private static func cut(_ state: inout State) {
        for socket in state.sockets { shutdown(socket, Int32(SHUT_RDWR)) }
        state.cuts += state.sockets.count / 2
    }

    // MARK: The threads

    private static func loopback(_ port: UInt16) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        return address
    }

    private static func accept(_ listener: Int32, _ target: UInt16, _ state: Locked<State>) {
        defer { close(listener) }
        while true {
            let client = Foundation.accept(listener, nil, nil)
            guard client >= 0 else {
                if errno == EINTR || errno == ECONNABORTED { continue }
                return
            }
            let (isClosed, mode) = state.withLock { ($0.isClosed, $0.mode) }
            let server = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
            for end in [client, server] {
                _ = fcntl(end, F_SETFD, FD_CLOEXEC)
                var one: Int32 = 1
                setsockopt(end, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
            }
            var address = loopback(target)
            let isConnected = withUnsafePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(server, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0 }
            }
            if isClosed { close(client); close(server); return }
            if case .refuse = mode {
                // A child that was just being started may hold it open.
                shutdown(client, Int32(SHUT_RDWR))
                close(client)
                close(server)
                continue
            }
            guard isConnected else { close(client); close(server); continue }
            state.withLock { state in
                state.connections += 1
                state.sockets.formUnion([client, server])
            }
            let remaining = Locked(2)
            for (from, to, isAnswer) in [(client, server, false), (server, client, true)] {
                Thread.detachNewThread {
                    relay(from, to, isAnswer, state)
                    // Both directions end together; the last one gives the sockets back.
                    shutdown(from, Int32(SHUT_RDWR))
                    shutdown(to, Int32(SHUT_RDWR))
                    let isLast = remaining.withLock { count in
                        count -= 1
                        return count == 0
                    }
                    guard isLast else { return }
                    state.withLock { $0.sockets.subtract([from, to]) }
                    close(from)
                    close(to)
                }
            }
        }
    }

    private static func relay(_ from: Int32, _ to: Int32, _ isAnswer: Bool, _ state: Locked<State>) {
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = recv(from, &buffer, buffer.count, 0)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return }
            let delay = state.withLock { $0.delay }
            if delay > .zero { usleep(UInt32(delay / .microseconds(1))) }
            while case .stall = state.withLock({ $0.mode }) {
                usleep(5000)
                if state.withLock({ !$0.sockets.contains(from) || $0.isClosed }) { return }
            }
            if !isAnswer, let isHeard = takeLastWords(buffer[..<count], state) {
                shutdown(from, Int32(SHUT_RDWR))
                guard isHeard else { return }
                _ = buffer.withUnsafeBytes { send(to, $0.baseAddress, count, Int32(MSG_NOSIGNAL)) }
                // Time to act on it.
                usleep(300_000)
                return
            }
            var length = count
            var cutsAfter = false
            let isDropped = state.withLock { state in
                if isAnswer, case .dropAnswers = state.mode {
                    state.droppedBytes += count
                    return true
                }
                if isAnswer, let left = state.answerBytesLeft {
                    length = min(count, left)
                    state.answerBytesLeft = left - length
                    cutsAfter = left - length == 0
                }
                return false
            }
            if isDropped { continue }
            var sent = 0
            while sent < length {
                let written = buffer.withUnsafeBytes { send(to, $0.baseAddress! + sent, length - sent, Int32(MSG_NOSIGNAL)) }
                if written < 0, errno == EINTR { continue }
                guard written > 0 else { return }
                sent += written
            }
            if cutsAfter {
                state.withLock { state in
                    state.answerBytesLeft = nil
                    cut(&state)
                }
                return
            }
        }
    }
}

extension TestProxy {
    /// Whether these bytes are what a client's connection is to end with; `nil` when they are not, else whether they are heard.
    private static func takeLastWords(_ bytes: ArraySlice<UInt8>, _ state: Locked<State>) -> Bool? {
        state.withLock { state in
            guard let (text, isHeard) = state.lastWords, bytes.contains(text) else { return nil }
            state.lastWords = nil
            state.cuts += 1
            return isHeard
        }
    }
}

public struct ProxyError: Error, CustomStringConvertible {
    public let description: String
}
