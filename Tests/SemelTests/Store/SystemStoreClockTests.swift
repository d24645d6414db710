@testable import Semel
import Testing

@Suite("The system's clock for stores")
struct SystemStoreClockTests {
    @Test("retention advances by the monotonic clock, whatever the wall clock does")
    func anchored() {
        // As if the wall clock had been stepped by decades after the clock was made.
        let start = Timestamp(microseconds: 1_000_000_000_000)
        let clock = SystemStoreClock(real: start.microseconds)
        let first = clock.now()
        var last = first
        while last.lease == first.lease { last = clock.now() }
        #expect(last.retention - first.retention == last.lease - first.lease)
        #expect(first.retention >= start && last.retention - start < .seconds(3600))
    }
}
