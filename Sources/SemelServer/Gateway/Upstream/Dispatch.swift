internal import NIOHTTP1
internal import SemelCore

/// One request on its way to an upstream: knows whether a byte of it was handed to the operating system.
///
/// `waiting → writing → sent | unsent`, or `waiting → abandoned`. Every step is taken under a lock, so a time-out that gives a
/// request up and a connection that begins to write it cannot both have it: *not sent* is never a guess.
final class Dispatch: Sendable {
    enum Progress: Sendable {
        /// No connection has taken it up yet.
        case waiting
        /// A connection has taken it up; whether its first byte went out is not known yet.
        case writing
        case sent
        /// Its connection was found closed before the first byte was written.
        case unsent
        /// It was given up before a connection took it up. None will.
        case abandoned
    }

    /// What is sent. Its target goes into the request line byte for byte; a URL would be normalised on its way.
    let request: UpstreamRequest
    private struct State {
        var progress = Progress.waiting
        var waiter: CheckedContinuation<Bool, Never>?
        var trailers: HTTPHeaders?
    }

    private let state = Locked(State())

    init(_ request: UpstreamRequest) {
        self.request = request
    }

    /// A connection takes it up. `false` when it was given up: not a byte may be written then.
    func begin() -> Bool {
        state.withLock { state in
            guard state.progress == .waiting else { return false }
            state.progress = .writing
            return true
        }
    }

    /// What became of the first byte.
    func settle(sent: Bool) {
        let waiter = state.withLock { state -> CheckedContinuation<Bool, Never>? in
            if state.progress == .writing { state.progress = sent ? .sent : .unsent }
            defer { state.waiter = nil }
            return state.waiter
        }
        waiter?.resume(returning: sent)
    }

    /// Ends it after a failure, and tells how far it got.
    func conclude() -> Progress {
        state.withLock { state in
            if state.progress == .waiting { state.progress = .abandoned }
            return state.progress
        }
    }

    /// The trailers of the answer, once its body has ended.
    var trailers: HTTPHeaders? { state.withLock { $0.trailers } }

    func keep(_ trailers: HTTPHeaders) { state.withLock { $0.trailers = trailers } }

    /// Waits for the first byte to be sent; `false` when it was not, and so nothing of a body may be asked for.
    func wasSent() async -> Bool {
        await withCheckedContinuation { continuation in
            let known = state.withLock { state -> Bool? in
                switch state.progress {
                case .waiting, .writing:
                    state.waiter = continuation
                    return nil
                case .sent: return true
                case .unsent, .abandoned: return false
                }
            }
            if let known { continuation.resume(returning: known) }
        }
    }
}

/// The dispatches of one upstream that no connection has taken up yet. A request carries the number of its dispatch in a
/// private field, which the connection takes out again.
final class DispatchRegistry: Sendable {
    static let field = "semel-dispatch"

    private struct State {
        var next: UInt64 = 0
        var dispatches: [UInt64: Dispatch] = [:]
    }

    private let state = Locked(State())

    func add(_ dispatch: Dispatch) -> UInt64 {
        state.withLock { state in
            state.next += 1
            state.dispatches[state.next] = dispatch
            return state.next
        }
    }

    @discardableResult
    func remove(_ number: UInt64) -> Dispatch? {
        state.withLock { $0.dispatches.removeValue(forKey: number) }
    }
}
