internal import SemelCore
#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#elseif canImport(Darwin)
internal import Darwin
#endif

/// The system's random numbers, fetched many at a time: every fetch is a call into the kernel.
///
/// A number is erased when it is given out, so memory that leaks tells nothing about those given before. A process that
/// forks without starting another program would give both halves the same numbers; a Swift program cannot do that, because
/// its threads do not survive it.
final class RandomPool: Sendable {
    private struct State {
        var numbers = [UInt64](repeating: 0, count: RandomPool.size)
        var left = 0
    }

    /// 256 bytes: as many as `getentropy` gives at once.
    private static let size = 32

    private let state = Locked(State())

    func next() -> UInt64 {
        state.withLock { state in
            if state.left == 0 {
                let result = state.numbers.withUnsafeMutableBytes { getentropy($0.baseAddress!, $0.count) }
                // As SystemRandomNumberGenerator does: without randomness nothing here is safe.
                precondition(result == 0, "the system gives no random numbers (error \(errno))")
                state.left = Self.size
            }
            state.left -= 1
            defer { state.numbers[state.left] = 0 }
            return state.numbers[state.left]
        }
    }
}
