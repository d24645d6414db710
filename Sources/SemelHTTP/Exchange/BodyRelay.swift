internal import HTTPTypes
internal import NIOCore
internal import Semel

/// Hands a body over, piece by piece, from the task that makes it to the one that sends it to the client: the maker waits
/// until a piece was fetched, and goes on alone once the client has left.
final class BodyRelay: Sendable {
    private struct State {
        var piece: ByteBuffer?
        var end: Result<HTTPFields?, any Error>?
        var isAbandoned = false
        var sender: CheckedContinuation<Void, Never>?
        var receiver: CheckedContinuation<Void, Never>?
    }

    private let state = Locked(State())

    // MARK: The maker's side

    /// Returns when the piece was fetched, or nobody will fetch it.
    func send(_ piece: ByteBuffer) async {
        let receiver = state.withLock { state -> CheckedContinuation<Void, Never>? in
            guard !state.isAbandoned else { return nil }
            state.piece = piece
            defer { state.receiver = nil }
            return state.receiver
        }
        receiver?.resume()
        await withCheckedContinuation { continuation in
            let isFetched = state.withLock { state in
                guard state.piece != nil, !state.isAbandoned else { return true }
                state.sender = continuation
                return false
            }
            if isFetched { continuation.resume() }
        }
    }

    /// Ends the body. Only the first end counts.
    func end(_ end: Result<HTTPFields?, any Error>) {
        let receiver = state.withLock { state -> CheckedContinuation<Void, Never>? in
            if state.end == nil { state.end = end }
            defer { state.receiver = nil }
            return state.receiver
        }
        receiver?.resume()
    }

    /// Ends the body at once, whatever was not fetched yet: the client is told, and the maker waits no longer.
    func breakOff(_ error: any Error) {
        end(.failure(error))
        abandon()
    }

    // MARK: The client's side

    /// The body to give to the client. When it is let go of, read or not, the maker no longer waits.
    func body(length: Int?) -> HTTPAnswer.Body {
        let reader = Reader(relay: self)
        return .stream(length: length) { send in
            defer { reader.relay.abandon() }
            while let piece = try await reader.relay.next() { try await send(piece) }
            return try reader.relay.state.withLock { try $0.end?.get() ?? nil }
        }
    }

    private final class Reader: Sendable {
        let relay: BodyRelay
        init(relay: BodyRelay) { self.relay = relay }
        deinit { relay.abandon() }
    }

    private func next() async throws -> ByteBuffer? {
        while true {
            enum Step { case piece(ByteBuffer, CheckedContinuation<Void, Never>?), end, wait }
            let step: Step = try state.withLock { state in
                if let piece = state.piece {
                    state.piece = nil
                    defer { state.sender = nil }
                    return .piece(piece, state.sender)
                }
                if let end = state.end {
                    _ = try end.get()
                    return .end
                }
                if state.isAbandoned { throw CancellationError() }
                return .wait
            }
            switch step {
            case .piece(let piece, let sender):
                sender?.resume()
                return piece
            case .end: return nil
            case .wait: await receive()
            }
        }
    }

    private func receive() async {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isReady = state.withLock { state in
                    guard state.piece == nil, state.end == nil, !state.isAbandoned else { return true }
                    state.receiver = continuation
                    return false
                }
                if isReady { continuation.resume() }
            }
        } onCancel: {
            abandon()
        }
    }

    private func abandon() {
        let (sender, receiver) = state.withLock { state in
            state.isAbandoned = true
            state.piece = nil
            defer { (state.sender, state.receiver) = (nil, nil) }
            return (state.sender, state.receiver)
        }
        sender?.resume()
        receiver?.resume()
    }
}
