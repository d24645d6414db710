#if canImport(Glibc)
internal import Glibc
#elseif canImport(Darwin)
internal import Darwin
#endif

/// Reads small files whole: a configuration, a secret, a key set.
enum FileContents {
    struct Failure: Error {
        var problem: String
    }

    static func read(_ path: String, limit: Int = 1 << 20) throws(Failure) -> [UInt8] {
        // Without blocking: a path that names a pipe must not hang the program.
        let descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
        guard descriptor >= 0 else { throw Failure(problem: "cannot read \(path): \(String(cString: strerror(errno)))") }
        defer { close(descriptor) }
        var part = [UInt8](repeating: 0, count: 64 << 10)
        // A directory cannot be read; a pipe, a socket and a terminal have no end to seek.
        let size = lseek(descriptor, 0, SEEK_END)
        guard readBytes(descriptor, &part, 0) == 0, size >= 0 else { throw Failure(problem: "\(path) is not a file") }
        guard size <= limit else { throw Failure(problem: "\(path) is larger than \(limit >> 10) KiB") }
        lseek(descriptor, 0, SEEK_SET)
        var contents: [UInt8] = []
        while contents.count <= limit {
            let count = readBytes(descriptor, &part, part.count)
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else { throw Failure(problem: "cannot read \(path): \(String(cString: strerror(errno)))") }
            if count == 0 { return contents }
            contents += part[..<count]
        }
        throw Failure(problem: "\(path) is larger than \(limit >> 10) KiB")
    }
}

// Outside the type, whose own `read` hides the system's.
private func readBytes(_ descriptor: CInt, _ buffer: UnsafeMutableRawPointer, _ count: Int) -> Int { read(descriptor, buffer, count) }
