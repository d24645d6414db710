#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// A value that many threads share, one at a time.
///
/// The lock is a POSIX mutex and not `Synchronization.Mutex`: ThreadSanitizer does not understand the latter on Linux and
/// reports races that are none. Only this type knows which lock it is.
///
/// Hold it for a few instructions: it blocks its thread, it is not recursive (locking it again inside `withLock` stops the
/// program), and it gives no order among those who wait. The closure is synchronous, so the lock is never held across
/// a suspension.
public final class Locked<Value>: @unchecked Sendable {
    // Sendable is unchecked because the compiler cannot see that `value` is only reached with the mutex held, and leaves
    // its isolation only through `sending`.
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    @usableFromInline nonisolated(unsafe) var value: Value

    public init(_ value: consuming sending Value) {
        mutex = .allocate(capacity: 1)
        var attributes = pthread_mutexattr_t()
        check(pthread_mutexattr_init(&attributes), "initialise the attributes of")
        // Locking twice is a mistake of the program: it must be a clear stop, not a thread that hangs for ever.
        check(pthread_mutexattr_settype(&attributes, .init(PTHREAD_MUTEX_ERRORCHECK)), "choose the type of")
        check(pthread_mutex_init(mutex, &attributes), "initialise")
        check(pthread_mutexattr_destroy(&attributes), "destroy the attributes of")
        self.value = value
    }

    deinit {
        check(pthread_mutex_destroy(mutex), "destroy")
        mutex.deallocate()
    }

    /// Runs `body` with exclusive access to the value, and returns or throws what it does.
    // Inlinable, because a generic call costs several times what the lock does.
    @inlinable
    public func withLock<Result, Failure: Error>(
        _ body: (inout sending Value) throws(Failure) -> sending Result
    ) throws(Failure) -> sending Result {
        lock()
        defer { unlock() }
        return try body(&value)
    }

    @usableFromInline func lock() { check(pthread_mutex_lock(mutex), "lock") }

    @usableFromInline func unlock() { check(pthread_mutex_unlock(mutex), "unlock") }
}

/// A mutex that fails means that memory is damaged or that the lock is misused; going on would break exclusivity.
private func check(_ code: CInt, _ action: StaticString) {
    precondition(code == 0, "cannot \(action) a mutex (error \(code))")
}
