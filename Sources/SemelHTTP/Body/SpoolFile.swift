internal import NIOCore
internal import NIOPosix
internal import Semel
#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#endif

/// One unlinked temporary file that many bodies share, in extents of 64 KiB, so that ten thousand of them need one
/// descriptor. It is made when first needed, shortened to nothing when it is empty, and read and written on NIO's threads for
/// blocking work.
final class SpoolFile: Sendable {
    static let extentLength = 64 << 10

    private struct State {
        var descriptor: CInt?
        var free: [Int] = []
        var count = 0
    }

    private let directory: String?
    private let state = Locked(State())

    init(directory: String?) {
        self.directory = directory
    }

    deinit {
        if let descriptor = state.withLock({ $0.descriptor }) { close(descriptor) }
    }

    /// The places of one body in the file.
    final class Extents: Sendable {
        private let file: SpoolFile
        private let content = Locked((places: [Int](), length: 0))

        init(in file: SpoolFile) {
            self.file = file
        }

        deinit { file.giveBack(content.withLock { $0.places }) }

        var length: Int { content.withLock { $0.length } }

        /// Appends a piece. One caller at a time.
        func append(_ piece: ByteBuffer) async throws {
            let length = length
            let missing = (length + piece.readableBytes + extentLength - 1) / extentLength - content.withLock { $0.places.count }
            let more = file.take(missing)
            let places = content.withLock { content in
                content.places += more
                return content.places
            }
            try await NIOThreadPool.singleton.runIfActive { [file] in
                let descriptor = try file.open()
                try piece.withUnsafeReadableBytes { bytes in
                    var done = 0
                    while done < bytes.count {
                        let (offset, room) = Self.place(of: length + done, in: places)
                        let count = pwrite(descriptor, bytes.baseAddress! + done, min(room, bytes.count - done), off_t(offset))
                        guard count > 0 else { throw SpoolError.failed("write to") }
                        done += count
                    }
                }
            }
            content.withLock { $0.length += piece.readableBytes }
        }

        /// The bytes from `offset` on, at most half an extent.
        func read(at offset: Int) async throws -> ByteBuffer {
            let (places, length) = content.withLock { ($0.places, $0.length) }
            return try await NIOThreadPool.singleton.runIfActive { [file] in
                let descriptor = try file.open()
                let (position, room) = Self.place(of: offset, in: places)
                let wanted = min(room, length - offset, extentLength / 2)
                var piece = ByteBuffer()
                let count = piece.writeWithUnsafeMutableBytes(minimumWritableBytes: wanted) { bytes in
                    max(0, pread(descriptor, bytes.baseAddress!, wanted, off_t(position)))
                }
                guard count > 0 else { throw SpoolError.failed("read from") }
                return piece
            }
        }

        /// Where a byte of the body is in the file, and how many follow it there.
        private static func place(of offset: Int, in places: [Int]) -> (offset: Int, room: Int) {
            let within = offset % extentLength
            return (places[offset / extentLength] * extentLength + within, extentLength - within)
        }
    }

    /// How long the file is, in bytes.
    var fileLength: Int {
        state.withLock { state in
            var status = stat()
            guard let descriptor = state.descriptor, fstat(descriptor, &status) == 0 else { return 0 }
            return Int(status.st_size)
        }
    }

    private func take(_ count: Int) -> [Int] {
        state.withLock { state in
            (0..<max(0, count)).map { _ in
                if let place = state.free.popLast() { return place }
                defer { state.count += 1 }
                return state.count
            }
        }
    }

    private func giveBack(_ places: [Int]) {
        state.withLock { state in
            state.free += places
            guard state.free.count == state.count, let descriptor = state.descriptor else { return }
            state.free = []
            state.count = 0
            ftruncate(descriptor, 0)
        }
    }

    private func open() throws(SpoolError) -> CInt {
        try state.withLock { state throws(SpoolError) in
            if let descriptor = state.descriptor { return descriptor }
            let directory = directory ?? getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
            var template = Array("\(directory)/semel-spool-XXXXXX".utf8CString)
            let descriptor = mkstemp(&template)
            guard descriptor >= 0 else { throw SpoolError.failed("make a file in \(directory) for") }
            unlink(template)
            state.descriptor = descriptor
            return descriptor
        }
    }
}

extension SpoolError {
    fileprivate static func failed(_ action: String) -> SpoolError {
        SpoolError(description: "Cannot \(action) the spool of request bodies: \(String(cString: strerror(errno))).")
    }
}
