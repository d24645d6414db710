import Foundation

/// The figures of a suite, printed as they come.
struct Report {
    private(set) var isMet = true

    func note(_ text: String) {
        print("   \(text)")
        fflush(nil)
    }

    /// A ratio that must be at least, or at most, a number.
    mutating func figure(_ name: String, _ value: Double, atLeast least: Double? = nil, atMost most: Double? = nil, aim: Double? = nil) {
        let isMet = (least.map { value >= $0 } ?? true) && (most.map { value <= $0 } ?? true)
        self.isMet = self.isMet && isMet
        let bound = [least.map { "at least \($0)" }, most.map { "at most \($0)" }, aim.map { "aim \($0)" }].compactMap(\.self)
        note("\(isMet ? "met   " : "MISSED") \(name): \(String(format: "%.2f", value)) (\(bound.joined(separator: ", ")))")
    }
}
