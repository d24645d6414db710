public import NIOCore

/// A request's body that was taken in whole: it can be read as often as needed, and by several at once.
///
/// It is in memory, or in a file where it is too large or memory is short (``Spool``). What it holds is given back when the
/// last reference goes.
public final class SpooledBody: AsyncSequence, Sendable {
    public typealias Element = ByteBuffer
    public typealias Failure = any Error

    enum Content: Sendable {
        case memory(ByteBuffer, SpoolBudget.Share)
        case file(SpoolFile.Extents)
        /// Not taken in, and so readable once.
        case passing(@Sendable () -> any AsyncIteratorProtocol<ByteBuffer, any Error>)
    }

    let content: Content

    init(_ content: Content) {
        self.content = content
    }

    /// A body that is not taken in: it passes through, once.
    init<Source: AsyncSequence & Sendable>(passing source: Source) where Source.Element == ByteBuffer {
        content = .passing { PassingIterator(base: source.makeAsyncIterator()) }
    }

    private struct PassingIterator<Base: AsyncIteratorProtocol>: AsyncIteratorProtocol where Base.Element == ByteBuffer {
        var base: Base

        mutating func next() async throws -> ByteBuffer? { try await next(isolation: #isolation) }

        mutating func next(isolation actor: isolated (any Actor)?) async throws(any Error) -> ByteBuffer? {
            try await base.next(isolation: actor)
        }
    }

    /// The whole body, where it is in memory already.
    public var bytes: ByteBuffer? {
        if case .memory(let bytes, _) = content { bytes } else { nil }
    }

    /// The length in bytes; `nil` for a body that was not taken in.
    public var length: Int? {
        switch content {
        case .memory(let bytes, _): bytes.readableBytes
        case .file(let extents): extents.length
        case .passing: nil
        }
    }

    /// The whole body in memory. Mind its ``length``.
    public func collect() async throws -> ByteBuffer {
        if let bytes { return bytes }
        var whole = ByteBuffer()
        if let length { whole.reserveCapacity(length) }
        for try await piece in self { whole.writeImmutableBuffer(piece) }
        return whole
    }

    public func makeAsyncIterator() -> Iterator { Iterator(self) }

    public struct Iterator: AsyncIteratorProtocol {
        private enum Position {
            case memory(ByteBuffer?)
            case file(SpoolFile.Extents, Int)
            case passing(any AsyncIteratorProtocol<ByteBuffer, any Error>)
        }

        /// Keeps the content while it is read.
        private let body: SpooledBody
        private var position: Position

        init(_ body: SpooledBody) {
            self.body = body
            position =
                switch body.content {
                case .memory(let bytes, _): .memory(bytes.readableBytes > 0 ? bytes : nil)
                case .file(let extents): .file(extents, 0)
                case .passing(let make): .passing(make())
                }
        }

        public mutating func next() async throws -> ByteBuffer? {
            try await next(isolation: nil)
        }

        public mutating func next(isolation actor: isolated (any Actor)?) async throws(any Error) -> ByteBuffer? {
            switch position {
            case .memory(let bytes):
                position = .memory(nil)
                return bytes
            case .file(let extents, let offset):
                guard offset < extents.length else { return nil }
                let piece = try await extents.read(at: offset)
                position = .file(extents, offset + piece.readableBytes)
                return piece
            case .passing(var iterator):
                let piece = try await iterator.next(isolation: actor)
                position = .passing(iterator)
                return piece
            }
        }
    }
}
