import SemelCore
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

@Suite("A locked value")
struct LockedTests {
    @Test("increments from many tasks are all counted")
    func exclusive() async {
        let counter = Locked(0)
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    for _ in 0..<10_000 {
                        counter.withLock { number in
                            // Lets others run between reading and writing: without exclusion, increments get lost.
                            let read = number
                            sched_yield()
                            number = read + 1
                        }
                    }
                }
            }
        }
        #expect(counter.withLock { $0 } == 80_000)
    }

    @Test("an error leaves the closure typed, keeps the change made before it and releases the lock")
    func throwing() {
        struct Refused: Error, Equatable {}
        let value = Locked([1])
        #expect(throws: Refused()) {
            try value.withLock { numbers throws(Refused) in
                numbers.append(2)
                throw Refused()
            }
        }
        #expect(value.withLock { $0 } == [1, 2])
    }

    @Test("it can hold a value that is not sendable")
    func notSendable() {
        final class Box { var number = 1 }
        let box = Locked(Box())
        box.withLock { $0.number += 1 }
        #expect(box.withLock { $0.number } == 2)
    }
}
