internal import NIOHTTP1
internal import SemelCore

/// Passes an upstream's answers before the answer (1xx) on, in their order and before the answer itself (RFC 9110, 15.2).
///
/// Only where nothing is recorded: under a scene a client is told nothing before the outcome is durable. 100 is not passed on,
/// because whoever waits for it has got it from here.
final class InterimAnswers: Sendable {
    /// More than this for one request are dropped: a client that does not read must not fill the memory.
    private static let limit = 16

    private let writer: ResponseWriter
    private let last = Locked((count: 0, task: Task<Void, Never>?.none))

    init(_ writer: ResponseWriter) { self.writer = writer }

    func add(_ status: HTTPResponseStatus, _ headers: HTTPHeaders) {
        guard status != .continue else { return }
        var fields = ForwardedFields.response(headers)
        fields.remove(name: "content-length")
        let answer = fields
        last.withLock { last in
            guard last.count < Self.limit else { return }
            last.count += 1
            last.task = Task { [writer, before = last.task] in
                await before?.value
                // A client that has gone is noticed when it is sent the answer.
                try? await writer.sendInterim(status, answer)
            }
        }
    }

    /// Returns when all are sent. None comes after the answer's head.
    func finish() async { await last.withLock { $0.task }?.value }
}
