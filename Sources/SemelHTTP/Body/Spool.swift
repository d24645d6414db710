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
    public init(memoryLimit: Int = 64 << 10, budget: Int = 32 << 20, directory: String? = nil) {
        self.memoryLimit = memoryLimit
        self.budget = SpoolBudget(bytes: budget)
        file = SpoolFile(directory: directory)
    }

    /// Takes a body in.
    /// - Throws: ``BodyTooLarge``, ``SpoolError``, and what reading the body throws.
    func take<Source: AsyncSequence>(_ source: Source, limit: Int) async throws -> SpooledBody where Source.Element == ByteBuffer {
        var memory = ByteBuffer()
        let share = SpoolBudget.Share(budget)
        var extents: SpoolFile.Extents?
        var length = 0
        for try await piece in source where piece.readableBytes > 0 {
            length += piece.readableBytes
            guard length <= limit else { throw BodyTooLarge() }
            if let extents {
                try await extents.append(piece)
            } else if length <= memoryLimit, share.grow(to: length) {
                // Copied, because a piece may be a small part of a large buffer of the connection.
                memory.writeImmutableBuffer(piece)
            } else {
                let overflow = SpoolFile.Extents(in: file)
                if memory.readableBytes > 0 { try await overflow.append(memory) }
                try await overflow.append(piece)
                memory = ByteBuffer()
                share.grow(to: 0)
                extents = overflow
            }
        }
        return SpooledBody(extents.map { .file($0) } ?? .memory(memory, share))
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
