import Semel
import Testing

@Suite("The randomness of the live environment")
struct RandomnessTests {
    @Test("numbers fetched many at a time are given out once, whoever draws them")
    func drawnOnce() async {
        let environment = Semel.Environment.live
        let drawn = await withTaskGroup(of: [UInt64].self) { group in
            for _ in 0..<8 { group.addTask { (0..<1000).map { _ in environment.random() } } }
            return await group.reduce(into: []) { $0 += $1 }
        }
        #expect(Set(drawn).count == 8000)
        // Erased numbers would be zeros.
        #expect(!drawn.contains(0))
    }
}
