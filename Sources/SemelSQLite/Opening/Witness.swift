#if canImport(Glibc)
import Glibc
#endif
import Semel

/// A small file beside the database that remembers which database this place had, and how far it had come.
///
/// So a database that is missing is not taken for a first start (H18), and one that was restored from a backup is not taken
/// for the present (H21). It is written after the commits it tells of, about once a second, so it is never ahead of the
/// database, and a restore is noticed unless the backup is younger than that. A restore of the whole folder, witness and
/// all, cannot be noticed from inside: call ``SQLiteStore/raiseIncarnation()`` after one.
struct Witness: Equatable {
    var file: [UInt8]
    var incarnation: Incarnation
    var seen: Timestamp
    var epoch: Epoch

    static func path(for database: String) -> String { database + "-witness" }

    /// `nil` when there is none or it cannot be read.
    static func read(_ path: String) -> Witness? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 256)
        let count = bytes.withUnsafeMutableBytes { Glibc.read(descriptor, $0.baseAddress, $0.count) }
        guard count > 0, let frame = try? ChecksummedFrame(opening: bytes[..<count]), frame.version == 1 else { return nil }
        var reader = ByteReader(frame.payload)
        guard let file = try? reader.readRaw(count: 16), let incarnation = try? reader.read(UInt16.self),
            let seen = try? reader.read(Int64.self), let epoch = try? reader.read(UInt64.self), reader.remaining == 0
        else { return nil }
        return Witness(
            file: Array(file), incarnation: Incarnation(rawValue: incarnation), seen: Timestamp(microseconds: seen),
            epoch: Epoch(rawValue: epoch))
    }

    /// Writes in place. A write cut short leaves a file whose checksum is wrong, which knows nothing but that there was
    /// a database.
    ///
    /// - Parameter isDurable: wait until it is on the disk; the first one must be there before the first record is.
    /// - Returns: whether it was written; a full disk is no reason to stop.
    @discardableResult
    func write(_ path: String, isDurable: Bool = false) -> Bool {
        var writer = ByteWriter()
        writer.writeRaw(file)
        writer.write(incarnation.rawValue)
        writer.write(seen.microseconds)
        writer.write(epoch.rawValue)
        let bytes = ChecksummedFrame.seal(version: 1, payload: writer.bytes)
        let descriptor = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        guard bytes.withUnsafeBytes({ pwrite(descriptor, $0.baseAddress, $0.count, 0) }) == bytes.count else { return false }
        return !isDurable || fsync(descriptor) == 0
    }
}
