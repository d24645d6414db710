internal import Crypto
internal import HTTPTypes
internal import NIOCore
internal import Semel

/// The answer of unknown or large size, on its way to record and client at once.
///
/// Up to the cap it is held back until it is recorded. Beyond it, and at once for an event stream, it is first recorded
/// durably that it is too large and being sent; then everything is sent, no faster than the client takes it; then the record
/// is completed without the body, and last the client learns that the body has ended. A client that leaves does not stop it:
/// the rest is read, so that the record completes.
///
/// When the attempt is lost or hangs, the client is told at once, and whoever makes the body is cancelled; what that still
/// sends or returns does not count.
final class ResponseTee: Sendable {
    private struct State {
        var held = ByteBuffer()
        var length = 0
        var hash = SHA256()
        var relay: BodyRelay?
        var stopped: Stopped?
        /// Who says what came of it: the body's end, or the attempt's when that comes first.
        var isDecided = false
        var waiter: CheckedContinuation<HTTPAnswer, Never>?
    }

    private let run: HTTPAttempt
    private let received: HTTPAnswer
    private let state = Locked(State())

    init(_ run: HTTPAttempt, _ answer: HTTPAnswer) {
        self.run = run
        received = answer
    }

    /// What to give to the client, as soon as it may be given.
    func answer() async -> HTTPAnswer {
        await withCheckedContinuation { continuation in
            state.withLock { $0.waiter = continuation }
            let pumping = Task(executorPreference: run.http.environment.executor) { [self] in await pump() }
            // In `observe` nothing stops a request. Weak, because an attempt that nobody holds must be let go.
            guard run.http.mode == .enforce else { return }
            run.attempt.onEnd { [weak self] end in
                guard end != .finished, let self, decide() else { return }
                pumping.cancel()
                run.http.environment.detach { [self] in await breakOff(end) }
            }
        }
    }

    /// Whether nobody has said yet what came of it; from then on somebody has.
    private func decide() -> Bool {
        state.withLock { state in
            defer { state.isDecided = true }
            return !state.isDecided
        }
    }

    /// The attempt has ended before the body did.
    private func breakOff(_ end: Attempt.End) async {
        guard let relay = state.withLock({ $0.relay }) else {
            return give(
                end == .leaseLost
                    ? await run.superseded(instead: nil)
                    : await run.settle(failure: UpstreamFailure.lost("its answer made no progress for as long as the policy allows", timedOut: true)))
        }
        relay.breakOff(BrokenOff())
        if end == .leaseLost { _ = await run.superseded(instead: nil) } else { await suspendInterrupted() }
    }

    private func pump() async {
        do {
            if received.isEventStream || (received.length ?? 0) > run.policy.responseLimit { try await startSending() }
            let trailers = try await produce()
            await finish(trailers)
        } catch {
            await fail(error)
        }
    }

    private func give(_ answer: HTTPAnswer) {
        let waiter = state.withLock { state in
            defer { state.waiter = nil }
            return state.waiter
        }
        waiter?.resume(returning: answer)
    }

    // MARK: On the way

    private func produce() async throws -> HTTPFields? {
        switch received.body {
        case .bytes(let bytes, let trailers):
            try await take(bytes)
            return trailers
        case .stream(_, let produce):
            return try await produce { [self] piece in try await take(piece) }
        }
    }

    private func take(_ piece: ByteBuffer) async throws {
        let (isDecided, stopped) = state.withLock { ($0.isDecided, $0.stopped) }
        if isDecided { throw BrokenOff() }
        // Said again to a handler that did not listen.
        if let stopped { throw stopped }
        run.attempt.progressed()
        let limit = run.policy.responseLimit
        let relay = state.withLock { state in
            state.length += piece.readableBytes
            state.hash.update(piece)
            if state.relay == nil { state.held.writeImmutableBuffer(piece) }
            return state.relay
        }
        if let relay { return await send(piece, over: relay) }
        guard state.withLock({ $0.length > limit }) else { return }
        let held = state.withLock { state in
            defer { state.held = ByteBuffer() }
            return state.held
        }
        await send(held, over: try await startSending())
    }

    private func send(_ piece: ByteBuffer, over relay: BodyRelay) async {
        await relay.send(piece)
        run.failpoints.pass(.whileStreaming)
    }

    /// Records that the answer is being sent and will not be kept, and then lets the client have its beginning.
    @discardableResult
    private func startSending() async throws -> BodyRelay {
        let relay = BodyRelay()
        var answer = HTTPAnswer(received.head, relay.body(length: received.length))
        do {
            guard try await run.attempt.stream() == .applied else { throw stop(with: await run.superseded(instead: nil)) }
            answer = run.http.guaranteed(answer)
        } catch let error as StoreError {
            answer = run.unrecorded(answer, error)
            guard run.mayGoUnrecorded else { throw stop(with: answer) }
        }
        let isDecided = state.withLock { state in
            if !state.isDecided { state.relay = relay }
            return state.isDecided
        }
        guard !isDecided else { throw BrokenOff() }
        give(answer)
        return relay
    }

    private func stop(with answer: HTTPAnswer) -> Stopped {
        let stopped = Stopped(answer: answer)
        // Kept, because the handler may throw another error when it is told this one.
        state.withLock { $0.stopped = stopped }
        return stopped
    }

    // MARK: Ends

    private func finish(_ trailers: HTTPFields?) async {
        guard decide() else { return }
        let (relay, held, length, digest, stopped) = state.withLock { ($0.relay, $0.held, $0.length, $0.hash.finalize(), $0.stopped) }
        // A handler that ends as if nothing had happened: what it sent is not the whole answer.
        if let stopped { return give(stopped.answer) }
        guard let relay else { return give(await run.record(HTTPAnswer(received.head, .bytes(held, trailers: trailers)), held, trailers)) }
        run.failpoints.pass(.afterAnswer)
        let outcome = Outcome(received.head, omitted: length, digest: digest, policy: run.policy)
        do {
            // A client that saw the whole body may take it that the outcome is recorded.
            let isRecorded = try await run.complete(outcome)
            if !isRecorded { _ = await run.superseded(instead: nil) }
            relay.end(isRecorded || run.mayGoUnrecorded ? .success(trailers) : .failure(Unrecorded()))
        } catch {
            run.endUnrecorded(error)
            relay.end(run.mayGoUnrecorded ? .success(trailers) : .failure(error))
        }
    }

    private func fail(_ error: any Error) async {
        guard decide() else { return }
        let (relay, stopped) = state.withLock { ($0.relay, $0.stopped) }
        if let stopped { return give(stopped.answer) }
        guard let relay else { return give(await run.settle(failure: error)) }
        await suspendInterrupted()
        relay.end(.failure(error))
    }

    /// How much of it the client has is unknown, and so is what the handler did: only a complete answer is recorded (H36).
    private func suspendInterrupted() async {
        _ = await run.suspend(RecordMachine.Reason.interruptedStream, received)
    }

    /// The answer's beginning may not be sent; this is sent instead.
    private struct Stopped: Error { let answer: HTTPAnswer }

    /// Ends a body early: its attempt has ended.
    private struct BrokenOff: Error {}

    /// Ends a body early: its outcome could not be recorded.
    private struct Unrecorded: Error {}
}

extension SHA256 {
    mutating func update(_ piece: ByteBuffer) {
        piece.withUnsafeReadableBytes { update(bufferPointer: $0) }
    }
}
