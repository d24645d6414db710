@testable import SemelCore
import Testing

@Suite("Selecting places in JSON")
struct JSONSelectorTests {
    @Test("selectors are read into their one normal form", arguments: [
        ("$", "$"),
        ("$.order_id", "$['order_id']"),
        ("$._a1.b", "$['_a1']['b']"),
        ("$['order-id']", "$['order-id']"),
        ("$[\"a b\"].c", "$['a b']['c']"),
        (#"$['it\'s']"#, #"$['it\'s']"#),
        (#"$["it's"]"#, #"$['it\'s']"#),
        (#"$['a\\b']"#, #"$['a\\b']"#),
        ("$['']", "$['']"),
        ("$['*']", "$['*']"),
        ("$.größe", "$['größe']"),
        ("$.lines[0].id", "$['lines'][0]['id']"),
        ("$[*]['x'][10]", "$[*]['x'][10]"),
    ])
    func reads(text: String, normalForm: String) throws {
        let selector = try JSONSelector(text)
        #expect(selector.description == normalForm)
        #expect(try JSONSelector(normalForm) == selector)
    }

    @Test("what is no selector is refused at its place with what to write instead", arguments: [
        ("", 1, "$.order_id"), ("order_id", 1, "$.order_id"), (".a", 1, "$.order_id"), (" $.a", 1, "$.order_id"),
        ("$a", 2, "$.order.id"), ("$.", 3, "$.order_id"), ("$.a.", 5, "$.order_id"), ("$..a", 3, "every level"), ("$.*", 3, "[*]"),
        ("$.order-id", 8, "$['order-id']"), ("$.1st", 3, "$['1st']"), ("$.a b", 4, "$['order id']"), ("$[", 3, "['name']"),
        ("$[a]", 3, "['name']"), ("$['a'", 6, "['name']"), ("$['a", 5, "['name']"), ("$['a]", 6, "['name']"),
        (#"$['\n']"#, 5, "the character itself"), ("$[]", 3, "['name']"), ("$[0", 4, "['name']"), ("$[01]", 3, "leading zeros"),
        ("$[-1]", 3, "[*]"), ("$[1:2]", 4, "[*]"), ("$['a','b']", 6, "one selector for each"), ("$[0,1]", 4, "one selector for each"),
        ("$[?@.a]", 3, "$.lines[0].id"), ("$[ 0 ]", 3, "['name']"), ("$[0 ]", 4, "without white space"),
        ("$[99999999999999999999]", 3, "from 0 on"), ("$.a$", 4, "brackets"), (#"$['a\"#, 6, "the character itself"),
    ])
    func refuses(text: String, column: Int, remedy: String) {
        let error = #expect(throws: JSONSelectorError.self) { _ = try JSONSelector(text) }
        #expect(error?.column == column, "\(text): \(String(describing: error))")
        #expect(error?.remedy.contains(remedy) == true, "\(text): \(String(describing: error))")
    }

    @Test("random text never traps the reader")
    func fuzz() {
        var random = SeededRandom.fresh()
        var accepted = 0
        for _ in 0..<5_000 {
            let text = "$" + String((0..<Int.random(in: 0...8, using: &random)).map { _ in "$.[]'\"\\*?-:,019aé ".randomElement(using: &random)! })
            guard let selector = try? JSONSelector(text) else { continue }
            accepted += 1
            #expect(try! JSONSelector(selector.description) == selector, "seed \(random.seed): \(text)")
        }
        #expect(accepted > 0, "everything was refused; seed \(random.seed)")
    }

    @Test("a selector finds its place; a missing one is not null", arguments: [
        ("$.a", .value(1)), ("$['b'].c[1]", .value("y")), ("$.b.c[2]", .missing), ("$.none", .value(.null)), ("$.missing", .missing),
        ("$.a.b", .missing), ("$.b[0]", .missing), ("$.b.c.x", .missing), ("$.a[*]", .missing), ("$.b[*]", .missing),
        ("$.b.c[*]", .each([.value("x"), .value("y")])), ("$.empty[*]", .each([])),
        ("$.lines[*].id", .each([.value(1), .missing, .value(.null), .missing])),
        ("$.none.x", .missing),
    ] as [(String, JSONSelection)])
    func finds(selector: String, selection: JSONSelection) throws {
        let value = try json(#"{"a":1,"b":{"c":["x","y"]},"none":null,"empty":[],"lines":[{"id":1},{},{"id":null},7]}"#)
        #expect(try JSONSelector(selector).select(in: value) == selection)
    }

    @Test("different results have different bytes: 1 and \"1\", missing and null, an empty array and no element")
    func distinct() throws {
        let selections: [JSONSelection] = [
            .missing, .value(.null), .value(1), .value("1"), .value(true), .value("true"), .value("null"), .value(""), .value([]),
            .value([:]), .each([]), .each([.missing]), .each([.value(.null)]), .each([.each([])]), .value([1]), .each([.value(1)]),
            .each([.value("ab"), .value("c")]), .each([.value("a"), .value("bc")]), .each([.value("abc")]), .value(["ab", "c"]),
            .each([.value(1), .missing]), .each([.missing, .value(1)]), .each([.each([.value(1)]), .each([])]),
            .each([.each([]), .each([.value(1)])]),
        ]
        #expect(Set(selections.map(\.encoded)).count == selections.count)
    }

    @Test("the notation of the payload does not change the result's bytes")
    func canonical() throws {
        let selector = try JSONSelector("$.x")
        let left = selector.select(in: try json(#"{"x":{"b":1.0,"a":"\u0041"},"y":1}"#))
        let right = selector.select(in: try json(#"{"y":2, "x":{"a":"A","b":1}}"#))
        #expect(left.encoded == right.encoded)
    }
}
