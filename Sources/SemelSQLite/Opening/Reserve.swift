#if canImport(Glibc)
import Glibc
#endif

/// Disk space kept back, as a file that is deleted when the disk is full, so that what runs can still be recorded (H17).
///
/// Before that point new claims are refused: as soon as less than a quarter of the reserve is free beside it.
struct Reserve {
    private let path: String
    private let folder: String
    private let size: Int
    private(set) var isHeld = false
    /// Whether new claims are refused.
    private(set) var isFull = false

    init(path: String, folder: String, size: Int) {
        self.path = path
        self.folder = folder
        self.size = size
    }

    private var margin: Int { size / 4 }

    /// Looks at the disk. To be called when the store is opened, and before writes.
    /// - Parameter makeRoom: may free space of its own before the disk is called full.
    mutating func update(makeRoom: () -> Void) {
        guard size > 0 else { return }
        if isFull {
            if isHeld ? free >= 2 * margin : free >= size + 2 * margin { isFull = !hold() }
        } else if free < margin {
            makeRoom()
            isFull = free < margin
        }
    }

    /// The disk is full in earnest.
    /// - Returns: whether there was something to give up.
    mutating func release() -> Bool {
        // Without a reserve the disk is not watched: each write finds out by itself.
        guard size > 0 else { return false }
        isFull = true
        guard isHeld else { return false }
        isHeld = false
        return unlink(path) == 0
    }

    /// Takes the reserve, at opening.
    mutating func take() {
        guard size > 0 else { return }
        // One kept by the process before is used up first when there is nothing else to open the database with.
        unlink(path)
        isFull = free < size + margin || !hold()
    }

    /// Gives the space back when the store is closed.
    mutating func drop() {
        if isHeld { unlink(path) }
        isHeld = false
    }

    private mutating func hold() -> Bool {
        if isHeld { return true }
        let descriptor = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        isHeld = posix_fallocate(descriptor, 0, size) == 0
        if !isHeld { unlink(path) }
        return isHeld
    }

    private var free: Int {
        var status = statvfs()
        guard statvfs(folder, &status) == 0 else { return 0 }
        return Int(clamping: UInt64(status.f_bavail) * UInt64(status.f_frsize))
    }
}
