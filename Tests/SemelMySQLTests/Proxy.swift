#if MySQL
import Foundation
import Semel

/// A TCP proxy between a store and its server: what a test tells it to, it loses.
final class Proxy: Sendable {
    enum Fault: Sendable {
        /// The statement reaches the server, and its answer nobody: both sides are cut off.
        case dropAnswer(to: String)
        /// The statement does not even reach the server.
        case dropStatement(String)
    }

    private struct State {
        var fault: Fault?
        var fired = 0
        var sockets: [Int32] = []
        var isClosed = false
    }

    let port: Int
    private let listener: Int32
    private let state = Locked(State())

    init(to target: Int) throws {
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        self.listener = listener
        var address = Self.loopback(0)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isBound = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(listener, $0, length) == 0 && listen(listener, 64) == 0 && getsockname(listener, $0, &length) == 0 }
        }
        guard isBound else { throw ServerError(description: "the proxy has no port: \(errno)") }
        port = Int(UInt16(bigEndian: address.sin_port))
        Thread.detachNewThread { [self] in
            while true {
                let client = accept(listener, nil, nil)
                guard client >= 0 else { return }
                let server = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
                var address = Self.loopback(target)
                let isConnected = withUnsafePointer(to: &address) {
                    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(server, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0 }
                }
                guard isConnected else {
                    close(client)
                    close(server)
                    continue
                }
                state.withLock { $0.sockets += [client, server] }
                Thread.detachNewThread { [self] in forward(from: client, to: server, isRequest: true) }
                Thread.detachNewThread { [self] in forward(from: server, to: client, isRequest: false) }
            }
        }
    }

    private static func loopback(_ port: Int) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        return address
    }

    /// Arms a fault, for once.
    func arm(_ fault: Fault) { state.withLock { $0.fault = fault } }

    /// How many faults took effect.
    var fired: Int { state.withLock { $0.fired } }

    func end() {
        let sockets = state.withLock { state in
            state.isClosed = true
            return state.sockets
        }
        shutdown(listener, Int32(SHUT_RDWR))
        close(listener)
        for socket in sockets { shutdown(socket, Int32(SHUT_RDWR)) }
    }

    private func forward(from source: Int32, to sink: Int32, isRequest: Bool) {
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = read(source, &buffer, buffer.count)
            guard count > 0 else { break }
            if isRequest, let fault = take(buffer[..<count]) {
                switch fault {
                case .dropStatement: break
                case .dropAnswer:
                    // The server has it, and acts on it; the way back is closed first.
                    shutdown(source, Int32(SHUT_RDWR))
                    _ = write(sink, buffer, count)
                    usleep(300_000)
                }
                break
            }
            var written = 0
            while written < count {
                let part = buffer[written..<count].withUnsafeBytes { write(sink, $0.baseAddress, $0.count) }
                guard part > 0 else { break }
                written += part
            }
            guard written == count else { break }
        }
        shutdown(source, Int32(SHUT_RDWR))
        shutdown(sink, Int32(SHUT_RDWR))
    }

    private func take(_ bytes: ArraySlice<UInt8>) -> Fault? {
        let text = String(decoding: bytes, as: UTF8.self)
        return state.withLock { state in
            switch state.fault {
            case .dropAnswer(let statement)? where text.contains(statement), .dropStatement(let statement)? where text.contains(statement):
                defer { state.fault = nil }
                state.fired += 1
                return state.fault
            default: return nil
            }
        }
    }
}
#endif
