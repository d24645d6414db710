internal import NIOCore
internal import Semel

/// Holds the bodies of requests while they are answered: small ones in memory as long as there is room, the others in
/// one temporary file without a name, which disappears with the process.
public final class Spool: Sendable {
    /// For all of a process, with the default bounds.
    public static let shared = Spool()

    /// The largest body held in memory, in bytes.
    let memoryLimit: Int
    let budget: SpoolBudget
    let file: SpoolFile

    /// - Parameters:
    ///   - memoryLimit: the largest body that is held in memory, in bytes.
    ///   - budget: how much memory all bodies together may take, in bytes. Beyond it small bodies go to the file too.
    ///   - directory: where the file is made; the system's directory for temporary files when `nil`.
    public init(memoryLimit: Int = 64 << 10, budget: Int = 16 << 20, directory: String? = nil) {
        self.memoryLimit = memoryLimit
        self.budget = SpoolBudget(bytes: budget)
        file = SpoolFile(directory: directory)
    }

    /// Takes a body in.
    /// - Throws: ``BodyTooLarge``, ``SpoolError``, and what reading the body throws.
    func take<Source: AsyncSequence>(_ source: Source, limit: Int) async throws -> SpooledBody where Source.Element == ByteBuffer {
        var taken = Taken(self)
        for try await piece in source where piece.readableBytes > 0 { try await taken.append(piece, limit: limit) }
        return taken.body
    }

    /// Takes a body in, or lets it pass, once and whole, when it is too large or cannot be held; then why is told.
    /// - Throws: what reading the body throws.
    func takeOrPass<Source: AsyncSequence & Sendable>(
        _ source: Source, limit: Int
    ) async throws -> (body: SpooledBody, reason: (any Error)?) where Source.Element == ByteBuffer {
        var taken = Taken(self)
        var rest = source.makeAsyncIterator()
        while let piece = try await rest.next() {
            guard piece.readableBytes > 0 else { continue }
            do {
                try await taken.append(piece, limit: limit)
            } catch {
                return (SpooledBody(passing: ResumedBody(beginning: taken.body, piece: piece, rest: rest)), error)
            }
        }
        return (taken.body, nil)
    }

    /// What was taken in of a body so far.
    private struct Taken {
        let spool: Spool
        let share: SpoolBudget.Share
        var memory = ByteBuffer()
        var extents: SpoolFile.Extents?
        var length = 0

        init(_ spool: Spool) {
            self.spool = spool
            share = SpoolBudget.Share(spool.budget)
        }

        /// A piece that it throws for is not part of it.
        mutating func append(_ piece: ByteBuffer, limit: Int) async throws {
            let longer = length + piece.readableBytes
            guard longer <= limit else { throw BodyTooLarge() }
            if let extents {
                try await extents.append(piece)
            } else if longer <= spool.memoryLimit, share.grow(to: longer) {
                // Copied, because a piece may be a small part of a large buffer of the connection.
                memory.writeImmutableBuffer(piece)
            } else {
                let overflow = SpoolFile.Extents(in: spool.file)
                if memory.readableBytes > 0 { try await overflow.append(memory) }
                try await overflow.append(piece)
                memory = ByteBuffer()
                share.grow(to: 0)
                extents = overflow
            }
            length = longer
        }

        var body: SpooledBody { SpooledBody(extents.map { .file($0) } ?? .memory(memory, share)) }
    }
}

/// A body of which the beginning was taken in, and the rest still comes. It can be read once.
private struct ResumedBody<Rest: AsyncIteratorProtocol>: AsyncSequence, @unchecked Sendable where Rest.Element == ByteBuffer {
    // Sendable is unchecked: the rest goes to the one who reads the body, after the one who took its beginning has let it go.
    let beginning: SpooledBody
    let piece: ByteBuffer
    let rest: Rest

    func makeAsyncIterator() -> Iterator { Iterator(beginning: beginning.makeAsyncIterator(), piece: piece, rest: rest) }

    struct Iterator: AsyncIteratorProtocol {
        var beginning: SpooledBody.Iterator?
        var piece: ByteBuffer?
        var rest: Rest

        mutating func next() async throws -> ByteBuffer? { try await next(isolation: #isolation) }

        mutating func next(isolation actor: isolated (any Actor)?) async throws(any Error) -> ByteBuffer? {
            if let held = try await beginning?.next(isolation: actor) { return held }
            beginning = nil
            if let piece {
                self.piece = nil
                return piece
            }
            return try await rest.next(isolation: actor)
        }
    }
}

struct BodyTooLarge: Error {}

/// The temporary file cannot be written or read.
public struct SpoolError: Error, CustomStringConvertible {
    public let description: String
}

/// The memory that bodies may take together.
final class SpoolBudget: Sendable {
    private let left: Locked<Int>

    init(bytes: Int) {
        left = Locked(bytes)
    }

    /// The part that one body takes; given back when it is let go of.
    final class Share: @unchecked Sendable {
        // Sendable is unchecked: only the one task that takes the body in changes it, before anybody else has it.
        private let budget: SpoolBudget
        private var taken = 0

        init(_ budget: SpoolBudget) {
            self.budget = budget
        }

        deinit { grow(to: 0) }

        /// Changes the part; false, and unchanged, when there is too little left.
        @discardableResult
        func grow(to bytes: Int) -> Bool {
            guard budget.take(bytes - taken) else { return false }
            taken = bytes
            return true
        }
    }

    private func take(_ bytes: Int) -> Bool {
        left.withLock { left in
            guard bytes <= 0 || bytes <= left else { return false }
            left -= bytes
            return true
        }
    }
}
