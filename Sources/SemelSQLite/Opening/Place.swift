#if canImport(Glibc)
import Glibc
#endif
import Semel

/// Where a store lives: its database and the files beside it.
struct Place: Sendable {
    let path: String

    var folder: String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    var reserve: String { path + "-reserve" }
    var witness: String { Witness.path(for: path) }
    /// The database with its log; both belong together.
    private var databaseFiles: [String] { ["", "-wal", "-shm"] }

    var exists: Bool { access(path, F_OK) == 0 }
    /// The database file's length in bytes; 0 when there is none.
    var size: Int64 {
        var status = stat()
        return stat(path, &status) == 0 ? Int64(status.st_size) : 0
    }

    var hasWitness: Bool { access(witness, F_OK) == 0 }

    /// Refuses a place where no database can live.
    func check() throws(StoreError) {
        var status = stat()
        guard !path.isEmpty else { throw StoreError(.misconfigured, "the database's path is empty; name a file") }
        guard stat(folder, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else {
            throw StoreError(.misconfigured, "\(path): there is no folder \(folder); create it")
        }
        guard access(folder, W_OK | X_OK) == 0 else {
            throw StoreError(
                .misconfigured, "\(path): the folder \(folder) cannot be written (\(String(cString: strerror(errno)))); give this process the right to write there, or choose another folder")
        }
        if stat(path, &status) == 0 {
            guard status.st_mode & S_IFMT == S_IFREG else {
                throw StoreError(.misconfigured, "\(path) is not a file; name a file")
            }
            guard access(path, R_OK | W_OK) == 0 else {
                throw StoreError(
                    .misconfigured, "\(path) cannot be written (\(String(cString: strerror(errno)))); give this process the right to read and write it")
            }
        }
    }

    /// Renames the database and its log, so that nothing runs on them and nothing is lost.
    /// - Returns: the new name.
    func setAside() throws(StoreError) -> String {
        var time = time(nil)
        var parts = tm()
        gmtime_r(&time, &parts)
        let stamp = [parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec]
            .map { $0 < 10 ? "0\($0)" : "\($0)" }.joined()
        var aside = "\(path).damaged-\(stamp)"
        var copy = 1
        while access(aside, F_OK) == 0 {
            copy += 1
            aside = "\(path).damaged-\(stamp)-\(copy)"
        }
        for suffix in databaseFiles where access(path + suffix, F_OK) == 0 {
            guard rename(path + suffix, aside + suffix) == 0 else {
                throw StoreError(.damaged, "\(path) is damaged and could not be set aside (\(String(cString: strerror(errno)))): move it away and restore a backup")
            }
        }
        return aside
    }
}
