import SemelCore
import Testing

@Suite("An epoch")
struct EpochTests {
    @Test("rises with the clock, and without it, and when the clock goes back (H9)")
    func rises() {
        var epoch = Epoch.zero
        for microseconds in [1_000, 1_000, 1_001, 5_000, 4_000, 0, -7, 5_001] as [Int64] {
            let next = epoch.next(at: Timestamp(microseconds: microseconds), in: Incarnation(rawValue: 0))
            #expect(next > epoch)
            #expect(next.rawValue >= UInt64(max(0, microseconds)))
            epoch = next
        }
    }

    @Test("is higher in a later incarnation, however far the clock was in the earlier one (H21)")
    func incarnations() {
        let late = Epoch.zero.next(at: Timestamp(microseconds: 1 << 52 - 1), in: Incarnation(rawValue: 4))
        let restored = Epoch.zero.next(at: Timestamp(microseconds: 1), in: Incarnation(rawValue: 5))
        #expect(restored > late)
        #expect(late.incarnation == Incarnation(rawValue: 4) && restored.incarnation == Incarnation(rawValue: 5))
        #expect(Incarnation(rawValue: .max).rawValue == Incarnation.limit)
    }
}
