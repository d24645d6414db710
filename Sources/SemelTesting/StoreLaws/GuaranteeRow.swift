internal import Semel

/// A store's row of the guarantee table: what it makes of each kind of effect, and how many of the store laws it is held to.
///
/// The table of the README is made of these; a test of each store compares the row there with the one that its real
/// capabilities give, so that the table cannot claim more than the code.
public struct GuaranteeRow: Hashable, Sendable {
    public static let header = [
        "| Store | What it acknowledged | shares the transaction | deduplicates | can be asked, and fences | can be asked | nothing known | Laws |",
        "|---|---|---|---|---|---|---|---|",
    ]

    private static let effects: [Effect] = [
        .localTransaction, .deduplicates(keeps: .seconds(365 * 86_400)), .queryable(inFlight: .seconds(60), isFenced: true),
        .queryable(inFlight: .seconds(60), isFenced: false), .unknown,
    ]

    /// The row, as a line of Markdown.
    public let markdown: String

    /// - Parameters:
    ///   - name: of the store, for people.
    ///   - subject: what the laws are checked on. Those it is excused from are not counted.
    public init(_ name: String, _ subject: StoreSubject) {
        let capabilities = subject.store.capabilities
        let durability =
            switch capabilities.durability {
            case .durable: "survives a crash"
            case .forgetful(let why): "may be lost: \(why)"
            }
        let levels = Self.effects.map { effect in
            do {
                return "`\(try Policy(scene: "table", effect: effect).assess(on: capabilities).level.name)`"
            } catch {
                return "refused"
            }
        }
        let laws = StoreLaw.all.count - StoreLaw.notApplicable(to: subject).count
        markdown = "| " + ([name, durability] + levels + ["\(laws) of \(StoreLaw.all.count)"]).joined(separator: " | ") + " |"
    }

    /// Whether a text has the table's header, and this row below it.
    public func isIn(_ text: String) -> Bool {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        guard let first = lines.firstIndex(of: Self.header[0]), lines.dropFirst(first + 1).first == Self.header[1] else { return false }
        return lines[(first + 2)...].prefix { $0.hasPrefix("|") }.contains(markdown)
    }
}
