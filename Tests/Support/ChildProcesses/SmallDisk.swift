public import Foundation

/// A small file system of a test's own, to be filled.
///
/// A process beside this one holds it (`scripts/servers/small-disk`), and takes it down when the test is over or was killed.
public final class SmallDisk: Sendable {
    public let folder: URL
    private let keeper: ChildProcess

    private var filler: String { folder.path + "/filler" }

    /// Runs `body` with a disk, which is gone when this returns. Mounting takes root; without it the test cannot say anything
    /// and fails.
    public static func with<Value>(megabytes: Int, _ body: (SmallDisk) async throws -> Value) async throws -> Value {
        let disk = try await SmallDisk(megabytes: megabytes)
        let result: Result<Value, any Error>
        do {
            result = .success(try await body(disk))
        } catch {
            result = .failure(error)
        }
        disk.keeper.signal(SIGTERM)
        await disk.keeper.end()
        guard !FileManager.default.fileExists(atPath: disk.folder.path) else {
            throw ChildError("the small disk on \(disk.folder.path) was not taken down: \(disk.keeper.errorOutput)")
        }
        try FileManager.default.removeItem(at: disk.keeper.errors)
        return try result.get()
    }

    private init(megabytes: Int) async throws {
        let temporary = FileManager.default.temporaryDirectory
        folder = temporary.appendingPathComponent("semel-disk-\(UUID().uuidString.prefix(8))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        // In a session of its own: what ends this process's group must not end who tidies up after it.
        keeper = try ChildProcess(
            program: URL(fileURLWithPath: "/usr/bin/env"),
            ["setsid", Repository.file("scripts/servers/small-disk").path, String(megabytes), folder.path, String(getpid())], in: temporary)
        guard await keeper.firstLine(beginning: "ready") != nil else {
            try FileManager.default.removeItem(at: folder)
            throw ChildError("this test needs a small disk: \(keeper.errorOutput)")
        }
    }

    /// Writes until nothing more fits, and then leaves so many bytes free.
    public func fill(leaving bytes: Int = 0) throws {
        // Closed to children: a server that is just being started would keep its blocks after it is removed.
        let file = open(filler, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw ChildError("\(filler) cannot be made: error \(errno)") }
        defer { close(file) }
        let block = [UInt8](repeating: 1, count: 4096)
        while block.withUnsafeBytes({ write(file, $0.baseAddress, $0.count) }) > 0 {}
        guard errno == ENOSPC, ftruncate(file, max(0, lseek(file, 0, SEEK_END) - off_t(bytes))) == 0 else {
            throw ChildError("\(folder.path) cannot be filled: error \(errno)")
        }
    }

    /// Gives back what ``fill(leaving:)`` took.
    public func free() throws { try FileManager.default.removeItem(atPath: filler) }
}
